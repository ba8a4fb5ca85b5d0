#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The chart as helm renders, checks and refuses it; and its flags as the agent reads them."""
import json
import os
import re
import subprocess
import sys
import tempfile

import yaml

import suite
from suite import BUILD, CHART, SRC, agent_of, config_of, merge, nested

AGENT = os.path.join(BUILD, "agent", "waggle-agent")

# name, values, what the config dir must say then (None: the flag is not there)
MATRIX = [
    ("defaults", {}, {"routing-mode": "tunnel", "tunnel-protocol": "vxlan", "ipam": "kubernetes",
                      "socket-lb": "full", "lb-acceleration": "disabled",
                      "lb-mode": "snat", "lb-algorithm": "random", "policy-audit-mode": "false",
                      "ct-max": "262144", "svc-max": "65536",
                      "slot-max": "262144", "host-routing": "bpf", "log-level": "info",
                      "enable-ipv4": "true", "enable-ipv6": "false", "mtu": None,
                      "tunnel-port": None, "devices": None, "prometheus-serve-addr": None,
                      "pin-dir": "/sys/fs/bpf/waggle", "cgroup": "/run/waggle/cgroup2",
                      "socket": "/run/waggle/hubble.sock", "cni-exclusive": "true",
                      "cni-conf-dir": "/host/etc/cni/net.d", "health-addr": "127.0.0.1:9879",
                      "healthz-bind-address": "0.0.0.0:10256"}),
    ("no health port", {"kubeProxyReplacementHealthzBindAddr": ""}, {"healthz-bind-address": ""}),
    ("native", {"routingMode": "native", "ipv4NativeRoutingCIDR": "10.0.0.0/8",
                "autoDirectNodeRoutes": True, "directRoutingSkipUnreachable": True},
     {"routing-mode": "native", "ipv4-native-routing-cidr": "10.0.0.0/8",
      "auto-direct-node-routes": "true", "direct-routing-skip-unreachable": "true"}),
    ("auto", {"routingMode": "auto"}, {"routing-mode": "auto"}),
    ("geneve", {"tunnelProtocol": "geneve", "tunnelPort": 6082, "underlayProtocol": "ipv6"},
     {"tunnel-protocol": "geneve", "tunnel-port": "6082", "underlay-protocol": "ipv6"}),
    ("dual stack", {"ipv6": {"enabled": True}}, {"enable-ipv4": "true", "enable-ipv6": "true"}),
    ("IPv6 only", {"ipv4": {"enabled": False}, "ipv6": {"enabled": True}},
     {"enable-ipv4": "false", "enable-ipv6": "true"}),
    ("cluster-pool", {"ipam": {"mode": "cluster-pool", "operator": {
        "clusterPoolIPv4PodCIDRList": ["10.1.0.0/16", "10.3.0.0/16"],
        "clusterPoolIPv4MaskSize": 26}}},
     {"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": "10.1.0.0/16,10.3.0.0/16",
      "cluster-pool-ipv4-mask-size": "26", "enable-ipv6": "false",
      "ipam-namespace": "kube-system"}),
    ("cluster-pool as text", {"ipv6": {"enabled": True}, "ipam": {
        "mode": "cluster-pool", "operator": {
            "clusterPoolIPv4PodCIDRList": "10.1.0.0/16, 10.3.0.0/16\n",
            "clusterPoolIPv6PodCIDRList": "fd00:1:2:3:4:5::/104 1:2:3:4:5:6:7:0/112"}}},
     {"cluster-pool-ipv4-cidr": "10.1.0.0/16,10.3.0.0/16",
      "cluster-pool-ipv6-cidr": "fd00:1:2:3:4:5::/104,1:2:3:4:5:6:7:0/112"}),
    ("cluster-pool, dual stack", {"ipam": {"mode": "cluster-pool"}, "ipv6": {"enabled": True}},
     {"cluster-pool-ipv6-cidr": "fd00::/104", "cluster-pool-ipv6-mask-size": "120"}),
    ("masquerade", {"enableIPv4Masquerade": False, "enableIPv6Masquerade": False},
     {"enable-ipv4-masquerade": "false", "enable-ipv6-masquerade": "false"}),
    ("ip-masq-agent", {"ipMasqAgent": {"enabled": True, "config": {
        "nonMasqueradeCIDRs": ["10.0.0.0/8"], "masqLinkLocal": False}}},
     {"ip-masq-agent-config": "/etc/waggle-ip-masq-agent/config"}),
    ("ip-masq-agent's own", {"ipMasqAgent": {"enabled": True}}, {}),
    ("devices", {"devices": "eth0 eth1", "MTU": 1450}, {"devices": "eth0,eth1", "mtu": "1450"}),
    ("devices as a list", {"devices": ["eth0", "eth1"]}, {"devices": "eth0,eth1"}),
    ("some addresses for NodePorts", {"nodePort": {"addresses": ["10.0.0.0/8", "fd00::/64"]}},
     {"nodeport-addresses": "10.0.0.0/8,fd00::/64"}),
    ("the main addresses for NodePorts", {"nodePort": {"enabled": True, "addresses": "primary"}},
     {"nodeport-addresses": "primary"}),
    ("sockets of the node", {"socketLB": {"hostNamespaceOnly": True}}, {"socket-lb": "host"}),
    ("no socket path", {"socketLB": {"enabled": False}}, {"socket-lb": "off"}),
    ("XDP", {"loadBalancer": {"acceleration": "best-effort"}}, {"lb-acceleration": "best-effort"}),
    ("Maglev", {"loadBalancer": {"algorithm": "maglev"}}, {"lb-algorithm": "maglev"}),
    ("DSR", {"loadBalancer": {"mode": "dsr"}}, {"lb-mode": "dsr", "routing-mode": "tunnel"}),
    ("hybrid", {"routingMode": "auto", "loadBalancer": {"mode": "hybrid"}},
     {"lb-mode": "hybrid", "routing-mode": "auto"}),
    ("tables", {"bpf": {"ctTcpMax": 524288, "ctAnyMax": 262144, "lbMapMax": 1000000}},
     {"ct-max": "786432", "svc-max": "1000000", "slot-max": "4000000"}),
    ("host firewall", {"bpf": {"hostLegacyRouting": True}}, {"host-routing": "kernel"}),
    ("other mounts", {"bpf": {"root": "/mnt/bpf", "autoMount": {"enabled": False}},
                      "cgroup": {"hostRoot": "/sys/fs/cgroup", "autoMount": {"enabled": False}}},
     {"pin-dir": "/mnt/bpf/waggle", "cgroup": "/sys/fs/cgroup"}),
    ("no flows", {"hubble": {"enabled": False}}, {"socket": ""}),
    ("metrics", {"prometheus": {"enabled": True, "port": 9999}},
     {"prometheus-serve-addr": ":9999"}),
    ("chained", {"cni": {"chainingMode": "aws-cni", "exclusive": False,
                         "chainingTarget": "aws-cni"}},
     {"cni-chaining-mode": "aws-cni", "cni-exclusive": "false", "cni-chaining-target": "aws-cni"}),
    ("no CNI", {"cni": {"install": False}}, {"cni-conf-dir": None}),
    ("own CNI file", {"cni": {"customConf": True}}, {"cni-conf-dir": None}),
    ("CNI folders", {"cni": {"confPath": "/etc/k0s/net.d", "binPath": "/usr/libexec/cni",
                             "uninstall": True}},
     {"cni-conf-dir": "/host/etc/k0s/net.d", "cni-uninstall": "true"}),
    ("API server", {"k8sServiceHost": "10.0.0.1", "k8sServicePort": 6443}, {}),
    ("API server's last port", {"k8sServiceHost": "10.0.0.1", "k8sServicePort": "65535"}, {}),
    ("debug", {"debug": {"enabled": True}, "extraConfig": {"attach": "clsact"},
               "extraArgs": ["--log-level=error"]}, {"log-level": "debug", "attach": "clsact"}),
    ("names", {"nameOverride": "waggle", "commonLabels": {"team": "net"}, "podLabels": {"a": "b"},
               "podAnnotations": {"c": "d"}, "imagePullSecrets": [{"name": "pull"}],
               "image": {"repository": "r.example/waggle", "tag": "v9", "pullPolicy": "Always"},
               "affinity": {"nodeAffinity": {}}, "securityContext": {"privileged": True}}, {}),
    ("numbers for the agent", {"extraConfig": {"ct-max": 1048576, "policy-audit-mode": True}},
     {"ct-max": "1048576", "policy-audit-mode": "true"}),
    ("null as in Cilium's own values", {
        "bpf": {"masquerade": None, "hostLegacyRouting": None, "ctTcpMax": None, "ctAnyMax": None},
        "nodePort": {"addresses": None}, "cni": {"chainingTarget": None}, "devices": None,
        "k8sServiceHost": None, "k8sServicePort": None, "priorityClassName": None},
     {"host-routing": "bpf", "ct-max": "262144", "devices": None, "nodeport-addresses": None}),
    ("null of what is Kubernetes'", {
        "startupProbe": None, "livenessProbe": None, "readinessProbe": None, "tolerations": None,
        "updateStrategy": None, "nodeSelector": None, "affinity": None, "extraConfig": None,
        "podSecurityContext": None, "podAnnotations": None, "commonLabels": None}, {}),
    ("a values file of Cilium", {
        "kubeProxyReplacement": "true", "k8sServiceHost": "api.example", "k8sServicePort": "6443",
        "routingMode": "native", "ipv4NativeRoutingCIDR": "10.244.0.0/16",
        "autoDirectNodeRoutes": True, "bpf": {"masquerade": True, "preallocateMaps": None},
        "ipam": {"mode": "kubernetes"}, "operator": {"enabled": False}, "envoy": {"enabled": False},
        "l7Proxy": False, "hubble": {"enabled": True, "relay": {"enabled": False},
                                     "ui": {"enabled": False}, "tls": {"enabled": False}},
        "encryption": {"enabled": False, "type": "wireguard"}, "nodePort": {"enabled": True},
        "loadBalancer": {"mode": "snat"}, "gatewayAPI": {"enabled": False},
        "rollOutCiliumPods": True, "bandwidthManager": {"enabled": True}},
     {"routing-mode": "native"}),
]


