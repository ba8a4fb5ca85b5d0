#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""waggle-cni: each verb in each version with each of its errors, capabilities, policy, GC.

Prints "ok NAME" or "FAIL NAME: why" for each test, and counts at the end. Needs root.
"""
import fcntl
import json
import os
import shutil
import struct
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cni_world import VERSIONS, Node, addr_key, addresses, ping, run_tests, sh

OFD_SETLK = 37
PENDING, NO_PEER = 1, 2


# ---- the table of verbs ----

def test_verbs_and_versions(world):
    """Which verb there is in which version, and what each answers on stdout."""
    since = {"ADD": "0.3.1", "DEL": "0.3.1", "CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
    node, pod = Node(world, "verbs"), world.netns("verbs")
    for version in VERSIONS:
        conf = {"cniVersion": version, "cni.dev/valid-attachments": []}
        for verb in ("STATUS", "ADD", "CHECK", "DEL", "GC"):
            if version < since[verb]:
                node.error(1, verb, "c", pod, conf=conf, says=verb)
                continue
            out = node.ok(verb, "c", pod, conf=conf)
            assert (out is None) == (verb != "ADD"), out
        said = node.ok("VERSION", conf=json.dumps({"cniVersion": version}))
        assert said == {"cniVersion": version, "supportedVersions": VERSIONS}
    for verb in since:
        node.error(1, verb, "c", pod, conf={"cniVersion": "0.2.0"}, says="0.2.0")
        node.error(1, verb, "c", pod, conf={"cniVersion": "2.0.0"}, says="2.0.0")
        node.error(6, verb, "c", pod, conf="[", says="JSON")
        node.error(7, verb, "c", pod, conf={"cniVersion": "1.1.0", "name": "a/b"}, says="name")
    world.drop(pod)
    node.clean()


def test_gc_and_its_list(world):
    """No list: nothing with a record goes. An empty one, or null: everything goes."""
    node, pod = Node(world, "nolist"), world.netns("nolist")
    for odd in ({}, 7, "c", [{}]):
        out = node.error(7, "GC", conf={"cniVersion": "1.1.0", "cni.dev/valid-attachments": odd},
                         says="cni.dev/valid-attachments")
        assert out["cniVersion"] == "1.1.0"
    for empty in ([], None):
        node.ok("ADD", "c", pod)
        node.ok("GC", conf={"cniVersion": "1.1.0"})
        node.ok("CHECK", "c", pod)
        node.ok("GC", conf={"cniVersion": "1.1.0", "cni.dev/valid-attachments": empty})
        node.clean()
    world.drop(pod)


def test_status(world):
    empty = Node(world, "unpinned", attach=None)
    code, said = empty.status()
    assert code == 50 and "waggle-agent has not run since boot" in said, said
    node = Node(world, "status", v4="10.79.0.0/29", v6=None)
    assert node.status() == (0, "")
    pods = [world.netns(f"st{i}") for i in range(5)]
    for i, pod in enumerate(pods):
        node.ok("ADD", f"c{i}", pod)
    code, said = node.status()
    assert code == 50 and "10.79.0.0/29: all 5 belong to pods" in said, said
    node.ok("DEL", "c0", pods[0])
    assert node.status() == (0, ""), "an address that waits is as good as free"
    code, said = node.status(ipam={"type": "no-such-plugin"})
    assert code == 50 and "no-such-plugin" in said, said
    node.put("wag_runtime", bytes(4), struct.pack("<6I", 0, 1, 0, 0, 0, 0))
    code, said = node.status()
    assert code == 51 and "cut off" in said, said
    with agent(node):
        assert node.status() == (0, ""), "the agent is at it"
    for i, pod in enumerate(pods):
        node.ok("DEL", f"c{i}", pod)
        world.drop(pod)
    node.clean()


def test_reboot(world):
    """Nothing is pinned any more, and the state dir is of the boot before."""
    node, pod = Node(world, "boot", v4="10.79.0.0/30", v6=None), world.netns("boot")
    first = node.ok("ADD", "c1", pod)
    world.drop(pod)
    for top, _, names in os.walk(node.state):
        for name in names:
            with open(os.path.join(top, name), "r+b") as f:
                text = f.read().replace(BOOT, b"0" * len(BOOT))
                f.seek(0)
                f.write(text)
    shutil.rmtree(node.pins)
    pod = world.netns("boot")
    node.error(11, "ADD", "c2", pod, says="has not run since boot")
    assert node.status()[0] == 50
    node.pin()
    second = node.ok("ADD", "c2", pod)
    assert addresses(first) == addresses(second), "a lease of the earlier boot was kept"
    code, out = node.gc("c2")
    assert code == 0, out
    assert set(node.records()) == {"c2"} and node.leased() == addresses(second)
    node.ok("CHECK", "c2", pod)
    node.ok("DEL", "c2", pod)
    world.drop(pod)
    node.clean()


# ---- where addresses and MTU come from ----

def write_ranges(node, *families):
    os.makedirs(os.path.join(node.state, "ipam"), exist_ok=True)
    with open(os.path.join(node.state, "ipam", "node.json"), "w", encoding="utf-8") as f:
        json.dump({"mode": "kubernetes", "ranges": families}, f)


def test_ranges_of_the_node(world):
    node, pod = Node(world, "ranges"), world.netns("ranges")
    del node.conf["ipam"]
    node.error(11, "ADD", "c", pod, says="has not written this node's pod ranges")
    assert node.status()[0] == 50
    write_ranges(node, [], [])
    node.error(11, "ADD", "c", pod, says="no pod ranges yet")
    write_ranges(node, ["10.81.0.0/30", "10.82.0.0/24"], ["fd81::/64"])
    assert node.status() == (0, "")
    out = node.ok("ADD", "c", pod)
    assert addresses(out) == ["10.81.0.2", "fd81::2"], out
    other = world.netns("ranges2")
    assert addresses(node.ok("ADD", "c2", other))[0] == "10.82.0.2", "the second range"
    for cid in ("c", "c2"):
        node.ok("DEL", cid)
    world.drop(pod)
    world.drop(other)
    node.clean()


def test_mtu(world):
    """The configuration's, else the agent's; the default route's where less fits a tunnel."""
    node, pod = Node(world, "mtu"), world.netns("mtu")
    for agent_mtu, route_mtu, conf, want, want_route in (
            (9000, 0, {}, 9000, None), (9000, 8950, {}, 9000, 8950), (0, 0, {}, 1500, None),
            (9000, 8950, {"mtu": 1400}, 1400, None), (1500, 1450, {"mtu": 1480}, 1480, 1450)):
        node.set_mtu(agent_mtu, route_mtu)
        out = node.ok("ADD", "c", pod, conf={"cniVersion": "1.1.0", **conf})
        assert [i["mtu"] for i in out["interfaces"]] == [want, want], out
        assert [r.get("mtu") for r in out["routes"]] == [want_route] * 2, out
        link = json.loads(sh("ip", "-n", pod, "-j", "link", "show", "eth0"))[0]
        assert link["mtu"] == want, link
        for family in ("-4", "-6"):
            routes = json.loads(sh("ip", family, "-n", pod, "-j", "route", "show", "default"))
            metrics = {k: v for m in routes[0].get("metrics", []) for k, v in m.items()}
            assert metrics.get("mtu") == want_route, routes
        node.ok("CHECK", "c", pod)
        node.ok("DEL", "c", pod)
    node.error(7, "ADD", "c", pod, conf={"mtu": 1000}, says="IPv6 needs 1280")
    world.drop(pod)
    node.clean()


