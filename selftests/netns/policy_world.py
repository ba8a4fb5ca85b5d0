# SPDX-License-Identifier: Apache-2.0
"""Three namespaces of three pods each, as the upstream NetworkPolicy tests have them."""
import json
from concurrent.futures import ThreadPoolExecutor

from netlab import NODE4, NODE6, wait_for
from suite import Failure

NAMESPACES = ("x", "y", "z")
PODS = ("a", "b", "c")
ALL = tuple(f"{n}/{p}" for n in NAMESPACES for p in PODS)
DENIED_MS = 250  # a packet that is dropped is dropped at once


def name_of(pod):
    return pod.replace("/", "-")


class World:
    """The pods, their objects in the agent's folder, and what reaches what."""

    def __init__(self, lab):
        self.lab = lab
        self.files = set()
        lab.write("world-node.yaml", json.dumps(
            {"apiVersion": "v1", "kind": "Node",
             "metadata": {"name": lab.node_name, "labels": {"role": "here"}},
             "spec": {"podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"]},
             "status": {"addresses": [{"type": "InternalIP", "address": a}
                                      for a in (NODE4, NODE6)]}}))
        for ns in NAMESPACES:
            self.label_ns(ns)
            for pod in PODS:
                self.add(f"{ns}/{pod}")

    def label_ns(self, ns, **labels):
        self.lab.write(f"world-ns-{ns}.yaml", json.dumps(
            {"apiVersion": "v1", "kind": "Namespace",
             "metadata": {"name": ns, "labels": {"ns": ns, **labels}}}))

    def label(self, who, **labels):
        ns, name = who.split("/")
        addrs = self.lab.pods.get(name_of(who), ())
        self.lab.write(f"world-{name_of(who)}.yaml", json.dumps(
            {"apiVersion": "v1", "kind": "Pod",
             "metadata": {"name": name_of(who), "namespace": ns, "labels": {"pod": name, **labels}},
             "spec": {"nodeName": self.lab.node_name, "containers": [
                 {"name": "c", "ports": [{"name": "serve-80", "containerPort": 80},
                                         {"name": "serve-81-udp", "containerPort": 81,
                                          "protocol": "UDP"}]}]},
             "status": {"phase": "Running", "podIPs": [{"ip": a} for a in addrs]}}))

    def add(self, pod):
        self.lab.add_pod(name_of(pod), ns=pod.split("/")[0])
        self.label(pod)
        self.lab.background(name_of(pod), "echo", "--label", name_of(pod), "--port", "80,81",
                            name=f"echo-{name_of(pod)}")

    def apply(self, *objects):
        """Policies, each in a file of its own."""
        for obj in objects:
            name = f"policy-{obj['metadata'].get('namespace', '')}-{obj['metadata']['name']}.yaml"
            self.files.add(name)
            self.lab.write(name, json.dumps(obj))

    def drop(self, *names):
        for name in [f for f in self.files if not names or any(n in f for n in names)]:
            self.lab.remove(name)
            self.files.discard(name)

    def clean(self):
        self.drop()
        for ns in NAMESPACES:
            self.label_ns(ns)
        for pod in ALL:
            self.label(pod)

    def reaches(self, src, dst, port=80, proto="TCP", family=0):
        """Can src open a flow to dst? dst: a pod, or an address."""
        net = name_of(src) if "/" in src else src
        addr = self.lab.pods[name_of(dst)][family] if "/" in dst else dst
        ask = self.lab.udp if proto == "UDP" else self.lab.connect
        return ask(net, addr, port, timeout_ms=DENIED_MS)["is"] == "ok"

    def table(self, probes):
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda p: self.reaches(*p), probes))

    def expect(self, what, *rules, seconds=8):
        """rules: (sources, destinations, ports, protocol, allowed), in both families. In force
        within seconds."""
        probes, want = [], []
        for srcs, dsts, ports, proto, allowed in rules:
            for s in (srcs if isinstance(srcs, (tuple, list)) else (srcs,)):
                for d in (dsts if isinstance(dsts, (tuple, list)) else (dsts,)):
                    for port in (ports if isinstance(ports, (tuple, list)) else (ports,)):
                        if s == d:
                            continue
                        families = (0, 1) if "/" in d else (1 if ":" in d else 0,)
                        for f in families:
                            probes.append((s, d, port, proto, f))
                            want.append(allowed)
        got = []

        def as_wanted():
            got[:] = self.table(probes)
            return got == want
        try:
            wait_for(what, as_wanted, seconds, 0.05)
        except Exception as e:
            wrong = [f"{p[0]} {'reaches' if g else 'does not reach'} {p[1]}:{p[2]}/{p[3]}"
                     f" over IPv{'64'[not p[4]]}" for p, g, w in zip(probes, got, want) if g != w]
            raise Failure(f"{what}: {'; '.join(wrong[:6])}") from e


def network_policy(ns, name, pods=None, ingress=None, egress=None, types=None):
    spec = {"podSelector": pods or {}}
    if ingress is not None:
        spec["ingress"] = ingress
    if egress is not None:
        spec["egress"] = egress
    spec["policyTypes"] = types or ([] if ingress is None else ["Ingress"]) + \
        ([] if egress is None else ["Egress"])
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": ns}, "spec": spec}


def cluster_policy(name, tier, priority, ns=None, pods=None, ingress=None, egress=None):
    subject = {"namespaces": ns or {}} if pods is None else \
        {"pods": {"namespaceSelector": ns or {}, "podSelector": pods}}
    spec = {"tier": tier, "priority": priority, "subject": subject}
    if ingress is not None:
        spec["ingress"] = ingress
    if egress is not None:
        spec["egress"] = egress
    return {"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name}, "spec": spec}


def labels(**match):
    return {"matchLabels": match}


def rule(action, peers, key="from", protocols=None):
    return {"action": action, key: peers, **({"protocols": protocols} if protocols else {})}
