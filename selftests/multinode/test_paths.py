# SPDX-License-Identifier: Apache-2.0
"""Who reaches whom, and as whom: pods, nodes, Services and the world outside."""
from suite import (NODE_PORT_ECHO, ask, expect, expect_ok, host_port, port, test)

ALL = ("plain", "some", "paths", "full")
WAGGLE = ("some", "paths", "full")
NP_TCP, NP_UDP = 30080, 30081


def without_port(text):
    """The address of ADDR:PORT or [ADDR]:PORT."""
    return text.rpartition(":")[0].strip("[]")


@test(*ALL)
def every_pod_pair(env):
    """TCP and UDP and echo requests; each sees the other's own address."""
    for node, pod, mine in env.pods():
        for family in env.families:
            others = [(name, addrs[family]) for _, name, addrs in env.pods(but=pod)]
            for mode in ("connect", "udp"):
                lines = ask(node, pod, mode, [(a, 8080) for _, a in others])
                for (name, addr), line in zip(others, lines):
                    expect(line["is"] == "ok", f"{mode} {pod} -> {name} ({addr}):", line)
                    expect_ok(line, name)
                    expect(without_port(line["seen"]) == mine[family],
                           f"{name} saw {line['seen']}, not {pod} ({mine[family]})")
            lines = ask(node, pod, "ping", [(a, 0) for _, a in others])
            for (name, addr), line in zip(others, lines):
                expect(line["is"] == "ok", f"ping {pod} -> {name} ({addr}):", line)


@test(*ALL)
def pods_and_nodes(env):
    """Pod to its node and to the others, and back."""
    for node, pod, mine in env.first_pods():
        for family in env.node_families:
            for other in env.nodes:
                what = f"{pod} -> {other.node_name} ({other.addr(family)})"
                for mode in ("connect", "udp"):
                    line = ask(node, pod, mode, [(other.addr(family), NODE_PORT_ECHO)])[0]
                    expect(line["is"] == "ok", f"{mode} {what}:", line)
                    expect_ok(line, other.node_name)
                    expect(without_port(line["seen"]) == mine[family], what, "was seen as", line)
                line = ask(node, pod, "ping", [(other.addr(family), 0)])[0]
                expect(line["is"] == "ok", f"ping {what}:", line)
    for node in env.nodes:
        for family in env.node_families:
            others = [(name, addrs[family]) for _, name, addrs in env.pods()]
            for mode in ("connect", "udp"):
                lines = ask(node, "node", mode, [(a, 8080) for _, a in others])
                for (name, addr), line in zip(others, lines):
                    expect(line["is"] == "ok", f"{mode} {node.node_name} -> {name} ({addr}):", line)
                    expect_ok(line, name)
            lines = ask(node, "node", "ping", [(a, 0) for _, a in others])
            for (name, addr), line in zip(others, lines):
                expect(line["is"] == "ok", f"ping {node.node_name} -> {name} ({addr}):", line)


def call(env, lab, net, addr, tcp, udp, label, what):
    """One connection, one socket of each kind; who answered."""
    line = ask(lab, net, "connect", [(addr, tcp)])[0]
    expect(line["is"] == "ok", f"connect {what}:", line)
    expect_ok(line, label, peer=host_port(addr, tcp))
    for flags in ((), ("--connected",)):
        line = ask(lab, net, "udp", [(addr, udp)], *flags)[0]
        expect(line["is"] == "ok", f"udp {' '.join(flags)} {what}:", line)
        expect_ok(line, label, **{"from": host_port(addr, udp)})


@test(*WAGGLE, "dsr")
def cluster_ip(env):
    """From every node and a pod on it, to a backend on each node."""
    for backend in env.first_pods():
        vips = env.service([backend])
        for node, pod, _ in env.first_pods():
            for net, families in ((pod, env.families), ("node", env.node_families)):
                for addr in (vips[f] for f in families):
                    call(env, node, net, addr, 80, 80, backend[1],
                         f"{node.node_name} {net} -> {addr} (of {backend[1]})")


