# SPDX-License-Identifier: Apache-2.0
"""ClusterNetworkPolicy between pods of several nodes: the cases of network-policy-api's own tests.

The subject is the namespace x, the peers are y and z. A tier's cases are those of each direction,
protocol and action: alone, in both orders with what says the contrary, and at one port.
"""
import itertools

from policy_world import PORTS, cluster_policy, labels, network_policy, rule
from test_policy import A, B, NS_X, NS_Y, PROTOS, but, of, policy_test

Y, Z = [{"namespaces": NS_Y}], [{"namespaces": labels(ns="z")}]
DIRECTIONS = ("ingress", "egress")


def destination(direction, peers):
    """(sources, destinations) of flows that the subject's policy judges."""
    return (peers, of("x")) if direction == "ingress" else (of("x"), peers)


def at_port(proto, port):
    return [{proto.lower(): {"destinationPort": {"number": port}}}]


class Case:
    """One policy of a tier for one direction, and what becomes of y's and z's flows."""

    def __init__(self, world, tier, direction):
        self.world, self.tier, self.direction = world, tier, direction
        self.key = "from" if direction == "ingress" else "to"

    def rule(self, action, peers, protocols=None):
        return rule(action, peers, self.key, protocols)

    def apply(self, *rules, name="case", priority=10, subject=NS_X):
        self.world.apply(cluster_policy(name, self.tier, priority, ns=subject,
                                        **{self.direction: list(rules)}))

    def expect(self, what, *flows):
        """flows: (peers, ports, protocols, allowed)"""
        self.world.expect(f"{self.tier}, {self.direction}: {what}", *(
            (*destination(self.direction, peers), ports, protos, allowed)
            for peers, ports, protos, allowed in flows))


@policy_test("policy")
def cluster_tiers(_, w):
    """Accept and Deny: the first rule that matches; other protocols and ports are left alone."""
    for tier, direction in itertools.product(("Admin", "Baseline"), DIRECTIONS):
        c = Case(w, tier, direction)
        c.apply(c.rule("Deny", Y))
        c.expect("deny", (of("y"), 80, PROTOS, False), (of("z"), 80, PROTOS, True))
        c.apply(c.rule("Accept", Y), c.rule("Deny", Y))
        c.expect("accept before deny", (of("y", "z"), 80, PROTOS, True))
        c.apply(c.rule("Deny", Y), c.rule("Accept", Y))
        c.expect("deny before accept", (of("y"), 80, PROTOS, False), (of("z"), 80, PROTOS, True))
        c.apply(c.rule("Deny", Y + Z))
        c.expect("several peers", (of("y", "z"), 80, PROTOS, False), (of("x"), 80, "TCP", True))
        for proto in PROTOS:
            others = [p for p in PROTOS if p != proto]
            c.apply(c.rule("Deny", Y, at_port(proto, 80)))
            c.expect(f"deny of {proto} at a port", (of("y"), 80, proto, False),
                     (of("y"), 81, proto, True), (of("y"), PORTS, others, True))
            c.apply(c.rule("Accept", Y, at_port(proto, 81)), c.rule("Deny", Y))
            c.expect(f"accept of {proto} at a port", (of("y"), 81, proto, True),
                     (of("y"), 80, proto, False), (of("y"), PORTS, others, False))
            c.apply(c.rule("Deny", Y, [{proto.lower(): {}}]))
            c.expect(f"deny of {proto}", (of("y"), PORTS, proto, False),
                     (of("y"), PORTS, others, True))
        w.drop()