# ---- GC ----

def test_gc_keeps_what_is_listed(world):
    node = Node(world, "gc", "tcx")
    pods = {c: world.netns(f"gc{c}") for c in ("a", "b", "c")}
    for cid, pod in pods.items():
        node.ok("ADD", cid, pod)
    node.ok("ADD", "x", world.netns("gcx"), conf={"name": "another"})
    code, out = node.gc("a", "c", "unknown", ("b", "eth9"))
    assert code == 0 and out is None, out
    assert set(node.records()) == {"a", "c", "x"}, "b goes, and another network's stays"
    for cid in ("a", "c"):
        node.ok("CHECK", cid, pods[cid])
    assert not [x for x in json.loads(sh("ip", "-n", pods["b"], "-j", "link"))
                if x["ifname"] == "eth0"]
    node.ok("DEL", "b", pods["b"])
    code, out = node.gc()
    assert code == 0 and set(node.records()) == {"x"}, out
    code, out = node.gc(conf={"name": "another"})
    assert code == 0, out
    node.clean()


def test_gc_finds_orphans(world):
    """What belongs to no record: the state dir was lost, in whole or in part."""
    node = Node(world, "orphan", "tcx")
    pods = [world.netns(f"or{i}") for i in range(4)]
    conf = {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80}]}}
    node.ok("ADD", "c0", pods[0], conf=conf)
    for i in (1, 2, 3):
        node.ok("ADD", f"c{i}", pods[i])
    endpoints = os.path.join(node.state, "endpoints")
    for name in os.listdir(endpoints):
        os.unlink(os.path.join(endpoints, name))
    for name, text in ((".77.tmp", "{"), ("12345.json", "{\"ep_id\":12")):
        with open(os.path.join(endpoints, name), "w", encoding="utf-8") as f:
            f.write(text)
    node.put("wag_limit", struct.pack("<II", 4000000, 0), bytes(40))
    sh("ip", "-n", world.node, "link", "add", "wag0000zzzz", "type", "veth", "peer",
       "name", "other")
    kept = node.map("wag_pods") // 4
    code, out = node.gc("c3")
    assert code == 0, out
    assert os.listdir(endpoints) == [], os.listdir(endpoints)
    assert node.map("wag_endpoint") == 1 and node.map("wag_pods") == kept, "c3 lives"
    assert node.map("wag_hostport") == 0 and node.map("wag_limit") == 0
    assert len(node.leased()) == 2 and len(os.listdir(f"{node.pins}/links")) == 2
    ping(pods[3], "10.77.255.1")
    code, out = node.gc()
    assert code == 0, out
    sh("ip", "-n", world.node, "link", "del", "wag0000zzzz")
    node.clean()


