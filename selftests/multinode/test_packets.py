# SPDX-License-Identifier: Apache-2.0
"""What happens to single packets on their way: hops, sizes, fragments, false senders."""
import itertools
import socket
import struct

from suite import ask, expect, expect_ok, host_port, observed, test, wait_for
from multinode import FAR_MTU, TUNNEL_VNI, VXLAN_PORT

ALL = ("plain", "some", "paths", "full")
WAGGLE = ("some", "paths", "full")
TOO_BIG = {4: ("3", "4"), 6: ("2", "0")}  # ICMP type and code
TIME_EXCEEDED = {4: ("11", "0"), 6: ("3", "0")}


def pairs(env):
    """The first pod of each node to the first of the others, and to its neighbour."""
    firsts = env.first_pods()
    for (a, pod, _), (b, other, addrs) in itertools.permutations(firsts, 2):
        yield a, pod, b, other, addrs
    for a, pod, _ in firsts:
        name = f"{a.node_name}-b"
        yield a, pod, a, name, a.pods[name]


def routers_between(env, a, b):
    """Who decrements the TTL between a pod of one node and a pod of the other, in order."""
    if a is b:
        return [a]
    if env.config.direct(a, b) and a.subnet != b.subnet:
        return [a, env.outside, b]
    return [a, b]


@test(*ALL)
def hops_are_counted(env):
    """Each router takes one off the TTL, and says so when none is left."""
    for a, pod, b, other, addrs in pairs(env):
        way = routers_between(env, a, b)
        for family in env.families:
            what = f"{pod} -> {other}, IPv{family}"
            line = ask(a, pod, "ping", [(addrs[family], 0)])[0]
            expect(line["is"] == "ok" and line["hops"] == str(64 - len(way)),
                   f"{what}: the answer should have {64 - len(way)} hops left:", line)
            for ttl, router in enumerate(way, 1):
                if family not in env.underlay:
                    continue  # that router has no address to answer from
                line = ask(a, pod, "ping", [(addrs[family], 0)], "--ttl", ttl)[0]
                expect(line["is"] == "icmp"
                       and (line["type"], line["code"]) == TIME_EXCEEDED[family],
                       f"{what}, TTL {ttl}: wanted time exceeded:", line)
                if router is not env.outside:
                    expect(line["from"] == host_port(router.addr(family), 0),
                           f"{what}, TTL {ttl}: wanted {router.node_name} to answer:", line)
            line = ask(a, pod, "ping", [(addrs[family], 0)], "--ttl", len(way) + 1)[0]
            expect(line["is"] == "ok", f"{what}, TTL {len(way) + 1}:", line)


@test(*WAGGLE)
def too_big_for_the_tunnel(env):
    """A packet that must not be fragmented: who cannot send it on says how large it may be."""
    mtu = env.cluster.mtu - env.config.overhead
    for a, pod, b, other, addrs in pairs(env):
        for family in env.families:
            what = f"{pod} -> {other}, IPv{family}"
            tunnelled = a is not b and not env.config.direct(a, b)
            most = mtu if tunnelled else env.cluster.mtu
            line = ask(a, pod, "ping", [(addrs[family], 0)], "--size", most, "--df")[0]
            expect(line["is"] == "ok", f"{what}: {most} bytes should pass:", line)
            if tunnelled:
                line = ask(a, pod, "ping", [(addrs[family], 0)], "--size", mtu + 8, "--df")[0]
                expect(line["is"] == "icmp" and (line["type"], line["code"]) == TOO_BIG[family]
                       and line["mtu"] == str(mtu),
                       f"{what}: {mtu + 8} bytes should be refused with {mtu}:", line)


def flush_exceptions(env):
    """Learnt path MTUs stay for ten minutes."""
    for node, pod, _ in env.pods():
        for net in (pod, "node"):
            node.ip(net, "route flush cache", "-6 route flush cache")


@test("plain", "full", routing=("native",))
def narrow_link_on_the_way(env):
    """A link between the nodes is narrower than they think: pods learn it from the router."""
    a, b = env.nodes[0], env.nodes[2]
    try:
        env.outside.ip("router", f"link set {b.node_name} mtu {FAR_MTU}")
        for family in env.families:
            line = a.wagtest(f"{a.node_name}-a", "pmtu", "--dst", host_port(
                b.pods[f"{b.node_name}-a"][family], 8080), "--size", 1400)[0]
            expect(line["is"] == "ok" and line["mtu"] == str(FAR_MTU), f"IPv{family}:", line)
    finally:
        env.outside.ip("router", f"link set {b.node_name} mtu {env.cluster.mtu}")
        flush_exceptions(env)


@test(*WAGGLE)
def path_mtu_is_learnt_through_masquerade(env):
    """The router quotes the node's packet; the pod must understand."""
    try:
        for node, pod, _ in env.first_pods():
            for family in env.node_families:
                line = node.wagtest(pod, "pmtu", "--dst", host_port(
                    env.outside.addr("far", family), 8080), "--size", 1350)[0]
                expect(line["is"] == "ok" and line["mtu"] == str(FAR_MTU),
                       f"{pod}, IPv{family}:", line)
    finally:
        flush_exceptions(env)


