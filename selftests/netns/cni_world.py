# SPDX-License-Identifier: Apache-2.0
"""A node and its pods for tests of waggle-cni: namespaces, a bpffs with stand-in programs, a state
dir, and how the plugin is called. Needs root."""
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from pinned import PinnedMap                                            # noqa: E402

BUILD = os.environ.get("WAGGLE_BUILD") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "build")
CNI = os.path.join(BUILD, "cni", "waggle-cni")
MKPINS = os.path.join(BUILD, "selftests", "lib", "mkpins")
NS = f"wcni{os.getpid() % 100000}"
MAPS = ("wag_pods", "wag_endpoint", "wag_netns", "wag_hostport", "wag_limit")
VERSIONS = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]


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

    @staticmethod
    def full(name):
        return f"{NS}-{name}"

    def netns(self, name):
        full = self.full(name)
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

    def __init__(self, world, name, attach="clsact", v4="10.77.0.0/24", v6="fd77::/64"):
        self.world = world
        self.pins = os.path.join(world.bpf, name)
        self.state = os.path.join(world.top, "state-" + name)
        self.attach = attach
        self.addrs = []
        if attach:
            self.pin()
        ranges = [[{"subnet": s}] for s in (v4, v6) if s]
        self.conf = {"cniVersion": "1.0.0", "name": "waggle", "type": "waggle-cni",
                     "pinDir": self.pins, "stateDir": self.state, "ipam": {"ranges": ranges}}

    def pin(self):
        sh(MKPINS, self.pins, self.attach)

    def set_mtu(self, mtu, route_mtu):
        """What the agent found out of the node."""
        key, meta = self.entries("wag_meta")[0]
        self.put("wag_meta", key, meta[:20] + struct.pack("<II", mtu, route_mtu) + meta[28:])

    def delete(self, name, key):
        PinnedMap(self.pins, name).delete(key)

    def start(self, command, cid="c1", netns="", conf=None, then=None,
              stdout=subprocess.PIPE, **env):
        """then: what a shell asks the moment the plugin is done."""
        netns = f"/run/netns/{netns}" if netns and "/" not in netns else netns
        full = {"CNI_COMMAND": command, "CNI_CONTAINERID": cid, "CNI_IFNAME": "eth0",
                "CNI_NETNS": netns, "CNI_PATH": "/", **env}
        if command in ("GC", "STATUS", "VERSION"):
            full = {"CNI_COMMAND": command, "CNI_PATH": "/", **env}
        argv = ["sh", "-c", f"{CNI} && {then}", "sh", "0"] if then else [CNI]
        # Not "ip netns exec": that gives a new /sys without our bpffs.
        proc = subprocess.Popen(["nsenter", f"--net=/run/netns/{self.world.node}", *argv],
                                stdin=subprocess.PIPE, stdout=stdout,
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

    def entries(self, name):
        return PinnedMap(self.pins, name).entries()

    def put(self, name, key, value):
        PinnedMap(self.pins, name).put(key, value)

    def limit(self, direction):
        """The one pod's entry of wag_limit; 0: what it sends, 1: what it receives."""
        return next(e for e in self.entries("wag_limit") if e[0][4] == direction)

    def map(self, name):
        return len(self.entries(name))

    def gc(self, *alive, conf=None, **kw):
        """alive: (container id, interface) pairs, or container ids."""
        pairs = [a if isinstance(a, tuple) else (a, "eth0") for a in alive]
        keep = [{"containerID": c, "ifname": i} for c, i in pairs]
        return self.call("GC", conf={"cniVersion": "1.1.0", **(conf or {}),
                                     "cni.dev/valid-attachments": keep}, **kw)

    def status(self, **conf):
        """The error code of STATUS; 0: ready."""
        code, out = self.call("STATUS", conf={"cniVersion": "1.1.0", **conf})
        assert (code == 0) == (out is None), f"exit {code}, {out}"
        return (0, "") if code == 0 else (out["code"], out["msg"])

    def records(self):
        """What is known on disk of each attachment, by container id."""
        where = os.path.join(self.state, "endpoints")
        found = {}
        for name in os.listdir(where) if os.path.isdir(where) else []:
            if name.endswith(".json"):
                with open(os.path.join(where, name), encoding="utf-8") as f:
                    record = json.load(f)
                found[record["container_id"]] = record
        return found

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
        found = [f"map {m}: {self.map(m)}" for m in MAPS
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


def addr_key(text):
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, text)


def run_tests(part, tests):
    """Prints a line a test, each in a world of its own; the exit code."""
    passed = failed = 0
    if os.geteuid() != 0:
        print(f"skipped: {part}: needs root")
        return 0
    for name, test in tests:
        world = World()
        try:
            why = test(world)
            if why:
                print(f"skipped: {part}: {name}: {why}", flush=True)
            else:
                passed += 1
                print(f"ok {part}: {name}", flush=True)
        except Exception as e:
            failed += 1
            line = e.__traceback__.tb_next.tb_lineno if e.__traceback__.tb_next else 0
            print(f"FAIL {part}: {name}: line {line}: {type(e).__name__} "
                  f"{' '.join(str(e).split())}", flush=True)
        finally:
            world.close()
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0
