# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicy between pods of several nodes: the cases of Kubernetes' own tests.

Each end is judged where it lives. x/a, x/b and x/c are on three nodes, as are those of y and z.
"""
import ipaddress

from policy_world import ALL, PORTS, World, labels, network_policy
from suite import test

PROTOS = ("TCP", "UDP", "SCTP")
A, B = labels(pod="a"), labels(pod="b")
NS_X, NS_Y = labels(ns="x"), labels(ns="y")


def but(*pods):
    """All the others."""
    return tuple(p for p in ALL if p not in pods)


def of(*namespaces):
    return tuple(p for p in ALL if p[0] in namespaces)


def policy_world(env):
    world = getattr(env, "policy_world", None)
    if world is None:
        nets = {"out": (env.outside, "out"), **{n.node_name: (n, "node") for n in env.nodes}}
        world = env.policy_world = World(env.nodes, env.outside, nets, env.families)
    return world


def policy_test(*levels):
    """With the world's pods; it is left as it was."""
    def mark(function):
        def run(env):
            world = policy_world(env)
            world.expect("no policy", ("x/b", ("x/a", "y/a"), PORTS, PROTOS, True))
            try:
                function(env, world)
            finally:
                world.clean()
        run.__name__ = function.__name__
        return test(*levels)(run)
    return mark


@policy_test("policy", "full", "some")
def policies_across_nodes(_, w):
    w.apply(network_policy("x", "in", A, ingress=[{"from": [{"podSelector": B}]}]))
    w.expect("ingress by a pod of another node", ("x/b", "x/a", 80, PROTOS, True),
             (but("x/a", "x/b"), "x/a", 80, PROTOS, False))
    w.apply(network_policy("x", "out", B, egress=[{"to": [{"namespaceSelector": NS_Y}]}]))
    w.expect("egress to pods of other nodes", ("x/b", of("y"), 80, PROTOS, True),
             ("x/b", of("x", "z"), 80, PROTOS, False))
    w.drop("out")
    w.expect("both ends must allow it", ("x/b", "x/a", 80, PROTOS, True))


# ---- isolation ----

@policy_test("policy")
def default_deny(_, w):
    w.apply(network_policy("x", "deny-ingress", ingress=[]))
    w.expect("ingress", (ALL, of("x"), 80, PROTOS, False), (of("x"), of("y"), 80, "TCP", True))
    w.drop()
    w.apply(network_policy("x", "deny-egress", egress=[]))
    w.expect("egress", (of("x"), ALL, 80, PROTOS, False), (of("y"), of("x"), 80, "TCP", True))
    w.drop()
    w.apply(network_policy("x", "deny-all", ingress=[], egress=[]))
    w.expect("all", (of("x"), ALL, 80, "TCP", False), (of("y", "z"), of("x"), 80, PROTOS, False),
             (of("y"), of("z"), 80, "TCP", True))
    w.drop()
    w.expect("not after they are deleted", (ALL, ALL, 80, "TCP", True))


@policy_test("policy")
def nodes_and_the_world(env, w):
    """A pod's own node reaches it whatever policies say; other nodes and the world do not."""
    w.apply(network_policy("x", "deny", ingress=[]))
    w.expect("its own node", *(((lab.node_name), [p], 80, ("TCP", "UDP"), True)
                               for p, lab in w.lab_of.items() if p[0] == "x"))
    others = [(env.nodes[i - 1].node_name, pod, 80, "TCP", False)
              for i, pod in enumerate(("x/a", "x/b", "x/c"))]
    w.expect("nobody else", *others, ("out", "x/a", 80, "TCP", False) if env.config.routing ==
             "native" else ("y/a", "x/a", 80, "TCP", False))


