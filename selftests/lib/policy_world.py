# SPDX-License-Identifier: Apache-2.0
"""Three namespaces of three pods each, as the upstream NetworkPolicy tests have them."""
import json

import prober
from expect import Failure
from netlab import LabError, wait_for

NAMESPACES = ("x", "y", "z")
PODS = ("a", "b", "c")
ALL = tuple(f"{n}/{p}" for n in NAMESPACES for p in PODS)
PORTS = (80, 81)


def name_of(pod):
    return pod.replace("/", "-")


def several(value):
    return value if isinstance(value, (tuple, list)) else (value,)


class World:
    """The pods, their objects in the agents' folder, and what reaches what.

    labs: the nodes; the pods are dealt out to them. files: the lab whose folder all agents read.
    nets: other places to probe from, name -> (lab, namespace).
    """

    def __init__(self, labs, files, nets, families=(4, 6)):
        self.files, self.nets, self.families = files, nets, families
        self.written = set()
        self.lab_of = {pod: labs[i % len(labs)] for i, pod in enumerate(ALL)}
        for ns in NAMESPACES:
            self.label_ns(ns)
        for pod in ALL:
            self.add(pod)

    # ---- objects ----

    def label_ns(self, ns, annotations=None, /, **labels):
        self.files.write(f"world-ns-{ns}.yaml", json.dumps(
            {"apiVersion": "v1", "kind": "Namespace",
             "metadata": {"name": ns, "labels": {"ns": ns, **labels},
                          "annotations": annotations or {}}}))

    def label(self, who, /, **labels):
        ns, name = who.split("/")
        lab = self.lab_of[who]
        self.files.write(f"world-{name_of(who)}.yaml", json.dumps(
            {"apiVersion": "v1", "kind": "Pod",
             "metadata": {"name": name_of(who), "namespace": ns, "labels": {"pod": name, **labels}},
             "spec": {"nodeName": lab.node_name, "containers": [
                 {"name": "c", "ports": [
                     {"name": f"serve-{port}{suffix}", "containerPort": port, "protocol": proto}
                     for proto, suffix in (("TCP", ""), ("UDP", "-udp"), ("SCTP", "-sctp"))
                     for port in PORTS]}]},
             "status": {"phase": "Running",
                        "podIPs": [{"ip": a} for a in self.addresses(who).values()]}}))

    def add(self, pod):
        lab, name, ports = self.lab_of[pod], name_of(pod), ",".join(map(str, PORTS))
        lab.add_pod(name, ns=pod.split("/", maxsplit=1)[0])
        self.label(pod)
        for mode in ("echo", "sctp-server"):
            lab.background(name, mode, "--label", name, "--port", ports, name=f"{mode}-{name}")

    def apply(self, *objects):
        """Policies, each in a file of its own."""
        for obj in objects:
            name = f"policy-{obj['metadata'].get('namespace', '')}-{obj['metadata']['name']}.yaml"
            self.written.add(name)
            self.files.write(name, json.dumps(obj))

    def drop(self, *names):
        for name in [f for f in self.written if not names or any(n in f for n in names)]:
            self.files.remove(name)
            self.written.discard(name)

    def clean(self):
        self.drop()
        for ns in NAMESPACES:
            self.label_ns(ns)
        for pod in ALL:
            self.label(pod)

    # ---- packets ----

    def addresses(self, pod):
        """By family, 4 and 6."""
        addrs = self.lab_of[pod].pods.get(name_of(pod), ())
        return {6 if ":" in a else 4: a for a in
                (addrs.values() if isinstance(addrs, dict) else addrs)}

    def probe(self, src, dst, port, proto, family):
        lab, net = self.nets[src] if src in self.nets else (self.lab_of[src], name_of(src))
        addr = self.addresses(dst)[family] if "/" in dst else dst
        return prober.Probe(f"/run/netns/{lab.ns(net)}", addr, port, proto)

    def probes(self, rules):
        """rules: (sources, destinations, ports, protocols, allowed), in each family; a
        destination is a pod or an address. [((source, destination, ...), allowed)]"""
        return [((s, d, port, proto, family), allowed)
                for srcs, dsts, ports, protos, allowed in rules
                for s in several(srcs) for d in several(dsts) if s != d
                for port in several(ports) for proto in several(protos)
                for family in (self.families if "/" in d else (6 if ":" in d else 4,))]

    def expect(self, what, *rules, seconds=8):
        """In force within seconds."""
        flows, want = zip(*self.probes(rules))
        got = []

        def as_wanted():
            got[:] = prober.ask([self.probe(*flow) for flow in flows], want)
            return got == list(want)
        try:
            wait_for(what, as_wanted, seconds)
        except LabError as e:
            wrong = [f"{f[0]} {'reaches' if g else 'does not reach'} {f[1]}:{f[2]}/{f[3]} over "
                     f"IPv{f[4]}" for f, g, w in zip(flows, got, want) if g != w]
            raise Failure(f"{what}: {len(wrong)} wrong: {'; '.join(wrong[:6])}") from e


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