def test_gc_without_pins(world):
    node, pod = Node(world, "bare"), world.netns("bare")
    node.ok("ADD", "c", pod)
    shutil.rmtree(node.pins)
    code, out = node.gc()
    assert code == 0, out
    world.drop(pod)
    node.clean()


# ---- capabilities ----

def port_conf(*ports, **more):
    return {"runtimeConfig": {"portMappings": [
        dict(zip(("hostPort", "containerPort", "protocol", "hostIP"), p)) for p in ports], **more}}


def test_port_mappings(world):
    node = Node(world, "ports")
    a, b = world.netns("pa"), world.netns("pb")
    out = node.ok("ADD", "a", a, conf=port_conf((8080, 80, "tcp"), (53, 5353, "UDP", "10.0.0.1")),
                  CNI_ARGS="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web")
    v4, v6 = addresses(out)
    found = {}
    for key, value in node.entries("wag_hostport"):
        at = (key[:16], struct.unpack(">H", key[16:18])[0], key[18])
        found[at] = (value[:16], struct.unpack(">H", value[16:18])[0])
    assert found == {
        (addr_key("0.0.0.0"), 8080, 6): (addr_key(v4), 80),
        (addr_key("::"), 8080, 6): (addr_key(v6), 80),
        (addr_key("10.0.0.1"), 53, 17): (addr_key(v4), 5353)}, found
    for clash in ((8080, 1, "tcp"), (8080, 1, "tcp", "10.0.0.9"), (53, 1, "udp")):
        said = node.error(103, "ADD", "b", b, conf=port_conf(clash), says="shop/web")
        assert str(clash[0]) in said["msg"], said
    assert set(node.records()) == {"a"} and node.map("wag_pods") == 2, "undone"
    node.ok("ADD", "b", b, conf=port_conf((8080, 1, "udp"), (53, 1, "udp", "10.0.0.2")))
    node.ok("DEL", "a", a)
    assert node.map("wag_hostport") == 3
    node.ok("DEL", "b", b)
    node.error(7, "ADD", "b", b, conf=port_conf((0, 80)), says="hostPort")
    only4 = Node(world, "ports4", v6=None)
    only4.error(7, "ADD", "b", b, conf=port_conf((80, 80, "tcp", "fd00::1")), says="IPv6")
    for pod in (a, b):
        world.drop(pod)
    node.clean()
    only4.clean()