@policy_test("policy")
def allow_all(_, w):
    w.apply(network_policy("x", "deny", ingress=[], egress=[]),
            network_policy("x", "open", ingress=[{}], egress=[{}]))
    w.expect("takes precedence", (ALL, of("x"), PORTS, PROTOS, True),
             (of("x"), of("y", "z"), PORTS, PROTOS, True))
    w.apply(network_policy("x", "open", ingress=[{}]))
    w.expect("of ingress only", (of("y", "z"), of("x"), PORTS, "TCP", True),
             (of("x"), ALL, PORTS, "TCP", False))
    w.apply(network_policy("x", "open", egress=[{}]))
    w.expect("of egress only", (of("x"), of("y", "z"), PORTS, "TCP", True),
             (ALL, of("x"), PORTS, "TCP", False))


# ---- peers ----

@policy_test("policy")
def ingress_peers(_, w):
    def only(what, peers, allowed):
        w.apply(network_policy("x", "peers", A, ingress=[{"from": peers}]))
        w.expect(what, (allowed, "x/a", 80, PROTOS, True),
                 (but("x/a", *allowed), "x/a", 80, PROTOS, False))
    match = lambda key, op, *values: {"matchExpressions": [
        {"key": key, "operator": op, **({"values": list(values)} if values else {})}]}
    only("podSelector", [{"podSelector": labels(pod="c")}], ("x/c",))
    only("namespaceSelector", [{"namespaceSelector": NS_Y}], of("y"))
    only("podSelector by expressions", [{"podSelector": match("pod", "In", "b")}], ("x/b",))
    only("namespaceSelector by expressions",
         [{"namespaceSelector": match("ns", "In", "y", "z")}], of("y", "z"))
    only("NotIn", [{"namespaceSelector": match("ns", "NotIn", "x", "y")}], of("z"))
    only("Exists", [{"namespaceSelector": match("ns", "Exists")}], but("x/a"))
    only("DoesNotExist", [{"namespaceSelector": match("ns", "DoesNotExist")}], ())
    only("podSelector or namespaceSelector",
         [{"podSelector": B}, {"namespaceSelector": NS_Y}], ("x/b", *of("y")))
    only("podSelector and namespaceSelector",
         [{"podSelector": B, "namespaceSelector": NS_Y}], ("y/b",))
    only("several of both",
         [{"podSelector": match("pod", "In", "b", "c"),
           "namespaceSelector": match("ns", "NotIn", "x")}], ("y/b", "y/c", "z/b", "z/c"))
    only("any podSelector", [{"podSelector": B}, {"podSelector": labels(pod="c")}],
         ("x/b", "x/c"))
    only("all pods of all namespaces", [{"namespaceSelector": {}}], but("x/a"))
    only("all pods of its namespace", [{"podSelector": {}}], ("x/b", "x/c"))
    only("nobody", [{"podSelector": labels(pod="d")}], ())


@policy_test("policy")
def egress_peers(_, w):
    w.apply(network_policy("x", "out", A, egress=[{"to": [{"podSelector": B}]}]))
    w.expect("podSelector", ("x/a", "x/b", 80, PROTOS, True),
             ("x/a", but("x/a", "x/b"), 80, PROTOS, False), ("x/c", ALL, 80, "TCP", True))
    w.apply(network_policy("x", "out", A, egress=[
        {"to": [{"podSelector": A, "namespaceSelector": NS_Y}]}]))
    w.expect("podSelector and namespaceSelector", ("x/a", "y/a", 80, PROTOS, True),
             ("x/a", but("x/a", "y/a"), 80, PROTOS, False))
    w.apply(network_policy("y", "in", A, ingress=[]))
    w.expect("the server may deny what the client may", ("x/a", "y/a", 80, PROTOS, False))
    w.apply(network_policy("y", "in", A, ingress=[{}]), network_policy("x", "out", A, egress=[]))
    w.expect("the client may not, though the server allows it", ("x/a", "y/a", 80, PROTOS, False),
             ("x/b", "y/a", 80, PROTOS, True))


