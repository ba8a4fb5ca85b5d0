#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""waggle-cni CHECK: it names whatever somebody changed, and compares prevResult.

Prints "ok NAME" or "FAIL NAME: why" for each test, and counts at the end. Needs root.
"""
import json
import os
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cni_world import Node, addr_key, addresses, run_tests, sh

TC_PRIO = 0x7761


def changes(node, pod, host):
    """(what to do, what CHECK must name)"""
    def ip(ns, *command):
        return lambda: sh("ip", "-n", ns, *command)

    def sysctl(ns, setting):
        return lambda: sh("nsenter", f"--net=/run/netns/{ns}", "sysctl", "-qw", setting)

    v4, v6 = node.addrs
    on = node.world.node
    return [
        (ip(pod, "addr", "del", v6 + "/128", "dev", "eth0"), f"lost address {v6}"),
        (ip(pod, "route", "del", "default"), "no default route via 169.254.1.1"),
        (ip(pod, "neigh", "del", "169.254.1.1", "dev", "eth0"), "no neighbour 169.254.1.1"),
        (ip(pod, "link", "set", "eth0", "mtu", "1300"), "eth0 has MTU 1300, not 1500"),
        (ip(pod, "link", "set", "eth0", "down"), "container: eth0 is down"),
        (ip(pod, "link", "set", "eth0", "address", "02:00:00:00:00:07"), "another MAC"),
        (sysctl(pod, "net.ipv6.conf.eth0.accept_ra=1"), "sysctl accept_ra of eth0 is 1, not 0"),
        (ip(on, "route", "del", v4), f"node: no route to {v4}"),
        (ip(on, "neigh", "del", v6, "dev", host), f"node: no neighbour {v6}"),
        (ip(on, "link", "set", host, "down"), f"node: {host} is down"),
        (sysctl(on, f"net.ipv4.conf.{host}.rp_filter=1"), "sysctl rp_filter"),
        (sysctl(on, f"net.ipv4.conf.{host}.forwarding=0"), "sysctl forwarding"),
        (ip(on, "link", "del", host), f"node: no interface {host}"),
        (lambda: node.delete("wag_pods", addr_key(v4)), f"wag_pods: no {v4}"),
        (lambda: node.delete("wag_endpoint", node.entries("wag_endpoint")[0][0]), "wag_endpoint"),
        (lambda: node.delete("wag_netns", node.entries("wag_netns")[0][0]), "wag_netns"),
        (lambda: node.delete("wag_hostport", node.entries("wag_hostport")[0][0]),
         "port 8080 (protocol 6) is not the pod's"),
        (lambda: node.delete("wag_limit", node.limit(0)[0]),
         f"wag_limit: no egress bandwidth of {host}"),
        (lambda: node.delete("wag_limit", node.limit(1)[0]),
         f"wag_limit: no ingress bandwidth of {host}"),
        (lambda: node.put("wag_limit", node.limit(0)[0],
                          struct.pack("<Q", 7) + node.limit(0)[1][8:]),
         f"egress bandwidth of {host} is 7 bytes/s with a burst of 65536, not 125000 with 65536"),
    ]


def check_sees(world, attach):
    node, pod = Node(world, "check-" + attach, attach), world.netns("check")
    conf = {"cniVersion": "1.1.0", "mtu": 1500, "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80}],
        "bandwidth": {"egressRate": 10 ** 6, "ingressRate": 10 ** 6}}}

    def add():
        out = node.ok("ADD", "c", pod, conf=conf)
        node.addrs = addresses(out)
        # As the runtime does: the result goes along.
        node.ok("CHECK", "c", pod, conf={**conf, "prevResult": out})
        return out

    host = add()["interfaces"][0]["name"]
    def detach(side, prio):
        if attach == "clsact":
            sh("tc", "-n", world.node, "filter", "del", "dev", host, side, "prio", str(prio))
        ends = side + ("" if prio == TC_PRIO else "_limit")
        for n in os.listdir(f"{node.pins}/links") if attach == "tcx" else []:
            if n.endswith(ends):
                os.unlink(os.path.join(node.pins, "links", n))

    extra = [(lambda: detach("egress", TC_PRIO), "program wag_to_pod is not attached"),
             (lambda: detach("ingress", TC_PRIO - 1), "program wag_limit_egress is not attached"),
             (lambda: detach("egress", TC_PRIO - 1), "program wag_limit_ingress is not attached"),
             (lambda: os.unlink(f"{node.pins}/progs/wag_from_pod"),
              "program wag_from_pod is not pinned")]
    for n in range(len(changes(node, pod, host)) + len(extra)):
        change, says = (changes(node, pod, host) + extra)[n]
        change()
        out = node.error(102, "CHECK", "c", pod, conf=conf, says=says)
        assert says in out["details"], out
        node.ok("DEL", "c", pod)
        if n < len(changes(node, pod, host)) + len(extra) - 1:
            add()
    world.drop(pod)
    node.clean()


def test_check_prev_result(world):
    node, pod = Node(world, "prev"), world.netns("prev")
    out = node.ok("ADD", "c", pod)
    first = json.dumps(out)
    out["ips"][0]["address"] = "10.77.0.99/32"
    out["interfaces"][1]["mac"] = "02:00:00:00:00:01"
    said = node.error(102, "CHECK", "c", pod, conf={"prevResult": out}, says="2 differences")
    assert "10.77.0.99" in said["details"] and "02:00:00:00:00:01" in said["details"], said
    for change, says in (
            (lambda i: i[1].update(name="eth9"), "prevResult: has no eth0 of the container"),
            (lambda i: i[1].update(sandbox="/run/netns/x"), "eth0 is in /run/netns/x, not in"),
            (lambda i: i[0].update(name="wag0"), "prevResult: has no wag"),
            (lambda i: i[0].update(mac="02:00:00:00:00:02"), "02:00:00:00:00:02 is not that of")):
        other = json.loads(first)
        change(other["interfaces"])
        node.error(102, "CHECK", "c", pod, conf={"prevResult": other}, says=says)
    # Later plugins of the list may add theirs.
    other = json.loads(first)
    other["interfaces"].insert(0, {"name": "net1", "mac": "02:00:00:00:00:03", "sandbox": "/x"})
    for ip in other["ips"]:
        ip["interface"] += 1
    node.ok("CHECK", "c", pod, conf={"prevResult": other})
    node.error(3, "CHECK", "other", pod, says="ADD it first")
    node.error(3, "CHECK", "c", "/run/netns/none-such", says="none-such")
    node.ok("DEL", "c", pod, conf={"prevResult": out})
    world.drop(pod)
    node.clean()


def test_check_every_part_of_prev_result(world):
    node, pod = Node(world, "part"), world.netns("part")
    conf = {"cniVersion": "1.1.0", "mtu": 1500}
    out = node.ok("ADD", "c", pod, conf=conf)
    v4, v6 = addresses(out)
    node.ok("CHECK", "c", pod, conf={**conf, "prevResult": out})

    def route(**r):
        return lambda o: o["routes"].append(r)
    for change, says in (
            (lambda o: o["ips"][0].update(address=v4 + "/24"), f"{v4}/24 has prefix length 32 on"),
            (lambda o: o["ips"][1].update(address=v6 + "/64"), f"{v6}/64 has prefix length 128 on"),
            (lambda o: o["ips"].append({"address": "10.98.0.1/24"}),
             "address 10.98.0.1/24 is not on the container"),
            (route(dst="10.0.0.0/8", gw="169.254.1.1"),
             "route 10.0.0.0/8 via 169.254.1.1 is not in the container"),
            (route(dst="fd99::/16"), "route fd99::/16 is not in the container"),
            (route(dst="::/0", gw="fe80::2"), "route ::/0 via fe80::2 is not in"),
            (route(dst="0.0.0.0/0", gw="169.254.1.2"), "route 0.0.0.0/0 via 169.254.1.2 is not in"),
            (route(dst="0.0.0.0/0", table=100), "route 0.0.0.0/0 of table 100 is not in"),
            (route(dst="0.0.0.0/0", priority=7), "route 0.0.0.0/0 with metric 7 is not in"),
            (route(dst=v4 + "/32"), f"route {v4}/32 is not in"),
            (lambda o: o["interfaces"][1].update(mtu=1400), "eth0 has MTU 1500, not 1400 as in"),
            (lambda o: o["interfaces"][0].update(mtu=1400), "has MTU 1500, not 1400 as in")):
        other = json.loads(json.dumps(out))
        change(other)
        said = node.error(102, "CHECK", "c", pod, conf={**conf, "prevResult": other},
                          says="prevResult")
        assert says in said["details"] and "1 difference:" in said["msg"], (says, said)
    for gw in (7, "x", "10.0.0.0/8"):
        other = json.loads(json.dumps(out))
        other["routes"][0]["gw"] = gw
        node.error(6, "CHECK", "c", pod, conf={**conf, "prevResult": other}, says="routes: gw")
    node.ok("DEL", "c", pod)
    world.drop(pod)
    node.clean()


def later_plugins(pod, out):
    """Another interface, another table, several ways, a smaller MTU: what is in prevResult then."""
    def ip(*command):
        sh("ip", "-n", pod, *command)
    ip("link", "add", "net1", "type", "veth", "peer", "name", "net1peer")
    ip("link", "set", "net1", "up")
    ip("link", "set", "net1peer", "up")
    ip("addr", "add", "10.98.0.1/24", "dev", "net1")
    ip("route", "add", "10.97.0.0/16", "via", "10.98.0.9")
    ip("route", "add", "10.96.0.0/16", "via", "169.254.1.1", "dev", "eth0", "onlink", "table", "7")
    ip("-6", "route", "add", "fd97::/64", "nexthop", "via", "fe80::1", "dev", "eth0",
       "nexthop", "via", "fe80::2", "dev", "net1")
    ip("link", "set", "eth0", "mtu", "1400")
    out["interfaces"][1]["mtu"] = 1400
    out["interfaces"].append({"name": "net1", "sandbox": f"/run/netns/{pod}"})
    out["interfaces"].append({"name": "vm0", "sandbox": "vm-7"})
    out["ips"] += [{"address": "10.98.0.1/24", "interface": 2},
                   {"address": "10.95.0.1/24", "interface": 3}]
    out["routes"] += [{"dst": "10.97.0.0/16", "gw": "10.98.0.9"}, {"dst": "10.96.0.0/16"},
                      {"dst": "fd97::/64", "gw": "fe80::2"}]


def test_check_after_later_plugins(world):
    """What they added is in prevResult as it is in the container, until it is not any more."""
    node, pod = Node(world, "later"), world.netns("later")
    node.set_mtu(1500, 1450)
    conf = {"cniVersion": "1.1.0"}
    out = node.ok("ADD", "c", pod, conf=conf)
    later_plugins(pod, out)
    conf["prevResult"] = out
    node.ok("CHECK", "c", pod, conf=conf)
    gone = []
    for change, says in (
            ("route del 10.97.0.0/16", "route 10.97.0.0/16 via 10.98.0.9 is not in"),
            ("route del 10.96.0.0/16 table 7", "route 10.96.0.0/16 is not in"),
            ("-6 route del fd97::/64", "route fd97::/64 via fe80::2 is not in"),
            ("addr del 10.98.0.1/24 dev net1", "address 10.98.0.1/24 is not on net1"),
            ("link set eth0 mtu 1450", "eth0 has MTU 1450, not 1400 as in prevResult")):
        sh("ip", "-n", pod, *change.split())
        gone.append(says)
        said = node.error(102, "CHECK", "c", pod, conf=conf, says=says)
        assert all(s in said["details"] for s in gone), said
        assert f"{len(gone)} difference" in said["msg"], said
    node.ok("DEL", "c", pod)
    world.drop(pod)
    node.clean()


def test_check_of_a_chained_pod(world):
    """All of prevResult is another plugin's."""
    node, pod = Node(world, "chained"), world.netns("chained")
    sh("ip", "-n", world.node, "link", "add", "lxc1", "type", "veth", "peer", "name", "eth0",
       "netns", pod)
    for ns, link in ((world.node, "lxc1"), (pod, "eth0")):
        sh("ip", "-n", ns, "link", "set", link, "up")
    sh("ip", "-n", pod, "addr", "add", "10.86.0.5/24", "dev", "eth0")
    sh("ip", "-n", pod, "route", "add", "default", "via", "10.86.0.1")
    prev = {"cniVersion": "1.1.0", "interfaces": [
        {"name": "eth0", "sandbox": f"/run/netns/{pod}", "mtu": 1500}],
            "ips": [{"address": "10.86.0.5/24", "interface": 0, "gateway": "10.86.0.1"}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "0.0.0.0/0", "gw": "10.86.0.1"}]}
    conf = {"cniVersion": "1.1.0", "chainingMode": "generic-veth", "prevResult": prev}
    node.ok("ADD", "c", pod, conf=conf)
    node.ok("CHECK", "c", pod, conf=conf)
    for do, undo, says in (
            ("link set eth0 mtu 1400", "link set eth0 mtu 1500", "eth0 has MTU 1400, not 1500"),
            ("route del default", "route add default via 10.86.0.1",
             "route 0.0.0.0/0 via 10.86.0.1 is not in the container"),
            ("addr add 10.86.0.5/16 dev eth0", "addr del 10.86.0.5/16 dev eth0", None),
            ("addr del 10.86.0.5/24 dev eth0", "addr add 10.86.0.5/24 dev eth0",
             "address 10.86.0.5/24 is not on eth0")):
        sh("ip", "-n", pod, *do.split())
        if says:
            node.error(102, "CHECK", "c", pod, conf=conf, says=says)
        else:
            node.ok("CHECK", "c", pod, conf=conf)
        sh("ip", "-n", pod, *undo.split())
    node.ok("DEL", "c", pod, conf=conf)
    sh("ip", "-n", world.node, "link", "del", "lxc1")
    world.drop(pod)
    node.clean()


TESTS = [
    ("CHECK names each change, clsact", lambda w: check_sees(w, "clsact")),
    ("CHECK names each change, tcx", lambda w: check_sees(w, "tcx")),
    ("CHECK compares prevResult", test_check_prev_result),
    ("CHECK compares every part of prevResult", test_check_every_part_of_prev_result),
    ("CHECK after later plugins", test_check_after_later_plugins),
    ("CHECK of a chained pod", test_check_of_a_chained_pod),
]


if __name__ == "__main__":
    sys.exit(run_tests("cni", TESTS))