def test_port_asked_for_twice(world):
    node, pod = Node(world, "twice"), world.netns("twice")
    same = {"hostPort": 80, "containerPort": 80}

    def both(other):
        return {"runtimeConfig": {"portMappings": [same, other]}}

    node.error(7, "ADD", "c", pod, conf=both({**same, "containerPort": 81}),
               says="port 80 of the node would lead to 80 and to 81")
    node.clean()
    for other in (same, {**same, "containerPort": 81, "hostIP": "10.77.255.1"},
                  {**same, "containerPort": 81, "protocol": "udp"}):
        node.ok("ADD", "c", pod, conf=both(other))
        node.ok("CHECK", "c", pod)
        node.ok("DEL", "c", pod)
    world.drop(pod)
    node.clean()


def test_mac_and_ips(world):
    node, a, b = Node(world, "wish"), world.netns("wa"), world.netns("wb")
    conf = {"runtimeConfig": {"mac": "0a:58:0a:4d:00:63", "ips": ["10.77.0.99/24", "fd77::99"]}}
    out = node.ok("ADD", "a", a, conf=conf)
    assert addresses(out) == ["10.77.0.99", "fd77::99"], out
    assert out["interfaces"][1]["mac"] == "0a:58:0a:4d:00:63", out
    link = json.loads(sh("ip", "-n", a, "-j", "link", "show", "eth0"))[0]
    assert link["address"] == "0a:58:0a:4d:00:63"
    ping(world.node, "10.77.0.99")
    ping(a, "fd77:ff::1")
    node.ok("CHECK", "a", a)
    node.error(11, "ADD", "b", b, conf=conf, says="10.77.0.99 belongs to another container")
    node.error(7, "ADD", "b", b, conf={"runtimeConfig": {"ips": ["10.99.0.1"]}}, says="10.99.0.1")
    node.error(7, "ADD", "b", b, conf={"runtimeConfig": {"ips": ["10.77.0.97", "10.77.0.98"]}},
               says="10.77.0.98 is a second IPv4 address")
    only4 = Node(world, "wish4", v6=None)
    only4.error(7, "ADD", "b", b, conf={"runtimeConfig": {"ips": ["fd77::98"]}},
                says="fd77::98 is IPv6, and this node's pods have no IPv6 range")
    assert not only4.records() and not only4.leased()
    half = node.ok("ADD", "b", b, conf={"runtimeConfig": {"ips": ["10.77.0.98"]}})
    assert addresses(half)[0] == "10.77.0.98" and addresses(half)[1].startswith("fd77::"), half
    for cid, pod in (("a", a), ("b", b)):
        node.ok("DEL", cid, pod)
        world.drop(pod)
    node.clean()