@policy_test("policy")
def cluster_ranges_and_names(_, w):
    for tier, direction in itertools.product(("Admin", "Baseline"), DIRECTIONS):
        c = Case(w, tier, direction)
        c.apply(c.rule("Deny", Y, [{"tcp": {"destinationPort": {"range": {"start": 70,
                                                                          "end": 80}}}}]))
        c.expect("a range", (of("y"), 80, "TCP", False), (of("y"), 81, "TCP", True),
                 (of("y"), 80, ("UDP", "SCTP"), True))
        for proto, name in zip(PROTOS, ("serve-80", "serve-80-udp", "serve-80-sctp")):
            others = [p for p in PROTOS if p != proto]
            c.apply(c.rule("Accept", Y, [{"destinationNamedPort": name}]), c.rule("Deny", Y))
            c.expect(f"accept of {name}", (of("y"), 80, proto, True), (of("y"), 81, proto, False),
                     (of("y"), 80, others, False))
            c.apply(c.rule("Deny", Y, [{"destinationNamedPort": name}]))
            c.expect(f"deny of {name}", (of("y"), 80, proto, False), (of("y"), 81, proto, True),
                     (of("y"), 80, others, True))
        w.drop()


@policy_test("policy")
def cluster_pass(_, w):
    """Pass leaves it to NetworkPolicy, then to the Baseline tier."""
    for direction in DIRECTIONS:
        admin, base = Case(w, "Admin", direction), Case(w, "Baseline", direction)
        admin.apply(admin.rule("Pass", Y), admin.rule("Deny", Y + Z))
        admin.expect("pass before deny", (of("y"), 80, PROTOS, True), (of("z"), 80, PROTOS, False))
        base.apply(base.rule("Deny", Y), name="default")
        admin.expect("pass to the Baseline tier", (of("y", "z"), 80, PROTOS, False))
        w.apply(network_policy("x", "np", **{direction: [
            {admin.key: [{"namespaceSelector": NS_Y}], "ports": [{"port": 80}]}]}))
        admin.expect("pass to NetworkPolicy", (of("y"), 80, "TCP", True), (of("y"), 81, "TCP",
                                                                          False),
                     (of("z"), PORTS, "TCP", False))
        w.drop("np")
        admin.apply(admin.rule("Deny", Y), admin.rule("Pass", Y))
        admin.expect("deny before pass", (of("y"), 80, PROTOS, False))
        for proto in PROTOS:
            w.drop("default")
            admin.apply(admin.rule("Pass", Y, at_port(proto, 80)), admin.rule("Deny", Y))
            admin.expect(f"pass of {proto} at a port", (of("y"), 80, proto, True),
                         (of("y"), 81, proto, False),
                         (of("y"), 80, [p for p in PROTOS if p != proto], False))
        w.drop()


@policy_test("policy")
def cluster_tiers_together(_, w):
    """Admin, NetworkPolicy, Baseline: each decides what those before it leave."""
    for direction in DIRECTIONS:
        admin, base = Case(w, "Admin", direction), Case(w, "Baseline", direction)
        closed = network_policy("x", "np", **{direction: []})
        opened = network_policy("x", "np", **{direction: [{}]})
        w.apply(closed)
        admin.apply(admin.rule("Accept", Y))
        admin.expect("accept before a NetworkPolicy that denies", (of("y"), 80, PROTOS, True),
                     (of("z"), 80, PROTOS, False))
        w.apply(opened)
        admin.apply(admin.rule("Deny", Y))
        admin.expect("deny before a NetworkPolicy that allows", (of("y"), 80, PROTOS, False),
                     (of("z"), 80, PROTOS, True))
        w.drop("case")
        base.apply(base.rule("Deny", Y + Z), name="default")
        base.expect("after a NetworkPolicy that allows", (of("y", "z"), 80, PROTOS, True))
        w.apply(closed)
        base.apply(base.rule("Accept", Y), name="default")
        base.expect("after a NetworkPolicy that denies", (of("y", "z"), 80, PROTOS, False))
        w.drop("np")
        base.apply(base.rule("Deny", Y), name="default")
        base.expect("without a NetworkPolicy", (of("y"), 80, PROTOS, False), (of("z"), 80, PROTOS,
                                                                              True))
        admin.apply(admin.rule("Accept", Y))
        admin.expect("accept before Baseline's deny", (of("y", "z"), 80, PROTOS, True))
        w.drop()


