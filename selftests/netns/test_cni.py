#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""waggle-cni in real namespaces: pods come and go, also many at once and killed half-way.

Prints "ok NAME" or "FAIL NAME: why" for each test, and counts at the end. Needs root.
"""
import concurrent.futures
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cni_world import VERSIONS, Node, addresses, ping, run_tests, sh

QUICK = "WAGGLE_QUICK" in os.environ
KILLS = int(os.environ.get("WAGGLE_CNI_KILLS", "100" if QUICK else "500"))
MANY = 50 if QUICK else 200
BUSY = 7  # processes a processor


def test_ping_both_families(world, attach):
    node, a, b = Node(world, "ping-" + attach, attach), world.netns("a"), world.netns("b")
    ra, rb = node.ok("ADD", "ca", a), node.ok("ADD", "cb", b)
    for mine, theirs, ns in ((ra, rb, a), (rb, ra, b)):
        for addr in addresses(mine):
            ping(world.node, addr)
        for addr in addresses(theirs) + ["10.77.255.1", "fd77:ff::1"]:
            ping(ns, addr)
    assert node.map("wag_pods") == 4 and node.map("wag_endpoint") == 2
    assert node.map("wag_netns") == 2
    for cid, ns in (("ca", a), ("cb", b)):
        node.ok("CHECK", cid, ns)
        node.ok("DEL", cid, ns)
        world.drop(ns)
    node.clean()


def test_result_shapes(world):
    node, pod = Node(world, "shapes"), world.netns("shape")
    for version in VERSIONS:
        extra = {"cniVersion": version, "dns": {"nameservers": ["10.96.0.10"]}, "mtu": 1400}
        out = node.ok("ADD", "c1", pod, conf=extra)
        old = version in ("0.3.1", "0.4.0")
        assert out["cniVersion"] == version
        assert [i["name"][:3] for i in out["interfaces"]] == ["wag", "eth"]
        assert out["interfaces"][1]["sandbox"] == f"/run/netns/{pod}"
        link = json.loads(sh("ip", "-n", pod, "-j", "link", "show", "eth0"))[0]
        assert link["address"] == out["interfaces"][1]["mac"] and link["mtu"] == 1400
        assert [ip.get("version") for ip in out["ips"]] == (["4", "6"] if old else [None, None])
        assert all(ip["interface"] == 1 for ip in out["ips"])
        assert [ip["gateway"] for ip in out["ips"]] == ["169.254.1.1", "fe80::1"]
        assert [r["dst"] for r in out["routes"]] == ["0.0.0.0/0", "::/0"]
        assert out["dns"] == {"nameservers": ["10.96.0.10"]}
        assert ("mtu" in out["interfaces"][1]) == (version == "1.1.0")
        assert node.ok("DEL", "c1", pod, conf=extra) is None
        said = node.ok("VERSION", conf=json.dumps({"cniVersion": version}))
        assert said == {"cniVersion": version, "supportedVersions": VERSIONS}
    many = {"nameservers": ["10.96.0.10"] * 5000}
    assert node.ok("ADD", "c1", pod, conf={"dns": many})["dns"] == many
    node.ok("DEL", "c1", pod)
    world.drop(pod)
    node.clean()


def test_result_nobody_can_read(world):
    node, pod = Node(world, "deaf"), world.netns("deaf")
    with open("/dev/full", "wb") as full:
        proc = node.start("ADD", "c", pod, stdout=full)
        assert proc.wait() == 1
    node.clean()
    world.drop(pod)


def test_errors(world):
    node, pod = Node(world, "errors"), world.netns("err")
    node.error(1, "ADD", "c", pod, conf={"cniVersion": "0.1.0"}, says="0.1.0")
    said = node.ok("VERSION", conf={"cniVersion": "1.2.0"})
    assert said == {"cniVersion": "1.2.0", "supportedVersions": VERSIONS}, said
    node.error(2, "ADD", "c", pod, conf={"ipam": {"subnet": "x"}}, says="ipam.subnet")
    node.error(2, "ADD", "c", pod, conf={"prevResult": {}}, says="first plugin")
    node.error(3, "ADD", "c", "/run/netns/none-such", says="none-such")
    node.error(4, "ADD", "c", "/proc/self/status", says="not a network namespace")
    node.error(4, "ADD", "c", world.node, says="node's own")
    node.error(4, "ADD", "", pod, says="CNI_CONTAINERID")
    node.error(4, "ADD", "../c", pod, says="CNI_CONTAINERID")
    node.error(4, "ADD", "c", pod, CNI_IFNAME="a/b", says="CNI_IFNAME")
    node.error(4, "ADD", "c", pod, CNI_IFNAME=None, says="CNI_IFNAME")
    node.error(4, "ADD", "c", pod, CNI_IFNAME="all", says='CNI_IFNAME "all"')
    node.error(4, "ADD", "c", "", says="CNI_NETNS")
    node.error(4, "ADD", "c", pod, CNI_ARGS="X=1", says="IgnoreUnknown=1")
    node.error(4, "FROBNICATE", says="FROBNICATE")
    node.error(5, "ADD", "c", pod, conf={"stateDir": "/proc/none/state"}, says="state dir")
    node.error(1, "ADD", "c", pod, conf={"cniVersion": "a" + "\u00e9" * 40}, says="a\u00e9")
    node.error(6, "ADD", "c", pod, conf="{", says="JSON")
    node.error(6, "ADD", "c", pod, conf=b" " * (1 << 20) + b"{}", says="1 MB")
    node.error(7, "ADD", "c", pod, conf={"mtu": 12}, says="mtu")
    node.error(3, "CHECK", "c", pod, says="ADD it first")
    sh("ip", "-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    node.error(100, "ADD", "c", pod, says="eth0 exists")
    sh("ip", "-n", pod, "link", "del", "eth0")
    node.clean()
    world.drop(pod)


def test_again_without_pins(world):
    node, pod = Node(world, "empty", attach=None), world.netns("again")
    out = node.error(11, "ADD", "c", pod, says="waggle-agent has not run since boot: start it")
    assert node.pins in out["msg"]
    os.makedirs(node.pins)
    node.error(11, "ADD", "c", pod, says=node.pins)
    assert not os.path.exists(node.state)
    node.ok("DEL", "c", pod)
    world.drop(pod)


def test_add_twice(world):
    node, pod = Node(world, "twice"), world.netns("twice")
    first = node.ok("ADD", "c", pod)
    node.error(100, "ADD", "c", pod, says="already has eth0")
    node.ok("CHECK", "c", pod)
    ping(world.node, addresses(first)[0])
    node.ok("DEL", "c", pod)
    second = node.ok("ADD", "c", pod)
    assert not set(addresses(first)) & set(addresses(second)), "an address came back at once"
    node.ok("DEL", "c", pod)
    world.drop(pod)
    node.clean()


def test_del_is_idempotent(world):
    node, pod = Node(world, "del"), world.netns("del")
    node.ok("DEL", "never", pod)
    node.ok("ADD", "c", pod, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=p;A=b")
    node.ok("DEL", "c", pod, CNI_ARGS="broken")
    node.ok("DEL", "c", pod)
    node.clean()
    node.ok("ADD", "c", pod)
    world.drop(pod)
    node.ok("DEL", "c", pod)
    node.ok("DEL", "c", "")
    node.clean()
    pod = world.netns("del")
    node.ok("ADD", "c", pod)
    shutil.rmtree(node.pins)
    node.ok("DEL", "c", "", conf={"ipam": 7})
    node.ok("DEL", "c", "")
    world.drop(pod)
    node.clean()


def test_gone_when_del_returns(world, attach):
    """Also to who asks without waiting for the kernel's lock, and at both ends."""
    node, pod = Node(world, "gone-" + attach, attach), world.netns("gone")
    look = "i=$(grep -c -e wag -e eth0 /proc/self/net/dev); test $i = $1"
    for i in range(20):
        host = node.ok("ADD", f"c{i}", pod)["interfaces"][0]["name"]
        sh("nsenter", f"--net=/run/netns/{world.node}", "sh", "-c", look, "sh", "1")
        proc = node.start("DEL", f"c{i}", pod, then=look)
        assert proc.wait() == 0, f"{host} is there after DEL"
        proc.stdout.close()
        sh("nsenter", f"--net=/run/netns/{pod}", "sh", "-c", look, "sh", "0")
    world.drop(pod)
    node.clean()