def test_bandwidth_is_recorded(world):
    node, pod = Node(world, "rate"), world.netns("rate")
    rate = {"egressRate": 10 ** 9, "egressBurst": 10 ** 7, "ingressRate": 5, "ingressBurst": 3}
    node.ok("ADD", "c", pod, conf={"runtimeConfig": {"bandwidth": rate}})
    record = node.records()["c"]
    assert record["egress_rate"] == 10 ** 9 and record["ingress_burst"] == 3, record
    flags = {struct.unpack("<I", v[20:24])[0] for _, v in node.entries("wag_pods")}
    assert flags == {NO_PEER}, flags
    node.ok("DEL", "c", pod)
    world.drop(pod)
    node.clean()


def test_two_interfaces(world):
    """A second one takes nothing from the first: not its default route, not its namespace."""
    node, pod = Node(world, "two"), world.netns("two")
    out = {i: node.ok("ADD", "c", pod, CNI_IFNAME=i) for i in ("eth0", "net1", "net2")}

    def way_out():
        return [json.loads(sh("ip", f, "-n", pod, "-j", "route", "get", a))[0]["dev"]
                for f, a in (("-4", "10.77.255.1"), ("-6", "fd77:ff::1"))]

    assert way_out() == ["eth0", "eth0"] and node.map("wag_netns") == 1
    for i, result in out.items():
        node.ok("CHECK", "c", pod, CNI_IFNAME=i)
        for addr in addresses(result):
            ping(world.node, addr)
    node.ok("DEL", "c", pod, CNI_IFNAME="net1")
    node.ok("CHECK", "c", pod)
    node.ok("DEL", "c", pod)
    assert way_out() == ["net2", "net2"]
    node.ok("DEL", "c", pod, CNI_IFNAME="net2")
    world.drop(pod)
    node.clean()


# ---- policy that is not known yet ----

class agent:
    """Somebody who holds the agent's lock and, if told so, releases pods by their records."""

    def __init__(self, node, releases=False):
        self.node, self.releases, self.fd, self.stop = node, releases, -1, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.seen = []

    def __enter__(self):
        self.fd = os.open(os.path.join(self.node.state, "agent.lock"), os.O_RDWR | os.O_CREAT)
        fcntl.fcntl(self.fd, OFD_SETLK, struct.pack("hhxxxxqqixxxx", fcntl.F_WRLCK, 0, 0, 0, 0))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        os.close(self.fd)

    def run(self):
        while self.releases and not self.stop.wait(0.01):
            ready = [r for r in self.node.records().values() if r["ready"]]
            for record in ready:
                if record["container_id"] not in self.seen:
                    self.seen.append(record["container_id"])
                    release(self.node, record["ep_id"])


def release(node, ep_id):
    for key, value in node.entries("wag_pods"):
        if struct.unpack("<I", value[4:8])[0] == ep_id:
            node.put("wag_pods", key, value[:20] + bytes(4) + value[24:])


def flags_of(node):
    return [struct.unpack("<I", v[20:24])[0] for _, v in node.entries("wag_pods")]


def policies(node, known, **namespaces):
    node.put("wag_runtime", bytes(4), struct.pack("<6I", 0, 0, known, 0, 0, 0))
    for name, selects in namespaces.items():
        node.put("wag_policy_ns", name.encode().ljust(64, b"\0"), struct.pack("<II", selects, 0))


def test_policy_without_the_agent(world):
    """What is pinned decides, and ADD does not wait."""
    node, pod = Node(world, "policy"), world.netns("policy")
    for known, ns, want in ((0, "guarded", 0), (1, "guarded", PENDING), (1, "free", 0),
                            (1, "unknown", PENDING), (1, "", PENDING)):
        policies(node, known, guarded=1, free=0)
        begin = time.monotonic()
        node.ok("ADD", "c", pod, CNI_ARGS=f"K8S_POD_NAMESPACE={ns};K8S_POD_NAME=p" if ns else "")
        assert time.monotonic() - begin < 1.5, "it waited"
        assert flags_of(node) == [want] * 2, (known, ns, flags_of(node))
        node.ok("CHECK", "c", pod)
        node.ok("DEL", "c", pod)
    world.drop(pod)
    node.clean()


