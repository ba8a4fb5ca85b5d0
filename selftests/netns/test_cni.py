#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""waggle-cni in real namespaces, over a bpffs of the test's own with stand-in programs.

Prints "ok NAME" or "FAIL NAME: why" for each test, and counts at the end. Needs root.
"""
import concurrent.futures
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

BUILD = os.environ.get("WAGGLE_BUILD") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "build")
CNI = os.path.join(BUILD, "cni", "waggle-cni")
MKPINS = os.path.join(BUILD, "selftests", "lib", "mkpins")
NS = f"wcni{os.getpid() % 100000}"
VERSIONS = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]
KILLS = int(os.environ.get("WAGGLE_CNI_KILLS", "100"))
passed = failed = 0


def sh(*cmd, check=True):
    res = subprocess.run(cmd, capture_output=True, text=True, check=False)
    if check and res.returncode != 0:
        raise AssertionError(f"{' '.join(cmd)}: {res.stdout}{res.stderr}".strip())
    return res.stdout


class World:
    """A node and its pods: network namespaces, a bpffs, a state dir."""

    def __init__(self):
        self.top = tempfile.mkdtemp(prefix="waggle-cni-")
        self.bpf = os.path.join(self.top, "bpf")
        self.pods = []
        os.mkdir(self.bpf)
        sh("mount", "-t", "bpf", "bpf", self.bpf)
        self.node = self.netns("node")
        sh("ip", "-n", self.node, "link", "set", "lo", "up")
        sh("ip", "-n", self.node, "addr", "add", "10.77.255.1/32", "dev", "lo")
        sh("ip", "-n", self.node, "addr", "add", "fd77:ff::1/128", "dev", "lo", "nodad")

    def netns(self, name):
        full = f"{NS}-{name}"
        sh("ip", "netns", "add", full)
        self.pods.append(full)
        return full

    def drop(self, name):
        sh("ip", "netns", "del", name)
        self.pods.remove(name)

    def close(self):
        for name in list(self.pods):
            sh("ip", "netns", "del", name, check=False)
        sh("umount", "-l", self.bpf, check=False)
        shutil.rmtree(self.top, ignore_errors=True)


class Node:
    """One pin dir and state dir in the world, and how its plugin is called."""

    def __init__(self, world, name, attach="tcx", v4="10.77.0.0/24", v6="fd77::/64"):
        self.world = world
        self.pins = os.path.join(world.bpf, name)
        self.state = os.path.join(world.top, "state-" + name)
        if attach:
            sh(MKPINS, self.pins, attach)
        ranges = [[{"subnet": s}] for s in (v4, v6) if s]
        self.conf = {"cniVersion": "1.0.0", "name": "waggle", "type": "waggle-cni",
                     "pinDir": self.pins, "stateDir": self.state, "ipam": {"ranges": ranges}}

    def start(self, command, cid="c1", netns="", conf=None, **env):
        netns = f"/run/netns/{netns}" if netns and "/" not in netns else netns
        full = {"CNI_COMMAND": command, "CNI_CONTAINERID": cid, "CNI_IFNAME": "eth0",
                "CNI_NETNS": netns, "CNI_PATH": "/", **env}
        # Not "ip netns exec": that gives a new /sys without our bpffs.
        proc = subprocess.Popen(["nsenter", f"--net=/run/netns/{self.world.node}", CNI],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                env={k: v for k, v in full.items() if v is not None})
        text = conf if isinstance(conf, (str, bytes)) else json.dumps({**self.conf, **(conf or {})})
        try:
            proc.stdin.write(text.encode() if isinstance(text, str) else text)
            proc.stdin.close()
        except BrokenPipeError:
            pass
        return proc

    def call(self, *args, **kw):
        """(exit code, JSON or None)"""
        proc = self.start(*args, **kw)
        out = proc.stdout.read()
        proc.stdout.close()
        return proc.wait(), json.loads(out) if out.strip() else None

    def ok(self, *args, **kw):
        code, out = self.call(*args, **kw)
        assert code == 0, f"{args[0]}: {out}"
        return out

    def error(self, want, *args, says="", **kw):
        code, out = self.call(*args, **kw)
        assert code == 1, f"exit {code}, {out}"
        assert out["code"] == want and out["msg"] and out["cniVersion"], out
        assert says in out["msg"], out
        return out

    def map(self, name):
        out = json.loads(sh("bpftool", "-j", "map", "dump", "pinned", f"{self.pins}/maps/{name}"))
        return len(out)

    def leased(self):
        found = []
        for top, _, names in os.walk(os.path.join(self.state, "ipam")):
            for name in names if top.endswith("/leases") else []:
                with open(os.path.join(top, name), encoding="utf-8") as f:
                    if f.read().startswith("leased"):
                        found.append(name)
        return found

    def leftovers(self):
        """Everything an attachment could leave, or an empty list."""
        found = [f"map {m}: {self.map(m)}" for m in ("wag_pods", "wag_endpoint", "wag_netns")
                 if os.path.exists(f"{self.pins}/maps/{m}") and self.map(m)]
        found += ["lease " + x for x in self.leased()]
        for where in (os.path.join(self.pins, "links"), os.path.join(self.state, "endpoints")):
            found += os.listdir(where) if os.path.isdir(where) else []
        links = json.loads(sh("ip", "-n", self.world.node, "-j", "link"))
        return found + [x["ifname"] for x in links if x["ifname"].startswith("wag")]

    def clean(self):
        left = self.leftovers()
        assert not left, f"left behind: {left}"


def ping(netns, addr):
    sh("ip", "netns", "exec", netns, "ping", "-c1", "-W2", addr)


def addresses(result):
    return [ip["address"].split("/")[0] for ip in result["ips"]]


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
    world.drop(pod)
    node.clean()


def test_errors(world):
    node, pod = Node(world, "errors"), world.netns("err")
    node.error(1, "ADD", "c", pod, conf={"cniVersion": "0.1.0"}, says="0.1.0")
    node.error(2, "ADD", "c", pod, conf={"ipam": {"subnet": "x"}}, says="ipam.subnet")
    node.error(2, "ADD", "c", pod, conf={"prevResult": {}}, says="first plugin")
    node.error(3, "ADD", "c", "/run/netns/none-such", says="none-such")
    node.error(4, "ADD", "c", "/proc/self/status", says="not a network namespace")
    node.error(4, "ADD", "c", world.node, says="node's own")
    node.error(4, "ADD", "", pod, says="CNI_CONTAINERID")
    node.error(4, "ADD", "../c", pod, says="CNI_CONTAINERID")
    node.error(4, "ADD", "c", pod, CNI_IFNAME="a/b", says="CNI_IFNAME")
    node.error(4, "ADD", "c", pod, CNI_IFNAME=None, says="CNI_IFNAME")
    node.error(4, "ADD", "c", "", says="CNI_NETNS")
    node.error(4, "ADD", "c", pod, CNI_ARGS="X=1", says="IgnoreUnknown=1")
    node.error(4, "FROBNICATE", says="FROBNICATE")
    node.error(5, "ADD", "c", pod, conf={"stateDir": "/proc/none/state"}, says="state dir")
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
    node = Node(world, "many")
    pods = [world.netns(f"many{i}") for i in range(50)]
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        out = list(pool.map(lambda i: node.ok("ADD", f"c{i}", pods[i]), range(50)))
        given = [a for r in out for a in addresses(r)]
        assert len(set(given)) == 100, "an address was given twice"
        assert node.map("wag_pods") == 100 and node.map("wag_endpoint") == 50
        for i in (0, 49):
            ping(pods[i], addresses(out[25])[i % 2])
        list(pool.map(lambda i: node.ok("DEL", f"c{i}", pods[i]), range(50)))
    for pod in pods:
        world.drop(pod)
    node.clean()


def test_same_container_at_once(world):
    node, pod = Node(world, "same"), world.netns("same")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        codes = [c for c, _ in pool.map(lambda _: node.call("ADD", "c", pod), range(8))]
    assert sorted(codes) == [0] + [1] * 7, codes
    node.ok("CHECK", "c", pod)
    node.ok("DEL", "c", pod)
    world.drop(pod)
    node.clean()


def test_kill_at_random_points(world):
    """Half of the killed ADDs are followed by DEL, half by the same ADD again."""
    node, pod = Node(world, "kill", v4="10.80.0.0/16"), world.netns("kill")
    rng = random.Random(7)
    interrupted = 0
    for i in range(KILLS):
        proc = node.start("ADD", f"c{i}", pod)
        time.sleep(rng.uniform(0, 0.008))
        proc.send_signal(signal.SIGKILL)
        proc.stdout.close()
        interrupted += proc.wait() == -signal.SIGKILL
        if i % 2:
            code, out = node.call("ADD", f"c{i}", pod)
            assert code == 0 or out["code"] == 100, out
            node.ok("CHECK", f"c{i}", pod)
        if i % 4 >= 2:
            proc = node.start("DEL", f"c{i}", pod)
            time.sleep(rng.uniform(0, 0.02))
            proc.send_signal(signal.SIGKILL)
            proc.stdout.close()
            proc.wait()
        node.ok("DEL", f"c{i}", pod)
        if i % 10 == 9:
            node.clean()
    world.drop(pod)
    node.clean()
    assert interrupted > KILLS / 4, f"only {interrupted} of {KILLS} were interrupted"


def test_check_sees_changes(world):
    node, pod = Node(world, "check"), world.netns("check")
    out = node.ok("ADD", "c", pod)
    v4 = addresses(out)[0]
    sh("ip", "-n", pod, "addr", "del", v4 + "/32", "dev", "eth0")
    node.error(102, "CHECK", "c", pod, says=v4)
    node.error(102, "CHECK", "c", pod, says="no default route via 169.254.1.1")
    node.ok("DEL", "c", pod)
    node.ok("ADD", "c", pod)
    node.ok("CHECK", "c", pod)
    sh("ip", "-n", pod, "link", "set", "eth0", "down")
    node.error(102, "CHECK", "c", pod, says="eth0")
    node.ok("DEL", "c", pod)
    world.drop(pod)


def timing(world):
    node, pod = Node(world, "time"), world.netns("time")
    took = {"VERSION": [], "ADD": [], "DEL": []}
    for i in range(20):
        for command, values in took.items():
            begin = time.perf_counter()
            node.ok(command, f"c{i}", pod)
            values.append((time.perf_counter() - begin) * 1000)
    world.drop(pod)
    text = ", ".join(f"{c} {statistics.median(v):.1f} ms" for c, v in took.items())
    print(f"median with nsenter and fork: {text}")


TESTS = [
    ("ping both families, tcx", lambda w: test_ping_both_families(w, "tcx")),
    ("ping both families, clsact", lambda w: test_ping_both_families(w, "clsact")),
    ("result shapes of each version", test_result_shapes),
    ("errors", test_errors),
    ("answers 11 without pins", test_again_without_pins),
    ("ADD twice", test_add_twice),
    ("DEL is idempotent", test_del_is_idempotent),
    ("DEL after a lost state dir", test_del_after_a_lost_state_dir),
    ("single family", test_single_family),
    ("pod with IPv6 switched off", test_pod_with_ipv6_switched_off),
    ("exhausted range", test_exhausted_range),
    ("50 at once", test_concurrent),
    ("one container eight times at once", test_same_container_at_once),
    (f"kill -9 at {KILLS} random points", test_kill_at_random_points),
    ("CHECK sees changes", test_check_sees_changes),
]


def main():
    global passed, failed
    if os.geteuid() != 0:
        print("skipped: cni: needs root")
        return 0
    for name, test in TESTS:
        world = World()
        try:
            test(world)
            passed += 1
            print(f"ok cni: {name}", flush=True)
        except (AssertionError, OSError, ValueError, KeyError, TypeError) as e:
            failed += 1
            line = e.__traceback__.tb_next.tb_lineno if e.__traceback__.tb_next else 0
            print(f"FAIL cni: {name}: line {line}: {e}", flush=True)
        finally:
            world.close()
    if not failed:
        world = World()
        try:
            timing(world)
        finally:
            world.close()
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