@policy_test("policy")
def ingress_and_egress_together(_, w):
    w.apply(network_policy("x", "both", A, ingress=[{"from": [{"namespaceSelector": NS_Y}],
                                                     "ports": [{"port": 80}]}],
                           egress=[{"to": [{"namespaceSelector": labels(ns="z")}],
                                    "ports": [{"port": 81}]}]))
    w.expect("in one policy", (of("y"), "x/a", 80, "TCP", True), (of("y"), "x/a", 81, "TCP", False),
             (of("z"), "x/a", PORTS, "TCP", False), ("x/a", of("z"), 81, "TCP", True),
             ("x/a", of("z"), 80, "TCP", False), ("x/a", of("y"), PORTS, "TCP", False))
    w.apply(network_policy("x", "both", A, ingress=[], egress=[{}]))
    w.expect("each by itself", ("x/a", of("y"), 80, PROTOS, True), (of("y"), "x/a", 80, PROTOS,
                                                                    False))
    w.apply(network_policy("x", "both", A, ingress=[{}], egress=[]))
    w.expect("and the other way round", ("x/a", of("y"), 80, PROTOS, False),
             (of("y"), "x/a", 80, PROTOS, True))


@policy_test("policy")
def stacked_policies(_, w):
    w.apply(network_policy("x", "one", A, ingress=[{"from": [{"namespaceSelector": NS_Y}],
                                                    "ports": [{"port": 80}]}]),
            network_policy("x", "two", A, ingress=[{"from": [{"namespaceSelector": NS_Y}],
                                                    "ports": [{"port": 81}]}]))
    w.expect("the union of both", (of("y"), "x/a", PORTS, "TCP", True),
             (of("x", "z")[1:], "x/a", PORTS, "TCP", False))
    w.drop("two")
    w.expect("one is left", (of("y"), "x/a", 80, "TCP", True), (of("y"), "x/a", 81, "TCP", False))


# ---- ports ----

@policy_test("policy")
def ports(_, w):
    def only(what, allowed, *specs):
        """allowed: (port, protocol)"""
        w.apply(network_policy("x", "ports", A, ingress=[
            {"from": [{"namespaceSelector": NS_Y}], "ports": list(specs)}]))
        w.expect(what, *((of("y"), "x/a", port, proto, (port, proto) in allowed)
                         for port in PORTS for proto in PROTOS),
                 ("z/a", "x/a", PORTS, PROTOS, False))
    for proto in PROTOS:
        name = "" if proto == "TCP" else f"-{proto.lower()}"
        only(f"a port of {proto}", [(81, proto)], {"port": 81, "protocol": proto})
        only(f"a range of {proto}", [(80, proto), (81, proto)],
             {"port": 80, "endPort": 81, "protocol": proto})
        only(f"any port of {proto}", [(80, proto), (81, proto)], {"protocol": proto})
        only(f"a named port of {proto}", [(80, proto)],
             {"port": f"serve-80{name}", "protocol": proto})
    only("a name of another protocol", [], {"port": "serve-80-udp", "protocol": "TCP"})
    only("no protocol is TCP", [(80, "TCP")], {"port": 80})
    only("several", [(80, "TCP"), (81, "UDP"), (80, "SCTP")], {"port": 80},
         {"port": 81, "protocol": "UDP"}, {"port": "serve-80-sctp", "protocol": "SCTP"})


@policy_test("policy")
def egress_ports(_, w):
    w.apply(network_policy("x", "out", A, egress=[{"ports": [{"port": "serve-80"}]}]))
    w.expect("by the other pod's name for it", ("x/a", of("y", "z"), 80, "TCP", True),
             ("x/a", of("y"), 81, "TCP", False), ("x/a", of("y"), 80, ("UDP", "SCTP"), False))
    w.apply(network_policy("x", "out", A, egress=[
        {"ports": [{"port": 80, "protocol": "SCTP"}, {"port": 81, "protocol": "UDP"}]}]))
    w.expect("by number", ("x/a", of("y"), 80, "SCTP", True), ("x/a", of("y"), 81, "UDP", True),
             ("x/a", of("y"), PORTS, "TCP", False), ("x/a", of("y"), 81, "SCTP", False))