def pool(family, cidrs):
    return {"ipam": {"mode": "cluster-pool", "operator": {f"clusterPoolIPv{family}PodCIDRList":
                                                          cidrs}}}


# values, what helm must say
SCHEMA_REFUSES = [
    ({"routingmode": "native"}, "value must be 'routingMode'"),
    ({"kubeProxyReplacment": True}, "value must be 'kubeProxyReplacement'"),
    ({"k8sserviceHost": "x"}, "value must be 'k8sServiceHost'"),
    ({"ipam": {"Mode": "kubernetes"}}, "value must be 'mode'"),
    ({"ipam": {"operator": {"clusterPoolIPv4PodCidrList": []}}},
     "value must be 'clusterPoolIPv4PodCIDRList'"),
    ({"bpf": {"hostLegacyRoutin": True}}, "value must be 'hostLegacyRouting'"),
    ({"cni": {"exclusiv": True}}, "value must be 'exclusive'"),
    ({"frobnicate": 1}, "additional properties 'frobnicate' not allowed"),
    ({"prometheus": {"serviceMonitor": {"frobnicate": 1}}}, "'frobnicate' not allowed"),
    ({"routingMode": "overlay"}, "value must be one of 'tunnel', 'native', 'auto'"),
    ({"ipam": {"mode": "multi-pool"}}, "value must be one of 'kubernetes', 'cluster-pool'"),
    ({"loadBalancer": {"acceleration": "fast"}}, "'disabled', 'best-effort', 'native'"),
    ({"loadBalancer": {"algorithm": "hash"}}, "'random', 'maglev'"),
    ({"loadBalancer": {"mode": "annotation"}}, "'snat', 'dsr', 'hybrid'"),
    ({"k8sServiceHost": "h", "k8sServicePort": "70000"}, "/k8sServicePort"),
    ({"k8sServiceHost": "h", "k8sServicePort": "65536"}, "/k8sServicePort"),
    ({"k8sServiceHost": "h", "k8sServicePort": "0"}, "/k8sServicePort"),
    ({"k8sServiceHost": "h", "k8sServicePort": 70000}, "/k8sServicePort"),
    ({"k8sServiceHost": "h", "k8sServicePort": 0}, "/k8sServicePort"),
    ({"tunnelPort": 70000}, "/tunnelPort"),
    ({"MTU": 100}, "/MTU"),
    ({"ipv4NativeRoutingCIDR": "10.0.0.0"}, "/ipv4NativeRoutingCIDR"),
    ({"autoDirectNodeRoutes": "yes"}, "/autoDirectNodeRoutes"),
    ({"image": {"digest": "latest"}}, "/image/digest"),
    ({"extraArgs": "--log-level=debug"}, "/extraArgs"),
    ({"cni": None}, "missing property 'cni'"),
    ({"hubble": {"enabled": None}}, "missing property 'enabled'"),
    ({"healthPort": None}, "missing property 'healthPort'"),
    ({"routingMode": None}, "missing property 'routingMode'"),
    ({"podAnnotations": {"a": 5}}, "/podAnnotations/a"),
    ({"commonLabels": {"a": True}}, "/commonLabels/a"),
    ({"image": {"repository": ""}}, "/image/repository"),
    ({"nameOverride": "-waggle"}, "/nameOverride"),
    ({"nameOverride": "waggle-"}, "/nameOverride"),
]

