# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicy and ClusterNetworkPolicy with real sockets: the cases of the upstream suites."""
import ipaddress
import json
import socket
import struct
import threading
import time

from netlab import NODE4, NODE6, OUT4, OUT6, wait_for
from pinned import PinnedMap
from policy_world import ALL, World, cluster_policy, labels, name_of, network_policy, rule
from suite import expect, test

OTHERS = tuple(p for p in ALL if p != "x/a")
A = labels(pod="a")


def new_world(lab):
    lab.write("world-node.yaml", json.dumps(
        {"apiVersion": "v1", "kind": "Node",
         "metadata": {"name": lab.node_name, "labels": {"role": "here"}},
         "spec": {"podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"]},
         "status": {"addresses": [{"type": "InternalIP", "address": a} for a in (NODE4, NODE6)]}}))
    return World([lab], lab, {"node": (lab, "node")})


def policy_test(function):
    """In the mode full, with the world's pods; it is left as it was."""
    def run(env):
        world = getattr(env.lab, "policy_world", None)
        if world is None:
            world = env.lab.policy_world = new_world(env.lab)
        world.expect("a world without policies", ("x/b", ("x/a", "y/a"), (80, 81), "TCP", True))
        try:
            function(env, world)
        finally:
            world.clean()
    run.__name__ = function.__name__
    return test("full")(run)


@policy_test
def policy_isolation(env, w):
    w.apply(network_policy("x", "deny-in", ingress=[]))
    w.expect("ingress denied", (OTHERS, "x/a", 80, "TCP", False), ("x/a", ("y/a", "z/a"), 80, "TCP",
                                                                   True))
    w.expect("its node reaches it", ("node", "x/a", 80, "TCP", True))
    w.drop()
    w.apply(network_policy("x", "deny-out", egress=[]))
    w.expect("egress denied", (("x/a", "x/b"), ("y/a", "x/c"), 80, "TCP", False),
             (("y/a",), "x/a", 80, "TCP", True))
    w.drop()
    w.apply(network_policy("x", "deny-all", ingress=[], egress=[]))
    w.expect("both denied", (("x/a", "y/a"), ("x/b",), (80,), "UDP", False),
             ("x/a", "y/a", 80, "TCP", False), ("y/a", "z/a", 80, "UDP", True))
    w.apply(network_policy("x", "allow-all", ingress=[{}]))
    w.expect("the union of both", ("y/a", ("x/a", "x/b"), (80, 81), "TCP", True),
             ("x/a", "y/a", 80, "TCP", False))
    w.drop()
    w.expect("all is open again", (("x/a", "y/b"), ("y/a", "x/c"), 80, "TCP", True))


@policy_test
def policy_peers(env, w):
    def only(what, peers, allowed):
        w.apply(network_policy("x", "peers", A, ingress=[{"from": peers}]))
        w.expect(what, (allowed, "x/a", 80, "TCP", True),
                 (tuple(p for p in OTHERS if p not in allowed), "x/a", 80, "TCP", False))
    only("by pod", [{"podSelector": labels(pod="b")}], ("x/b",))
    only("by namespace", [{"namespaceSelector": labels(ns="y")}], ("y/a", "y/b", "y/c"))
    only("by pod and namespace",
         [{"namespaceSelector": labels(ns="y"), "podSelector": labels(pod="b")}], ("y/b",))
    only("by pod or namespace",
         [{"namespaceSelector": labels(ns="y")}, {"podSelector": labels(pod="b")}],
         ("y/a", "y/b", "y/c", "x/b"))
    only("by expressions", [{"namespaceSelector": {"matchExpressions": [
        {"key": "ns", "operator": "NotIn", "values": ["x"]}]}, "podSelector": {"matchExpressions": [
            {"key": "pod", "operator": "In", "values": ["b", "c"]}]}}],
         ("y/b", "y/c", "z/b", "z/c"))
    only("by the namespace's own name",
         [{"namespaceSelector": labels(**{"kubernetes.io/metadata.name": "z"})}],
         ("z/a", "z/b", "z/c"))
    only("nobody", [{"podSelector": labels(pod="nobody")}], ())