@test(*ALL)
def large_segments(env):
    """TCP in writes of 32 KB: segmentation offload on the way in, path MTU on the way out."""
    for a, pod, _, other, addrs in pairs(env):
        for family in env.families:
            line = a.wagtest(pod, "bulk", "--dst", host_port(addrs[family], 8080), "--size",
                             1 << 20, "--timeout", 3000)[0]
            expect(line["is"] == "ok", f"{pod} -> {other}, IPv{family}:", line)


@test(*ALL)
def datagrams_larger_than_the_mtu(env):
    for a, pod, _, other, addrs in pairs(env):
        for family in env.families:
            for size in (1600, 8000, 30000):
                line = a.udp(pod, addrs[family], 8080, "--size", size)
                expect(line["is"] == "ok", f"{pod} -> {other}, IPv{family}, {size} bytes:", line)
                expect_ok(line, other, len=str(size), intact="1")


@test(*WAGGLE)
def fragments_to_services(env):
    """Only the first fragment has the ports by which the Service is known."""
    for backend in env.first_pods():
        vips = env.service([backend])
        for node, pod, _ in env.first_pods():
            for net, families in ((pod, env.families), ("node", env.node_families)):
                for addr in (vips[f] for f in families):
                    if net == "node" and "--socket-lb=off" in env.config.args:
                        # The stack cut it for the Service's route: it learns of the tunnel first.
                        node.udp(net, addr, 80, "--size", 8000, timeout_ms=200)
                    line = node.udp(net, addr, 80, "--size", 8000)
                    expect(line["is"] == "ok", f"{net} -> {addr} of {backend[1]}:", line)
                    expect_ok(line, backend[1], len="8000", intact="1")


@test(*ALL)
def fragments_out_of_order(env):
    for n, (a, pod, _, other, addrs) in enumerate(pairs(env)):
        for family in env.families:
            for order in ((), ("--reverse",)):
                src = host_port(a.pods[pod][family], 20000 + n)
                line = a.wagtest(pod, "frag", "--src", src, "--dst",
                                 host_port(addrs[family], 8080), "--size", 2000, "--answer",
                                 "--timeout", 2000, *order)[0]
                expect(line["is"] == "ok" and line["label"] == other and line["len"] == "2000",
                       f"{pod} -> {other}, IPv{family} {order}:", line)


def drop_shown(node, reason, **want):
    """The reason's drop in flow-observe, with these addresses."""
    def look():
        for flow in observed(node, "--verdict", "DROPPED", "--last", "100"):
            ip = flow.get("IP", {})
            if flow.get("drop_reason_desc", "").endswith(reason) and all(
                    ip.get(k) == v for k, v in want.items()):
                return flow
        return None
    return wait_for(f"a drop with {reason} {want} at {node.node_name}", look)


@test("some", "full")
def spoofed_sources_are_dropped(env):
    for node, pod, _ in env.first_pods()[::2]:
        victim = env.nodes[1].pods["n2-b"]
        target = env.nodes[1].pods["n2-a"]
        for family in env.families:
            node.wagtest(pod, "synflood", "--src", victim[family], "--dst",
                         host_port(target[family], 8080), "--rate", 100, "--ms", 50)
            drop_shown(node, "INVALID_SOURCE_IP", source=victim[family])


def vxlan_frame(src, dst, vni):
    """A tunnel's payload: an Ethernet frame with a UDP datagram from one pod to another."""
    data = b"from nobody"
    udp = struct.pack("!HHHH", 4242, 8080, 8 + len(data), 0) + data
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                       socket.inet_aton(src), socket.inet_aton(dst))
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xffff) + (total >> 16)
    total = ~((total & 0xffff) + (total >> 16)) & 0xffff
    head = head[:10] + struct.pack("!H", total) + head[12:]
    return struct.pack("!BxxxI", 8, vni << 8) + b"\x02" + bytes(10) + b"\x02\x08\x00" + head + udp


@test("full", "some", routing=("tunnel", "auto"))
def tunnels_of_strangers_are_refused(env):
    """A tunnelled packet from a host that is no node."""
    node = env.nodes[0]
    frame = vxlan_frame("10.244.2.2", "10.244.1.2", TUNNEL_VNI)
    family = env.underlay[0]
    code = (f"import socket; s = socket.socket(socket.AF_INET{'6' * (family == 6)}, "
            f"socket.SOCK_DGRAM); s.sendto({frame!r}, ({node.addr(family)!r}, {VXLAN_PORT}))")
    env.outside.sh("rogue", ["python3", "-c", code])
    # who sent it is what matters, not whom it claims to come from
    drop_shown(node, "UNKNOWN_SENDER", source=env.outside.addr("rogue", family))
