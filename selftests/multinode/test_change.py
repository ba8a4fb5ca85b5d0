# SPDX-License-Identifier: Apache-2.0
"""What comes, goes and moves while packets flow: Nodes, their addresses, agents."""
import contextlib

from suite import expect, fields, host_port, test, wait_for
from test_paths import every_pod_pair, pods_and_nodes, without_port

STREAM_RATE, STREAM_MS = 200, 60000


class Stream:
    """A flow of numbered datagrams, and a connection that talks; nothing may be lost."""

    def __init__(self, lab, net, addr, udp, tcp):
        self.lab = lab
        self.udp = lab.background(net, "stream", "--dst", host_port(addr, udp), "--rate",
                                  STREAM_RATE, "--ms", STREAM_MS, "--timeout", 1000)
        self.tcp = lab.background(net, "hold", "--dst", host_port(addr, tcp), "--conns", 2, "--ms",
                                  STREAM_MS)

    def stop(self):
        return fields(self.lab.stop(self.udp)), fields(self.lab.stop(self.tcp))


@contextlib.contextmanager
def nothing_lost(env, *ways):
    """Flows of both kinds that run while the body does. ways: (lab, net, address, port)."""
    streams = [(Stream(lab, net, addr, port, port), f"{net} -> {addr}")
               for lab, net, addr, port in ways]
    tallies = []
    try:
        yield
    finally:
        tallies = [(*stream.stop(), what) for stream, what in streams]
    for udp, tcp, what in tallies:
        expect(udp["received"] == udp["sent"] and int(udp["sent"]) > 0 and udp["errors"] == "0",
               f"{what}: datagrams lost:", udp)
        expect(tcp["ok"] == "2" and tcp["reset"] == tcp["closed"] == "0"
               and int(tcp["max_gap_ms"]) < 1000, f"{what}: a connection was disturbed:", tcp)


def all_ways(env):
    """A flow between every two nodes, one within a node, and one to a Service far away."""
    firsts = env.first_pods()
    vips = env.service([firsts[2]])
    ways = []
    for family in env.families:
        for i, (node, pod, _) in enumerate(firsts):
            ways.append((node, pod, firsts[(i + 1) % 3][2][family], 8080))
        node, pod, _ = firsts[0]
        ways += [(node, pod, node.pods[f"{node.node_name}-b"][family], 8080),
                 (node, pod, vips[family], 80)]
        if family in env.node_families:
            ways.append((node, "node", vips[family], 80))
    return ways


def reaches(node, pod, mine, addr):
    """Does the pod reach it as itself?"""
    line = node.connect(pod, addr, 8080, timeout_ms=300)
    return line["is"] == "ok" and without_port(line["seen"]) == mine


@test("some", "full")
def a_node_disappears_and_comes_back(env):
    """Its tunnel and routes go, and only they."""
    first, second, gone = env.nodes
    mine, target = first.pods["n1-a"], gone.pods["n3-a"]
    others = [(first, "n1-a", second.pods["n2-a"][f], 8080) for f in env.families]
    before = first.routes()
    with nothing_lost(env, *others):
        env.cluster.remove_node(gone)
        for f in env.families:
            wait_for("no way to the pods of a node that is gone",
                     lambda f=f: not reaches(first, "n1-a", mine[f], target[f]))
        env.cluster.write_node(gone)
        for f in env.families:
            wait_for("a way to the pods of a node that is back",
                     lambda f=f: reaches(first, "n1-a", mine[f], target[f]))
    wait_for("the routes of before", lambda: first.routes() == before)
    every_pod_pair(env)


def move(env, node, host):
    """The node gets other addresses, as from DHCP: the new ones first, then the old ones go."""
    old = {f: node.addr(f) for f in env.underlay}
    node.host = host
    for family in env.underlay:
        bits = 24 if family == 4 else 64
        node.ip("node", f"addr add {node.addr(family)}/{bits} dev eth0"
                + (" nodad" if family == 6 else ""))
    env.cluster.write_node(node)
    for family in env.underlay:
        bits = 24 if family == 4 else 64
        node.ip("node", f"addr del {old[family]}/{bits} dev eth0")
    if env.config.routing != "tunnel":
        env.cluster.router_routes("replace")


@test("full")
def a_node_changes_its_address(env):
    node, home = env.nodes[2], env.nodes[2].host
    for host in (home + 30, home):
        move(env, node, host)
        for other in env.nodes[:2]:
            pod = f"{other.node_name}-a"
            for f in env.families:
                wait_for(f"{pod} to reach n3-a at .{host}", lambda o=other, p=pod, f=f: reaches(
                    o, p, o.pods[p][f], node.pods["n3-a"][f]))
                wait_for(f"n3-a at .{host} to reach {pod}", lambda o=other, p=pod, f=f: reaches(
                    node, "n3-a", node.pods["n3-a"][f], o.pods[p][f]))
        env.meet()
        every_pod_pair(env)
        # its agent starts anew, and only then knows the address as the node's own
        wait_for("the node's agent", lambda: node.http("/readyz")[0] == 200 and node.addr(
            env.underlay[0]) in node.cli("bpf", "map", "dump", "wag_node_addr"), 60)
        pods_and_nodes(env)


@test("full")
def agents_restart(env):
    """Killed in mid-traffic, and back: no packet is lost, no route is touched."""
    before = {node.node_name: node.routes() for node in env.nodes}
    with nothing_lost(env, *all_ways(env)):
        watches = [node.start("node", ["ip", "monitor", "route"], name=f"routes-{node.node_name}")
                   for node in env.nodes]
        for node in env.nodes:
            node.kill_agent()
        every_pod_pair(env)
        pods_and_nodes(env)
        for node in env.nodes:
            node.start_agent(*env.agent_args, wait=False)
        for node in env.nodes:
            node.wait_ready(60)
        every_pod_pair(env)
    for node, watch in zip(env.nodes, watches):
        node.stop(watch)
        said = [line for line in node.log(watch.log_name).splitlines() if " cache" not in line]
        expect(not said, f"{node.node_name}: routes changed while the agent restarted:", said)
        expect(node.routes() == before[node.node_name], f"{node.node_name}: other routes:",
               set(node.routes()) ^ set(before[node.node_name]))