@policy_test
def policy_ports(env, w):
    peer = [{"namespaceSelector": labels(ns="y")}]
    w.apply(network_policy("x", "ports", A, ingress=[{"from": peer, "ports": [{"port": 81}]}]))
    w.expect("by number", ("y/a", "x/a", 81, "TCP", True), ("y/a", "x/a", 80, "TCP", False),
             ("y/a", "x/a", 81, "UDP", False), ("z/a", "x/a", 81, "TCP", False))
    w.apply(network_policy("x", "ports", A, ingress=[
        {"from": peer, "ports": [{"port": "serve-80"},
                                 {"port": "serve-81-udp", "protocol": "UDP"}]}]))
    w.expect("by name", ("y/a", "x/a", 80, "TCP", True), ("y/a", "x/a", 81, "TCP", False),
             ("y/a", "x/a", 81, "UDP", True), ("y/a", "x/a", 80, "UDP", False))
    w.apply(network_policy("x", "ports", A, ingress=[
        {"ports": [{"port": 79, "endPort": 80, "protocol": "UDP"}]}]))
    w.expect("by range", ("y/a", "x/a", 80, "UDP", True), ("z/a", "x/a", 81, "UDP", False),
             ("y/a", "x/a", 80, "TCP", False))
    w.apply(network_policy("x", "ports", A, ingress=[{"ports": [{"protocol": "UDP"}]}]))
    w.expect("by protocol", ("y/a", "x/a", (80, 81), "UDP", True),
             ("y/a", "x/a", (80, 81), "TCP", False))
    w.drop()
    w.apply(network_policy("x", "out", A, egress=[
        {"to": [{"podSelector": {}, "namespaceSelector": {}}], "ports": [{"port": "serve-80"}]}]))
    w.expect("egress by the name of the other pod's port", ("x/a", ("y/a", "x/b"), 80, "TCP", True),
             ("x/a", "y/a", 81, "TCP", False), ("x/a", OUT4, 8080, "TCP", False))


@policy_test
def policy_cidrs(env, w):
    def pod_cidr(pod, bits4, bits6):
        v4, v6 = env.lab.pods[name_of(pod)]
        return [str(ipaddress.ip_network(f"{v4}/{bits4}", False)),
                str(ipaddress.ip_network(f"{v6}/{bits6}", False))]
    blocks = [{"ipBlock": {"cidr": c}} for c in pod_cidr("y/a", 32, 128)]
    w.apply(network_policy("x", "cidr", A, egress=[{"to": blocks}]))
    w.expect("a CIDR that is one pod", ("x/a", "y/a", 80, "TCP", True),
             ("x/a", ("y/b", "z/a"), 80, "TCP", False))
    excepts = [{"ipBlock": {"cidr": c, "except": [e]}}
               for c, e in zip(pod_cidr("y/a", 24, 64), pod_cidr("y/a", 32, 128))]
    w.apply(network_policy("x", "cidr", A, egress=[{"to": excepts}]))
    w.expect("all pods of the node but one", ("x/a", "y/a", 80, "TCP", False),
             ("x/a", ("y/b", "z/a"), 80, "TCP", True))
    w.apply(network_policy("x", "cidr", A, egress=[{"to": excepts + blocks}]))
    w.expect("excepted here, allowed there", ("x/a", ("y/a", "y/b"), 80, "TCP", True))
    w.apply(network_policy("x", "cidr", A, egress=[{"to": [{"ipBlock": {"cidr": f"{OUT4}/32"}}]}]))
    w.expect("the world", ("x/a", OUT4, 8080, "TCP", True), ("x/a", OUT6, 8080, "TCP", False),
             ("x/a", "y/a", 80, "TCP", False))
    w.drop()
    w.apply(network_policy("x", "in", A, ingress=[{"from": [{"ipBlock": {"cidr": "::/0"}}]}]))
    addr4, addr6 = env.lab.pods["x-a"]
    w.expect("::/0 is not IPv4", ("y/a", addr6, 80, "TCP", True), ("y/a", addr4, 80, "TCP", False))