@policy_test("policy")
def cluster_priorities(_, w):
    for direction in DIRECTIONS:
        c = Case(w, "Admin", direction)
        c.apply(c.rule("Deny", Y + Z), name="old", priority=50)
        c.apply(c.rule("Accept", Y), name="new", priority=49)
        c.expect("a lower number comes first", (of("y"), 80, PROTOS, True), (of("z"), 80, PROTOS,
                                                                            False))
        c.apply(c.rule("Accept", Y), name="new", priority=51)
        c.expect("a higher one after it", (of("y", "z"), 80, PROTOS, False))
        c.apply(c.rule("Pass", Z), name="new", priority=1)
        c.expect("pass ends the tier", (of("z"), 80, PROTOS, True), (of("y"), 80, PROTOS, False))
        w.drop()


@policy_test("policy")
def cluster_subjects(_, w):
    w.apply(cluster_policy("pods", "Admin", 1, ns={}, pods=A, ingress=[rule("Deny", Y)]))
    w.expect("pods of all namespaces", (of("y"), ("x/a", "y/a", "z/a"), 80, PROTOS, False),
             (of("y"), ("x/b", "z/c"), 80, PROTOS, True), (of("z"), "x/a", 80, PROTOS, True))
    w.apply(cluster_policy("pods", "Admin", 1, ns=NS_X, pods=B, egress=[
        rule("Deny", [{"pods": {"namespaceSelector": NS_Y, "podSelector": A}}], "to")]))
    w.expect("one pod to one pod", ("x/b", "y/a", 80, PROTOS, False),
             ("x/b", but("x/b", "y/a"), 80, PROTOS, True), ("x/a", "y/a", 80, PROTOS, True))
    w.apply(cluster_policy("pods", "Admin", 1, ns={}, ingress=[rule("Deny", [{"namespaces": {
        "matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["y"]}]}}])]))
    w.expect("all namespaces, by expressions", (of("y"), of("x", "z"), 80, PROTOS, True),
             (of("x", "z"), of("y"), 80, PROTOS, False))
    w.label_ns("y", ns="other")
    w.expect("a namespace's new label", (of("y"), of("x"), 80, PROTOS, False))


@policy_test("policy")
def cluster_nodes_and_networks(env, w):
    for node in env.nodes:
        obj = node.node_object()
        obj["metadata"]["labels"] = {"zone": f"zone-{node.node_name}"}
        env.cluster.write_node(node, obj)
    addrs = {n.node_name: [n.addr(f) for f in env.node_families] for n in env.nodes}
    try:
        for tier in ("Admin", "Baseline"):
            zone = lambda name: [{"nodes": labels(zone=f"zone-{name}")}]
            w.apply(cluster_policy("nodes", tier, 1, ns=NS_X, egress=[
                rule("Accept", zone("n2"), "to", at_port("TCP", 9000)),
                rule("Deny", [{"nodes": {}}], "to")]))
            w.expect("nodes by label", (of("x"), addrs["n2"], 9000, "TCP", True),
                     (of("x"), addrs["n2"], 9000, "UDP", False),
                     (of("x"), addrs["n1"] + addrs["n3"], 9000, ("TCP", "UDP"), False),
                     (of("x"), of("y"), 80, PROTOS, True), (of("y"), addrs["n1"], 9000, "TCP",
                                                            True))
            out = [env.outside.addr("out", f) for f in env.node_families]
            everything = [{"networks": ["0.0.0.0/0", "::/0"]}]
            hosts = [f"{a}/{128 if ':' in a else 32}" for a in out]
            w.apply(cluster_policy("nodes", tier, 1, ns=NS_X, egress=[
                rule("Accept", [{"networks": hosts}], "to", at_port("TCP", 8080)),
                rule("Accept", [{"namespaces": NS_Y}], "to"),
                rule("Deny", everything, "to")]))
            w.expect("networks", (of("x"), out, 8080, "TCP", True), (of("x"), out, 8080, "UDP",
                                                                     False),
                     (of("x"), addrs["n1"], 9000, "TCP", False), (of("x"), of("y"), 80, PROTOS,
                                                                  True),
                     (of("x"), of("z"), 80, PROTOS, False))
            w.drop()
    finally:
        for node in env.nodes:
            env.cluster.write_node(node)