def test_del_after_a_lost_state_dir(world):
    node, pod = Node(world, "lost"), world.netns("lost")
    node.ok("ADD", "c", pod)
    shutil.rmtree(node.state)
    node.ok("DEL", "c", pod)
    world.drop(pod)
    node.clean()


def test_single_family(world):
    for name, v4, v6 in (("only4", "10.78.0.0/24", None), ("only6", None, "fd78::/64")):
        node, pod = Node(world, name, v4=v4, v6=v6), world.netns(name)
        out = node.ok("ADD", "c", pod)
        assert len(out["ips"]) == 1
        ping(world.node, addresses(out)[0])
        node.ok("DEL", "c", pod)
        world.drop(pod)
        node.clean()


def test_pod_with_ipv6_switched_off(world):
    node, pod = Node(world, "v6off"), world.netns("v6off")
    sh("ip", "netns", "exec", pod, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1",
       "net.ipv6.conf.default.disable_ipv6=1")
    out = node.ok("ADD", "c", pod)
    ping(world.node, addresses(out)[1])
    node.ok("DEL", "c", pod)
    world.drop(pod)
    node.clean()


def test_exhausted_range(world):
    node = Node(world, "full", v4="10.79.0.0/29", v6=None)
    pods = [world.netns(f"full{i}") for i in range(6)]
    for i in range(5):
        node.ok("ADD", f"c{i}", pods[i])
    out = node.error(11, "ADD", "c5", pods[5], says="10.79.0.0/29: all 5 are taken, 0 of them wait")
    assert "larger range" in out["msg"]
    node.ok("DEL", "c0", pods[0])
    node.error(11, "ADD", "c5", pods[5], says="1 of them wait 30 s")
    for i in range(6):
        node.ok("DEL", f"c{i}", pods[i])
        world.drop(pods[i])
    node.clean()