@test("paths", "full")
def spread_over_nodes(env):
    backends = env.first_pods()
    vips = env.service(backends)
    names = {name for _, name, _ in backends}
    for node, pod, _ in env.first_pods():
        for net in (pod, "node"):
            for addr in vips.values():
                lines = node.wagtest(net, "connect", "--dst", host_port(addr, 80), "--count", 40)
                seen = {expect_ok(line, names)["label"] for line in lines}
                expect(seen == names, f"{net} -> {addr}: only {seen} answered")


@test(*WAGGLE, "dsr")
def node_port(env):
    """From outside, from every node and from pods, to every node, to a backend on each node."""
    ports = [port(80, 8080, "TCP", NP_TCP), port(80, 8080, "UDP", NP_UDP)]
    for backend in env.first_pods():
        env.service([backend], ports, "NodePort")
        callers = [(env.outside, "out", "outside")]
        callers += [(node, "node", node.node_name) for node in env.nodes]
        callers += [(node, pod, pod) for node, pod, _ in env.first_pods()]
        for lab, net, who in callers:
            for node in env.nodes:
                for family in env.node_families:
                    call(env, lab, net, node.addr(family), NP_TCP, NP_UDP, backend[1],
                         f"{who} -> node port of {node.node_name} -> {backend[1]}, IPv{family}")
        env.clean()


@test(*WAGGLE)
def local_policies(env):
    """From outside a node serves its own endpoints only, and shows them who asks."""
    ports = [port(80, 8080, "TCP", NP_TCP), port(80, 8080, "UDP", NP_UDP)]
    here, there = env.first_pods()[:2]
    vips = env.service([here], ports, "NodePort", externalTrafficPolicy="Local",
                       internalTrafficPolicy="Local")
    for family in env.node_families:
        line = ask(env.outside, "out", "connect", [(here[0].addr(family), NP_TCP)])[0]
        expect_ok(line, here[1])
        expect(without_port(line["seen"]) == env.outside.addr("out", family), "it saw", line)
        line = ask(env.outside, "out", "connect", [(there[0].addr(family), NP_TCP)],
                   "--timeout", 500)[0]
        expect(line.get("errno") == "ETIMEDOUT", f"{there[0].node_name} answered:", line)
        for net in ("node", there[1]):
            expect_ok(ask(there[0], net, "connect", [(there[0].addr(family), NP_TCP)])[0], here[1])
    for family in env.families:
        node = ("node",) if family in env.node_families else ()  # else it has nothing to ask from
        for net in (*node, here[1]):
            expect_ok(ask(here[0], net, "connect", [(vips[family], 80)])[0], here[1])
        for net in (*node, there[1]):
            line = ask(there[0], net, "connect", [(vips[family], 80)], "--timeout", 500)[0]
            expect(line.get("errno") == "ETIMEDOUT", f"{net} was answered:", line)
    env.clean()
    env.service([here], ports, "NodePort")
    for family in env.node_families:
        line = ask(env.outside, "out", "connect", [(there[0].addr(family), NP_TCP)])[0]
        expect_ok(line, here[1])
        expect(without_port(line["seen"]) == there[0].addr(family), "it saw", line)


@test(*WAGGLE)
def masquerade_outside_only(env):
    """Outside a pod is seen as its node; what it asks for comes back to it."""
    for node, pod, _ in env.first_pods():
        for family in env.node_families:
            for net in ("out", "far"):
                addr = env.outside.addr(net, family)
                for mode in ("connect", "udp"):
                    line = ask(node, pod, mode, [(addr, 8080)])[0]
                    expect(line["is"] == "ok", f"{mode} {pod} -> {net} ({addr}):", line)
                    expect_ok(line, net)
                    expect(without_port(line["seen"]) == node.addr(family),
                           f"{net} saw {line['seen']}, not {node.addr(family)}")
                line = ask(node, pod, "ping", [(addr, 0)])[0]
                expect(line["is"] == "ok", f"ping {pod} -> {net} ({addr}):", line)