# ---- changes ----

@policy_test("policy")
def what_changes_is_followed(_, w):
    w.apply(network_policy("x", "in", A, ingress=[{"ports": [{"port": 81}]}]))
    w.expect("a policy", ("y/a", "x/a", 81, "TCP", True), ("y/a", "x/a", 80, "TCP", False))
    w.apply(network_policy("x", "in", A, ingress=[{"ports": [{"port": 80}]}]))
    w.expect("updated", ("y/a", "x/a", 80, "TCP", True), ("y/a", "x/a", 81, "TCP", False))
    w.apply(network_policy("x", "in", A, ingress=[
        {"from": [{"namespaceSelector": labels(team="red")}]},
        {"from": [{"podSelector": labels(role="web")}]}]))
    w.expect("no labels yet", (but("x/a"), "x/a", 80, "TCP", False))
    w.label_ns("y", team="red")
    w.expect("a namespace's label", (of("y"), "x/a", 80, "TCP", True),
             (of("z"), "x/a", 80, "TCP", False))
    w.label("x/b", role="web")
    w.expect("a pod's label", ("x/b", "x/a", 80, "TCP", True), ("x/c", "x/a", 80, "TCP", False))
    w.label_ns("y")
    w.label("x/b")
    w.expect("taken away again", (but("x/a"), "x/a", 80, "TCP", False))
    w.label("x/a", pod="other")
    w.expect("whom it is for", (but("x/a"), "x/a", 80, "TCP", True))


# ---- CIDRs ----

def net_of(addr, bits4, bits6):
    """The network of a pod's address, cut where it says."""
    return str(ipaddress.ip_network(f"{addr}/{bits6 if ':' in addr else bits4}", False))


@policy_test("policy")
def cidrs(env, w):
    pods = [w.addresses(p) for p in ("y/a", "y/b")]
    block = lambda addr, bits, but=(): {"ipBlock": {
        "cidr": net_of(addr, *bits), **({"except": list(but)} if but else {})}}
    hosts = [block(a, (32, 128)) for a in pods[0].values()]
    w.apply(network_policy("x", "cidr", A, egress=[{"to": hosts}]))
    w.expect("of one pod", ("x/a", "y/a", 80, PROTOS, True), ("x/a", but("x/a", "y/a"), 80, PROTOS,
                                                              False))
    node = [block(a, (24, 64), [net_of(a, 32, 128)]) for a in pods[0].values()]
    same = [p for p in ALL if w.lab_of[p] is w.lab_of["y/a"] and p not in ("x/a", "y/a")]
    w.apply(network_policy("x", "cidr", A, egress=[{"to": node}]))
    w.expect("except", ("x/a", same, 80, PROTOS, True), ("x/a", ("y/a", "y/b"), 80, PROTOS, False))
    w.apply(network_policy("x", "cidr", A, egress=[{"to": node + hosts}]))
    w.expect("overlapping", ("x/a", [*same, "y/a"], 80, PROTOS, True), ("x/a", "y/b", 80, PROTOS,
                                                                        False))
    w.drop()
    w.apply(network_policy("x", "from", A, ingress=[{"from": hosts}]))
    w.expect("as the source", ("y/a", "x/a", 80, PROTOS, True), (but("x/a", "y/a"), "x/a", 80,
                                                                 PROTOS, False))
    w.drop()
    out = [env.outside.addr("out", f) for f in env.node_families]
    w.apply(network_policy("x", "world", A, egress=[{"to": [block(a, (32, 128)) for a in out]}]))
    w.expect("of the world", ("x/a", out, 8080, "TCP", True), ("x/b", out, 8080, "TCP", True),
             ("x/a", "y/a", 80, PROTOS, False))
    w.apply(network_policy("x", "world", A, egress=[{"to": [{"podSelector": {}}]}]))
    w.expect("no CIDR of it", ("x/a", out, 8080, "TCP", False), ("x/a", "x/b", 80, PROTOS, True))