def test_concurrent(world):
    node = Node(world, "many", v4="10.77.0.0/22")
    pods = [world.netns(f"many{i}") for i in range(MANY)]
    half = MANY // 2

    def turn(i):
        """The first half of the pods goes while the second comes."""
        return node.ok("DEL", f"c{i}", pods[i]) if i < half else node.ok("ADD", f"c{i}", pods[i])

    with concurrent.futures.ThreadPoolExecutor(MANY) as pool:
        out = list(pool.map(lambda i: node.ok("ADD", f"c{i}", pods[i]), range(half)))
        out += [r for r in pool.map(turn, range(MANY)) if r]
        given = [a for r in out for a in addresses(r)]
        assert len(set(given)) == 2 * MANY, "an address was given twice"
        living = range(half, MANY)
        assert node.map("wag_pods") == 2 * len(living) and node.map("wag_endpoint") == len(living)
        for i in (half, MANY - 1):
            ping(pods[i], addresses(out[half + 1])[i % 2])
        list(pool.map(lambda i: node.ok("CHECK", f"c{i}", pods[i]), living))
        list(pool.map(lambda i: node.ok("DEL", f"c{i}", pods[i]), living))
    for pod in pods:
        world.drop(pod)
    node.clean()


def test_concurrent_on_a_busy_machine(world):
    """The one that has the lock of the pins must get on, whoever else waits for it."""
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"])
            for _ in range(BUSY * os.cpu_count())]
    try:
        test_concurrent(world)
    finally:
        for proc in busy:
            proc.kill()
            proc.wait()


def test_same_container_at_once(world):
    node, pod = Node(world, "same"), world.netns("same")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        codes = [c for c, _ in pool.map(lambda _: node.call("ADD", "c", pod), range(8))]
    assert sorted(codes) == [0] + [1] * 7, codes
    node.ok("CHECK", "c", pod)
    node.ok("DEL", "c", pod)
    world.drop(pod)
    node.clean()


def kill_after(node, seconds, *args, **kw):
    """Starts the plugin and kills it; was it still at work?"""
    proc = node.start(*args, **kw)
    time.sleep(seconds)
    proc.send_signal(signal.SIGKILL)
    proc.stdout.close()
    return proc.wait() == -signal.SIGKILL


def took(node, command, cid, pod):
    begin = time.perf_counter()
    node.ok(command, cid, pod)
    return time.perf_counter() - begin