def test_policy_with_the_agent(world):
    node, pod = Node(world, "agent"), world.netns("agent")
    args = {"CNI_ARGS": "K8S_POD_NAMESPACE=guarded;K8S_POD_NAME=p"}
    policies(node, 1, guarded=1, free=0)
    os.makedirs(node.state, exist_ok=True)
    with agent(node, releases=True) as living:
        node.ok("ADD", "c1", pod, **args)
        assert living.seen == ["c1"] and flags_of(node) == [0, 0], "ADD returned too early"
        node.ok("DEL", "c1", pod)
    with agent(node):
        begin = time.monotonic()
        said = node.error(11, "ADD", "c2", pod, says="try again", **args)
        assert 1.9 < time.monotonic() - begin < 10, said
        node.clean()
        node.ok("ADD", "c3", pod, CNI_ARGS="K8S_POD_NAMESPACE=free;K8S_POD_NAME=p")
        node.ok("DEL", "c3", pod)
    world.drop(pod)
    node.clean()


def test_agent_dies_while_add_waits(world):
    node, pod = Node(world, "dies"), world.netns("dies")
    policies(node, 1, guarded=1)
    os.makedirs(node.state, exist_ok=True)
    with agent(node):
        proc = node.start("ADD", "c", pod, CNI_ARGS="K8S_POD_NAMESPACE=guarded;K8S_POD_NAME=p")
        end = time.monotonic() + 5
        while not any(r["ready"] for r in node.records().values()):
            assert time.monotonic() < end and proc.poll() is None, "no record"
            time.sleep(0.002)
    out = json.loads(proc.stdout.read())
    proc.stdout.close()
    assert proc.wait() == 0 and len(out["ips"]) == 2, out
    assert flags_of(node) == [PENDING] * 2
    node.ok("DEL", "c", pod)
    world.drop(pod)
    node.clean()


def test_without_an_agent_50_come_and_go(world):
    node = Node(world, "fifty")
    pods = [world.netns(f"f{i}") for i in range(50)]
    given = [addresses(node.ok("ADD", f"c{i}", pod)) for i, pod in enumerate(pods)]
    for i in (0, 24, 49):
        for addr in given[i] + given[49 - i]:
            ping(pods[(i + 7) % 50], addr)
    for i, pod in enumerate(pods):
        node.ok("CHECK", f"c{i}", pod)
    for i, pod in enumerate(pods):
        node.ok("DEL", f"c{i}", pod)
        world.drop(pod)
    node.clean()


with open("/proc/sys/kernel/random/boot_id", "rb") as boot_file:
    BOOT = boot_file.read().strip()

TESTS = [
    ("every verb in every version", test_verbs_and_versions),
    ("GC and its list", test_gc_and_its_list),
    ("STATUS", test_status),
    ("after a reboot", test_reboot),
    ("ranges of the node", test_ranges_of_the_node),
    ("MTU of pods and of their default route", test_mtu),
    ("GC keeps what is listed", test_gc_keeps_what_is_listed),
    ("GC finds orphans", test_gc_finds_orphans),
    ("GC without pins", test_gc_without_pins),
    ("portMappings", test_port_mappings),
    ("a port asked for twice", test_port_asked_for_twice),
    ("mac and ips", test_mac_and_ips),
    ("bandwidth is recorded", test_bandwidth_is_recorded),
    ("two interfaces of one pod", test_two_interfaces),
    ("policy without the agent", test_policy_without_the_agent),
    ("policy with the agent", test_policy_with_the_agent),
    ("the agent dies while ADD waits", test_agent_dies_while_add_waits),
    ("without an agent 50 pods come and go", test_without_an_agent_50_come_and_go),
]


if __name__ == "__main__":
    sys.exit(run_tests("cni", TESTS))