TEMPLATES_REFUSE = [
    ({"k8sServiceHost": "10.0.0.1"}, "k8sServicePort: is missing"),
    ({"k8sServicePort": 6443}, "k8sServiceHost: is missing"),
    ({"k8sServiceHost": "https://10.0.0.1", "k8sServicePort": 6443}, "without https://"),
    ({"k8sServiceHost": "auto"}, "kube-public/cluster-info cannot be read"),
    ({"routingMode": "native"}, "ipv4NativeRoutingCIDR: is missing"),
    ({"routingMode": "native", "ipv4NativeRoutingCIDR": "10.0.0.0/8", "ipv6": {"enabled": True}},
     "ipv6NativeRoutingCIDR: is missing"),
    ({"routingMode": "native", "ipv4NativeRoutingCIDR": "10.0.0.0/8",
      "loadBalancer": {"mode": "dsr"}}, "loadBalancer.mode: dsr sends packets to other nodes by"),
    ({"cni": {"chainingMode": "flannel"}, "loadBalancer": {"mode": "hybrid"}},
     "loadBalancer.mode: hybrid sends packets to other nodes by"),
    ({"autoDirectNodeRoutes": True}, "autoDirectNodeRoutes: routes go with routingMode=native"),
    ({"directRoutingSkipUnreachable": True}, "directRoutingSkipUnreachable: goes with"),
    ({"ipv4": {"enabled": False}}, "pods need one family"),
    ({"ipam": {"mode": "cluster-pool", "operator": {"clusterPoolIPv4PodCIDRList": []}}},
     "clusterPoolIPv4PodCIDRList: is empty"),
    (pool(4, ["10.0.0.0/99"]), 'clusterPoolIPv4PodCIDRList: "10.0.0.0/99" is no IPv4 range'),
    (pool(4, ["10.0.0.0/8", "banana"]), '"banana" is no IPv4 range: write it like 10.0.0.0/8'),
    (pool(4, "10.1.0.0/16, banana"), 'clusterPoolIPv4PodCIDRList: "banana" is no'),
    (pool(4, ["10.0.0.256/24"]), 'clusterPoolIPv4PodCIDRList: "10.0.0.256/24"'),
    (pool(4, ["10.0.0.0"]), 'clusterPoolIPv4PodCIDRList: "10.0.0.0" is no'),
    (pool(4, ["fd00::/104"]), 'clusterPoolIPv4PodCIDRList: "fd00::/104"'),
    (pool(6, ["10.0.0.0/8"]), '"10.0.0.0/8" is no IPv6 range: write it like fd00::/104'),
    (pool(6, ["fd00::/129"]), 'clusterPoolIPv6PodCIDRList: "fd00::/129"'),
    (pool(6, ["fd00::1::/64"]), 'clusterPoolIPv6PodCIDRList: "fd00::1::/64"'),
    (pool(6, [":::/64"]), 'clusterPoolIPv6PodCIDRList: ":::/64"'),
    (pool(6, ["1:2:3/64"]), 'clusterPoolIPv6PodCIDRList: "1:2:3/64"'),
    (pool(6, "1:2:3:4:5:6:7:8:9/64"), 'clusterPoolIPv6PodCIDRList: "1:2:3:4:5:6:7:8:9/64"'),
    ({"prometheus": {"serviceMonitor": {"enabled": True}}}, "set prometheus.enabled=true"),
    ({"prometheus": {"enabled": True, "serviceMonitor": {"enabled": True}}},
     "has no ServiceMonitor"),
    ({"prometheus": {"enabled": True, "port": 9879}}, "prometheus.port: is healthPort"),
    ({"podLabels": {"k8s-app": "x"}}, 'podLabels: "k8s-app" is a label of the chart\'s own'),
    ({"podLabels": {"a": "b", "app.kubernetes.io/name": "x"}},
     'podLabels: "app.kubernetes.io/name" is'),
    ({"commonLabels": {"k8s-app": "x"}}, 'commonLabels: "k8s-app" is a label of the chart\'s own'),
    ({"cni": {"chainingTarget": "aws-cni"}}, "cni.chainingTarget: goes with cni.chainingMode"),
]