def test_kill_then_again(world):
    """Half of the killed ADDs are followed by DEL, half by the same ADD again."""
    node, pod = Node(world, "kill", "tcx", v4="10.80.0.0/16"), world.netns("kill")
    rng = random.Random(7)
    long_add, long_del = took(node, "ADD", "c", pod), took(node, "DEL", "c", pod)
    interrupted = 0
    for i in range(KILLS // 5):
        interrupted += kill_after(node, rng.uniform(0, long_add), "ADD", f"c{i}", pod)
        if i % 2:
            code, out = node.call("ADD", f"c{i}", pod)
            assert code == 0 or out["code"] == 100, out
            node.ok("CHECK", f"c{i}", pod)
        if i % 4 >= 2:
            kill_after(node, rng.uniform(0, long_del), "DEL", f"c{i}", pod)
        node.ok("DEL", f"c{i}", pod)
        if i % 10 == 9:
            node.clean()
    world.drop(pod)
    node.clean()
    assert interrupted > KILLS // 20, f"only {interrupted} of {KILLS // 5} were interrupted"


def test_kill_then_gc(world, attach, kills):
    """ADDs and DELs die anywhere; one GC takes what they left, and nothing of the living."""
    node, pod = Node(world, "gc", attach, v4="10.80.0.0/16"), world.netns("gc")
    rng = random.Random(8)
    long_add = took(node, "ADD", "t", pod)
    node.ok("DEL", "t", pod)
    killed, alive = 0, []
    for i in range(kills):
        cid, env = f"c{i}", {"CNI_IFNAME": f"e{i}"}
        conf = {"runtimeConfig": {"portMappings": [{"hostPort": 1 + i, "containerPort": 80}]}}
        if i % 25 == 0:
            own = world.netns(f"gc{i}")
            node.ok("ADD", cid, own, conf=conf, **env)
            alive.append((cid, env["CNI_IFNAME"]))
        elif i % 4 == 0:
            node.ok("ADD", cid, pod, conf=conf, **env)
            killed += kill_after(node, rng.uniform(0, long_add), "DEL", cid, pod, conf=conf, **env)
        else:
            killed += kill_after(node, rng.uniform(0, long_add), "ADD", cid, pod, conf=conf, **env)
    assert killed > kills // 4, f"only {killed} of {kills} were interrupted"
    left = len(node.leftovers())
    code, out = node.gc(*alive)
    assert code == 0, out
    assert {c for c, _ in alive} == set(node.records()), node.records().keys()
    for cid, ifname in alive:
        node.ok("CHECK", cid, world.full(f"gc{cid[1:]}"), CNI_IFNAME=ifname)
    want = len(alive)
    got = [node.map(m) for m in ("wag_pods", "wag_endpoint", "wag_netns", "wag_hostport")]
    assert got == [2 * want, want, want, 2 * want], got
    assert len(node.leased()) == 2 * want, node.leased()
    pins = os.path.join(node.pins, "links")
    assert len(os.listdir(pins)) == (2 * want if attach == "tcx" else 0), os.listdir(pins)
    assert len(node.leftovers()) < left
    code, out = node.gc()
    assert code == 0, out
    world.drop(pod)
    node.clean()


TESTS = [
    ("ping both families, tcx", lambda w: test_ping_both_families(w, "tcx")),
    ("ping both families, clsact", lambda w: test_ping_both_families(w, "clsact")),
    ("result shapes of each version", test_result_shapes),
    ("a result nobody can read is undone", test_result_nobody_can_read),
    ("gone when DEL returns, tcx", lambda w: test_gone_when_del_returns(w, "tcx")),
    ("gone when DEL returns, clsact", lambda w: test_gone_when_del_returns(w, "clsact")),
    ("errors", test_errors),
    ("answers 11 without pins", test_again_without_pins),
    ("ADD twice", test_add_twice),
    ("DEL is idempotent", test_del_is_idempotent),
    ("DEL after a lost state dir", test_del_after_a_lost_state_dir),
    ("single family", test_single_family),
    ("pod with IPv6 switched off", test_pod_with_ipv6_switched_off),
    ("exhausted range", test_exhausted_range),
    (f"{MANY} at once", test_concurrent),
    (f"{MANY} at once on a busy machine", test_concurrent_on_a_busy_machine),
    ("one container eight times at once", test_same_container_at_once),
    (f"kill -9 at {KILLS // 5} random points, then again", test_kill_then_again),
    (f"kill -9 at {KILLS * 3 // 5} random points, then GC, clsact",
     lambda w: test_kill_then_gc(w, "clsact", KILLS * 3 // 5)),
    (f"kill -9 at {KILLS * 2 // 5} random points, then GC, tcx",
     lambda w: test_kill_then_gc(w, "tcx", KILLS * 2 // 5)),
]


if __name__ == "__main__":
    sys.exit(run_tests("cni", TESTS))