@policy_test
def policy_changes_are_followed(env, w):
    w.apply(network_policy("x", "labels", A, ingress=[
        {"from": [{"namespaceSelector": labels(team="red"), "podSelector": labels(app="web")}]}]))
    w.expect("nobody has the labels", (OTHERS, "x/a", 80, "TCP", False))
    w.label("y/b", app="web")
    w.expect("the pod has", ("y/b", "x/a", 80, "TCP", False))
    w.label_ns("y", team="red")
    w.expect("both have", ("y/b", "x/a", 80, "TCP", True), (("y/a", "z/b"), "x/a", 80, "TCP",
                                                            False))
    w.label("y/b")
    w.expect("the pod lost it", ("y/b", "x/a", 80, "TCP", False))
    w.label("x/a", pod="other")
    w.expect("whom the policy is for changed", (("y/a", "z/a"), "x/a", 80, "TCP", True))


@policy_test
def policy_through_services(env, w):
    vips = env.service(["x-a"], [{"name": "w", "port": 80, "targetPort": 81, "protocol": "TCP"}],
                       live=False)
    w.expect("the Service", ("y/a", vips, 80, "TCP", True))
    w.apply(network_policy("x", "svc", A, ingress=[
        {"from": [{"namespaceSelector": labels(ns="y")}], "ports": [{"port": 81}]}]))
    w.expect("the backend's port counts", ("y/a", vips, 80, "TCP", True),
             ("z/a", vips, 80, "TCP", False), ("y/a", "x/a", 80, "TCP", False))


@policy_test
def policy_bites_on_live_connections(env, w):
    """A connection that is open hangs from the next packet on, and goes on when it may."""
    turns, stop = [], threading.Event()

    def talk():
        env.lab._enter("y-a", False)()
        with socket.create_connection((env.lab.pods["x-a"][0], 80), 5) as s:
            s.settimeout(20)
            while not stop.is_set():
                s.sendall(b"turn\n")
                turns.append(s.recv(1000))
                stop.wait(0.01)
    thread = threading.Thread(target=talk)
    thread.start()
    try:
        wait_for("a live connection", lambda: len(turns) > 5)
        w.apply(network_policy("x", "deny", ingress=[]))
        w.expect("new ones denied", ("y/a", "x/a", 80, "TCP", False))
        before = len(turns)
        stop.wait(0.5)  # as long as many of its turns
        expect(len(turns) <= before + 1, f"{len(turns) - before} turns after the policy")
        w.drop()
        wait_for("the connection to go on", lambda: len(turns) > before + 5, 15)
    finally:
        stop.set()
        w.drop()
        thread.join()


@policy_test
def policy_holds_from_the_first_packet(env, w):
    """A pod that a policy selects before it is there never gets a packet through."""
    w.apply(network_policy("x", "out", labels(pod="new"), egress=[]),
            network_policy("x", "in", labels(pod="new"), ingress=[]))
    w.expect("others are free", ("x/a", "x/b", 80, "TCP", True))
    w.lab_of["x/new"] = env.lab
    w.label("x/new")
    got = []
    server = env.lab.pods["x-b"][0]
    env.lab.add_net("x-new")
    stop = threading.Event()

    def hammer():
        env.lab._enter("x-new", False)()
        while not stop.is_set():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.settimeout(0.02)
                try:
                    s.sendto(b"hello", (server, 80))
                    got.append(s.recv(100))
                except OSError:
                    continue
    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        for _ in range(15):
            start = time.monotonic()
            env.lab.cni("ADD", "x-new", "x")
            expect(time.monotonic() - start < 2, "ADD waited long")
            time.sleep(0.1)  # while it hammers
            env.lab.cni("DEL", "x-new", "x")
    finally:
        stop.set()
        thread.join()
        env.lab.run(["ip", "netns", "del", env.lab.ns("x-new")])
        env.lab.nets.remove("x-new")
        env.lab.remove("world-x-new.yaml")
    expect(not got, f"{len(got)} answers came to a pod that may send nothing")