def test_lint(helm):
    code, out, _ = helm.run("lint", CHART, "--strict")
    assert code == 0 and "0 chart(s) failed" in out, out


def test_schema_and_values_table_follow_from_the_values(helm):
    done = subprocess.run([os.path.join(SRC, "helm", "generate"), "--check"], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check_strict(schema, path="values"):
    """Every object with members refuses others, and says which name may be meant."""
    if "properties" in schema:
        assert schema.get("additionalProperties") is False, f"{path} takes unknown names"
        assert set(schema["properties"]) == \
            {rule["then"]["const"] for rule in schema["propertyNames"]["allOf"]}, path
        for name, member in schema["properties"].items():
            check_strict(member, f"{path}.{name}")


def test_schema_is_strict_everywhere(helm):
    with open(os.path.join(CHART, "values.schema.json"), encoding="utf-8") as f:
        check_strict(json.load(f))


def check_set(helm, values, wanted, kubernetes):
    objects = helm.render(values, "--kube-version", kubernetes)
    check_objects(objects)
    config = config_of(objects)
    for flag, value in wanted.items():
        assert config.get(flag) == value, f"{flag} is {config.get(flag)!r}, not {value!r}"


def test_matrix(helm):
    for name, values, wanted in MATRIX:
        for kubernetes in ("1.29.0", "1.31.0"):  # before and after AppArmor's field
            try:
                check_set(helm, values, wanted, kubernetes)
            except AssertionError as e:
                raise AssertionError(f"{name}, Kubernetes {kubernetes}: {e}") from e
    return f"{len(MATRIX)} sets of values"


def check_objects(objects):
    """What holds whatever the values are."""
    config, spec = config_of(objects), agent_of(objects)
    assert all(isinstance(v, str) for v in config.values()), "ConfigMap values are strings"
    daemonset = objects["DaemonSet", "waggle"]["spec"]
    labels = daemonset["template"]["metadata"]["labels"]
    assert daemonset["selector"]["matchLabels"].items() <= labels.items()
    volumes = [v["name"] for v in spec["volumes"]]
    used = {m["name"] for c in spec["initContainers"] + spec["containers"]
            for m in c["volumeMounts"]}
    assert len(volumes) == len(set(volumes)) and set(volumes) == used, (volumes, used)
    for container in spec["initContainers"] + spec["containers"]:
        context = container["securityContext"]
        assert container["resources"]["requests"], container["name"]
        assert context.get("privileged") or (context["capabilities"]["drop"] == ["ALL"] and
                                             context["allowPrivilegeEscalation"] is False)
        assert context["readOnlyRootFilesystem"] is True
        paths = [m["mountPath"] for m in container["volumeMounts"]]
        assert len(paths) == len(set(paths)), paths


def test_agent_takes_every_flag(helm):
    """Each config dir, read by this build's agent: it must get as far as asking for a source."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")}
    flags = set()
    for name, values, _ in MATRIX:
        objects = helm.render(values)
        config = config_of(objects)
        flags |= set(config)
        with tempfile.TemporaryDirectory() as where:
            for flag, value in config.items():
                with open(os.path.join(where, flag), "w", encoding="utf-8") as f:
                    f.write(value)
            extra = [a for a in agent_of(objects)["containers"][0]["args"]
                     if not a.startswith("--config-dir")]
            done = subprocess.run([AGENT, f"--config-dir={where}", "--node-name=n", *extra],
                                  env=env, capture_output=True, text=True, check=False, timeout=20)
        assert "where do Services come from?" in done.stderr, f"{name}: {done.stderr.strip()}"
    text = subprocess.run([AGENT, "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"--([a-z0-9-]+)", text))
    assert flags <= known, f"unknown to the agent: {sorted(flags - known)}"
    return f"{len(flags)} flags"


def test_schema_refuses(helm):
    for values, text in SCHEMA_REFUSES:
        said = helm.refused(values)
        assert "specifications of the schema" in said and text in said, f"{values}: {said}"
    return f"{len(SCHEMA_REFUSES)} sets of values"


def test_templates_refuse_what_does_not_fit(helm):
    for values, text in TEMPLATES_REFUSE:
        said = helm.refused(values)
        assert "specifications of the schema" not in said and text in said, f"{values}: {said}"
    return f"{len(TEMPLATES_REFUSE)} sets of values"


def cilium_values():
    with open(os.path.join(CHART, "files", "cilium.yaml"), encoding="utf-8") as f:
        return yaml.safe_load(f)


def test_values_of_cilium_that_ask_for_more_are_refused(helm):
    """All at once; each with what to do, none silently."""
    values = {}
    table = cilium_values()
    for path, entry in sorted(table.items(), key=lambda e: -e[0].count(".")):
        asked = {entry["switch"]: True} if "switch" in entry else \
            False if True in entry.get("accept", []) else "something"
        if entry.get("switch") and {entry["switch"]: True} in entry.get("accept", []):
            asked = {entry["switch"]: True, "more": 1}
        merge(values, nested(path, asked))
    said = helm.refused(values)
    missing = [p for p, e in table.items() if f"\n{p}: {e['say']}" not in said]
    assert not missing, f"not refused: {missing}\n{said}"
    return f"{len(table)} names"


def test_values_of_cilium_that_ask_for_nothing_are_taken(helm):
    values = {}
    for path, entry in cilium_values().items():
        if "." in path and path.split(".")[0] in values:
            continue
        if "switch" in entry:
            merge(values, nested(path, {entry["switch"]: False}))
        elif entry.get("accept"):
            merge(values, nested(path, entry["accept"][0]))
    helm.render(values)
    return f"{len(values)} sections"


def test_daemonset(helm):
    objects = helm.render({"k8sServiceHost": "10.0.0.1", "k8sServicePort": 6443},
                          "--kube-version", "1.31.0")
    spec = agent_of(objects)
    agent = spec["containers"][0]
    assert spec["hostNetwork"] and spec["dnsPolicy"] == "Default"
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["terminationGracePeriodSeconds"] == 1
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["securityContext"]["appArmorProfile"] == {"type": "Unconfined"}
    assert objects["DaemonSet", "waggle"]["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    assert [c["name"] for c in spec["initContainers"]] == \
        ["mount-cgroup", "mount-bpf-fs", "install-cni-binaries"]
    assert "add" not in spec["initContainers"][2]["securityContext"]["capabilities"]
    assert agent["resources"]["limits"]["memory"] and agent["resources"]["requests"]["cpu"]
    mounts = {m["mountPath"]: m for m in agent["volumeMounts"]}
    for path in ("/sys/fs/bpf", "/run/waggle/cgroup2", "/run/netns"):
        assert mounts[path]["mountPropagation"] == "HostToContainer"
    assert mounts["/etc/waggle"]["readOnly"] is True
    env = {e["name"]: e for e in agent["env"]}
    assert env["K8S_NODE_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"
    assert env["KUBERNETES_SERVICE_HOST"]["value"] == "10.0.0.1"
    assert env["KUBERNETES_SERVICE_PORT"]["value"] == "6443"
    for probe, path in (("startup", "/healthz"), ("liveness", "/healthz"),
                        ("readiness", "/readyz")):
        get = agent[f"{probe}Probe"]["httpGet"]
        assert (get["host"], get["port"], get["path"]) == ("127.0.0.1", 9879, path)
    assert "privileged" not in json.dumps(objects["DaemonSet", "waggle"])


def test_apparmor_before_1_30(helm):
    objects = helm.render({}, "--kube-version", "1.29.0")
    pod = objects["DaemonSet", "waggle"]["spec"]["template"]
    annotations = pod["metadata"]["annotations"]
    for container in ("waggle-agent", "mount-cgroup", "mount-bpf-fs"):
        assert annotations[f"container.apparmor.security.beta.kubernetes.io/{container}"] == \
            "unconfined"
    assert "appArmorProfile" not in json.dumps(pod)


def test_configuration_change_replaces_pods(helm):
    def mark(values):
        pod = helm.render(values)["DaemonSet", "waggle"]["spec"]["template"]
        return pod["metadata"]["annotations"]["waggle.io/config"]
    assert mark({}) == mark({"podLabels": {"a": "b"}})
    masq = [mark({"ipMasqAgent": {"enabled": True, "config": {"masqLinkLocal": on}}})
            for on in (True, False)]
    assert masq[0] == masq[1], "the agent follows that file"
    assert len({mark({}), mark({"MTU": 1400}), mark({"extraConfig": {"attach": "tcx"}}),
                masq[0]}) == 4


def watched():
    """(group, resource) of every list the agent makes, from its own table."""
    with open(os.path.join(SRC, "agent", "kube_resource.c"), encoding="utf-8") as f:
        paths = re.findall(r'"/(api|apis)/([\w./-]+)"', f.read())
    return {("" if kind == "api" else path.split("/")[0], path.split("/")[-1])
            for kind, path in paths}


def granted(role):
    return {(group, resource): set(rule["verbs"]) for rule in role["rules"]
            for group in rule["apiGroups"] for resource in rule["resources"]}


def test_roles_are_what_the_agent_uses(helm):
    objects = helm.render({})
    role = objects["ClusterRole", "waggle"]
    lists = {(g, r) for rule in role["rules"] if set(rule["verbs"]) == {"list", "watch"}
             for g in rule["apiGroups"] for r in rule["resources"]}
    assert lists == watched(), f"granted {sorted(lists)}, watched {sorted(watched())}"
    others = [r for r in role["rules"] if set(r["verbs"]) != {"list", "watch"}]
    assert [(r["resources"], r["verbs"]) for r in others] == \
        [(["nodes"], ["patch"]), (["events"], ["create"])]
    assert ("Role", "waggle-ipam") not in objects
    pool = helm.render({"ipam": {"mode": "cluster-pool"}})
    assert granted(pool["Role", "waggle-ipam"]) == \
        {("coordination.k8s.io", "leases"): {"get", "list", "create", "update", "delete"}}
    assert granted(pool["ClusterRole", "waggle"])["", "nodes"] == {"get", "patch"}
    for binding in ("ClusterRoleBinding", "waggle"), ("RoleBinding", "waggle-ipam"):
        assert pool[binding]["subjects"] == [{"kind": "ServiceAccount", "name": "waggle",
                                             "namespace": "kube-system"}]
    assert not [k for k in helm.render({"rbac": {"create": False}}) if "Role" in k[0]]


def test_metrics(helm):
    values = {"prometheus": {"enabled": True, "serviceMonitor": {
        "enabled": True, "labels": {"release": "prom"}, "interval": "30s"}}}
    objects = helm.render(values, "--api-versions", "monitoring.coreos.com/v1")
    monitor = objects["ServiceMonitor", "waggle-agent"]
    service = objects["Service", "waggle-agent"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= \
        service["metadata"]["labels"].items()
    assert monitor["metadata"]["labels"]["release"] == "prom"
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    port = agent_of(objects)["containers"][0]["ports"][0]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert ("Service", "waggle-agent") not in helm.render({})


TESTS = [t for name, t in list(globals().items()) if name.startswith("test_")]

if __name__ == "__main__":
    tool = suite.wants_helm("chart")
    sys.exit(suite.run_tests("chart", TESTS, tool) if tool else 0)