@policy_test
def policy_outlives_the_agent(env, w):
    w.apply(network_policy("x", "deny", A, ingress=[{"from": [{"podSelector": labels(pod="b")}]}]))
    w.expect("in force", ("x/b", "x/a", 80, "TCP", True), ("y/a", "x/a", 80, "TCP", False))
    env.lab.kill_agent()
    w.expect("without the agent", ("x/b", "x/a", 80, "TCP", True), ("y/a", "x/a", 80, "TCP", False))
    w.drop()
    w.apply(network_policy("x", "other", A, ingress=[{"from": [{"podSelector": labels(pod="c")}]}]))
    env.lab.start_agent(*env.lab.agent_args)
    w.expect("what changed meanwhile", ("x/c", "x/a", 80, "TCP", True),
             (("x/b", "y/a"), "x/a", 80, "TCP", False))


# Where the keys have their generation (abi_policy.h).
GENERATION_AT = {"wag_ipcache": 4, "wag_policy": 4, "wag_rule": 8, "wag_port": 4,
                 "wag_port_exact": 4}


def as_an_agent_of_abi_1_left_it(lab):
    """What is in force is generation 0 of two, by an epoch that ends in binary 10."""
    key, runtime = PinnedMap(lab.pin_dir, "wag_runtime").entries()[0]
    epoch = struct.unpack_from("<I", runtime, 20)[0]
    for name, at in GENERATION_AT.items():
        table = PinnedMap(lab.pin_dir, name)
        entries = table.entries()
        for k, _ in entries:
            table.delete(k)
        for k, v in entries:
            if k[at] == epoch & 3:
                table.put(k[:at] + bytes(4) + k[at + 4:], v)
    PinnedMap(lab.pin_dir, "wag_runtime").put(
        key, runtime[:20] + struct.pack("<I", epoch // 4 * 4 + 6))
    key, meta = PinnedMap(lab.pin_dir, "wag_meta").entries()[0]
    PinnedMap(lab.pin_dir, "wag_meta").put(key, meta[:4] + struct.pack("<I", 1) + meta[8:])


@policy_test
def policy_of_an_agent_with_two_generations(env, w):
    """Goes on under an agent that has three, though it hears of no policy."""
    w.apply(network_policy("x", "deny", A, ingress=[{"from": [{"podSelector": labels(pod="b")}]}]))
    holds = (("x/b", "x/a", 80, "TCP", True), ("y/a", "x/a", 80, "TCP", False))
    w.expect("in force", *holds)
    env.lab.kill_agent()
    as_an_agent_of_abi_1_left_it(env.lab)
    agent = env.lab.start_agent_alone(*env.lab.agent_args)
    try:
        w.expect("under the new agent", *holds)
    finally:
        agent.kill()
        agent.wait()
        env.lab.start_agent(*env.lab.agent_args)


@policy_test
def policy_audit_only_tells(env, w):
    w.label_ns("x", {"waggle.io/policy-audit": "true"})
    w.apply(network_policy("x", "deny", ingress=[]), network_policy("y", "deny", ingress=[]))
    w.expect("y denies, x tells", ("z/a", "x/a", 80, "TCP", True), ("z/a", "y/a", 80, "TCP", False))


# ---- ClusterNetworkPolicy ----

@policy_test
def cluster_policy_admin_tier(env, w):
    y = [{"namespaces": labels(ns="y")}]
    w.apply(cluster_policy("deny", "Admin", 20, ns=labels(ns="x"), ingress=[
        rule("Accept", [{"pods": {"namespaceSelector": labels(ns="y"),
                                  "podSelector": labels(pod="b")}}]),
        rule("Deny", y)]))
    w.expect("the first rule that matches", ("y/b", "x/a", 80, "TCP", True),
             (("y/a", "y/c"), "x/a", (80, 81), "TCP", False), ("z/a", "x/a", 80, "TCP", True))
    w.apply(cluster_policy("earlier", "Admin", 10, ns=labels(ns="x"), ingress=[
        rule("Accept", y, protocols=[{"tcp": {"destinationPort": {"number": 81}}}])]))
    w.expect("by priority", ("y/a", "x/a", 81, "TCP", True), ("y/a", "x/a", 80, "TCP", False))
    w.apply(network_policy("x", "closed", ingress=[]))
    w.expect("NetworkPolicy comes second", ("y/a", "x/a", 81, "TCP", True),
             ("z/a", "x/a", 80, "TCP", False))
    w.apply(cluster_policy("earlier", "Admin", 10, ns=labels(ns="x"), ingress=[rule("Pass", y)]))
    w.expect("Pass leaves it to NetworkPolicy", (("y/a", "y/b"), "x/a", 81, "TCP", False))
    w.drop("closed")
    w.expect("and without one it is open", (("y/a", "y/b"), "x/a", 80, "TCP", True))


@policy_test
def cluster_policy_protocols_and_names(env, w):
    y = [{"namespaces": labels(ns="y")}]
    w.apply(cluster_policy("ports", "Admin", 1, ns=labels(ns="x"), ingress=[
        rule("Accept", y, protocols=[{"destinationNamedPort": "serve-80"},
                                     {"udp": {"destinationPort": {"range": {"start": 80,
                                                                            "end": 81}}}}]),
        rule("Deny", y)]))
    w.expect("by name and range", ("y/a", "x/a", 80, "TCP", True), ("y/a", "x/a", 81, "TCP", False),
             ("y/a", "x/a", (80, 81), "UDP", True))
    w.drop()
    w.apply(cluster_policy("out", "Admin", 1, ns=labels(ns="x"), egress=[
        rule("Deny", [{"namespaces": {}}], "to", [{"tcp": {"destinationPort": {"number": 80}}}])]))
    w.expect("egress", ("x/a", "y/a", 80, "TCP", False), ("x/a", "y/a", 81, "TCP", True),
             ("y/a", "x/a", 80, "TCP", True))


@policy_test
def cluster_policy_nodes_and_networks(env, w):
    env.lab.background("node", "echo", "--label", "node", "--port", "9090", name="echo-node")
    w.expect("the node", ("x/a", (NODE4, NODE6), 9090, "TCP", True))
    w.apply(cluster_policy("nodes", "Admin", 1, ns=labels(ns="x"), egress=[
        rule("Deny", [{"nodes": labels(role="here")}], "to")]))
    w.expect("nodes by label", ("x/a", (NODE4, NODE6), 9090, "TCP", False),
             ("x/a", OUT4, 8080, "TCP", True), ("y/a", NODE4, 9090, "TCP", True))
    w.apply(cluster_policy("nodes", "Admin", 1, ns=labels(ns="x"), egress=[
        rule("Deny", [{"networks": [f"{OUT4}/32", "fd90::/32"]}], "to")]))
    w.expect("networks", ("x/a", (OUT4, OUT6, NODE6), 8080, "TCP", False),
             ("x/a", NODE4, 9090, "TCP", True), ("x/a", "y/a", 80, "TCP", True))


@policy_test
def cluster_policy_baseline(env, w):
    w.apply(cluster_policy("base", "Baseline", 1, ns={}, ingress=[rule("Deny", [{"namespaces":
                                                                              labels(ns="y")}])]))
    w.expect("baseline denies", ("y/a", ("x/a", "z/a"), 80, "TCP", False),
             ("x/a", "z/a", 80, "TCP", True))
    w.apply(network_policy("x", "open", A, ingress=[{"from": [{"namespaceSelector":
                                                             labels(ns="y")}]}]))
    w.expect("a NetworkPolicy comes before it", ("y/a", "x/a", 80, "TCP", True),
             ("y/a", "x/b", 80, "TCP", False), ("z/a", "x/a", 80, "TCP", False))
    w.apply(cluster_policy("admin", "Admin", 1, ns={}, ingress=[rule("Deny", [{"namespaces":
                                                                             labels(ns="y")}])]))
    w.expect("and Admin before both", ("y/a", ("x/a", "x/b"), 80, "TCP", False))


# ---- explain ----

def rows(env, *args):
    return json.loads(env.lab.cli(*args, "-o", "json"))


def trace(env, *args):
    return {r["step"]: r["result"] for r in rows(env, "policy", "trace", *args)}


@policy_test
def policy_explains_itself(env, w):
    w.apply(network_policy("x", "only-b", A, ingress=[
        {"from": [{"podSelector": labels(pod="b")}], "ports": [{"port": 80}]}]),
            cluster_policy("no-y", "Admin", 1, ns=labels(ns="x"), ingress=[
                {"name": "keep out", **rule("Deny", [{"namespaces": labels(ns="y")}])}]))
    w.expect("in force", ("x/b", "x/a", 80, "TCP", True), (("x/b", "y/a"), "x/a", 81, "TCP", False))
    got = rows(env, "policy", "get")
    expect({(r["policy"], r["rule"]) for r in got} >= {
        ("x/only-b", "0"), ("x/only-b", "isolates"), ("no-y", "keep out")}, got)
    judged = {(r["policy"], r["rule"]): r["packets"] for r in got if r["direction"] == "ingress"}
    expect(judged["x/only-b", "0"] > 0 and judged["no-y", "keep out"] > 0, judged)
    ingress, egress = rows(env, "endpoint", "get", "x/x-a")
    expect(sorted(ingress["policies"]) == ["no-y", "x/only-b"] and not egress["policies"], ingress)
    expect(ingress["verdict"] == "denied: no rule allows it, isolated by x/only-b", ingress)
    flows = [f for f in env.lab.observe("-o", "jsonpb", "--last", "400").splitlines()]
    flows = [json.loads(line)["flow"] for line in flows if line.startswith("{")]
    by = lambda key: {p["name"] for f in flows for p in f.get(key, [])}
    expect(by("ingress_allowed_by") >= {"only-b"}, by("ingress_allowed_by"))
    expect(by("ingress_denied_by") >= {"only-b", "no-y"}, by("ingress_denied_by"))
    text = env.lab.observe("--verdict", "DROPPED", "--print-policy-names", "--last", "200")
    expect("BY only-b (NetworkPolicy)" in text and "BY no-y (ClusterNetworkPolicy)" in text, text)


@policy_test
def policy_trace_tells_and_leaves_nothing(env, w):
    vips = env.service(["x-a"], [{"name": "w", "port": 80, "targetPort": 81, "protocol": "TCP"}],
                       live=False)
    w.apply(network_policy("x", "ports", A, ingress=[
        {"from": [{"namespaceSelector": labels(ns="y")}], "ports": [{"port": 81}]}]))
    w.expect("in force", ("y/a", vips, 80, "TCP", True), ("z/a", "x/a", 81, "TCP", False))
    def traced():
        """What the traces would have left: their flows all begin at one port."""
        return [f for f in rows(env, "bpf", "ct", "list") if ":40000\"" in json.dumps(f)]

    before = {r["id"]: r["packets"] for r in rows(env, "policy", "get")}
    name = f"default/{env.services[-1]}"
    told = trace(env, "--from", "y/y-a", "--to", name, "--port", "80")
    expect(told["verdict"] == "FORWARDED" and told["ingress"] == "allowed by x/ports, rule 0", told)
    expect(f"{env.lab.pods['x-a'][0]}:81" in told["translation"], told)
    told = trace(env, "--from", "y/y-a", "--to", "x/x-a", "--port", "80")
    expect(told["verdict"] == "DROPPED: Policy denied", told)
    expect(told["ingress"] == "denied: no rule allows it, isolated by x/ports", told)
    told = trace(env, "--from", OUT6, "--to", env.lab.pods["x-a"][1], "--port", "81")
    expect(told["verdict"] == "DROPPED: Policy denied" and "from-net" in told["packet"], told)
    told = trace(env, "--from", "z/z-a", "--to", "z/z-b", "--port", "7", "--protocol", "UDP")
    expect(told["verdict"] == "FORWARDED" and told["ingress"].startswith("not judged"), told)
    after = {r["id"]: r["packets"] for r in rows(env, "policy", "get")}
    expect(after == before and not traced(), "the trace left something:", before, after, traced())
