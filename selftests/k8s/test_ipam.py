#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whose addresses are whose: agents that claim blocks from one API server, lose it, and come back.

  test_ipam.py [TEST ...]
"""
import ipaddress
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from fake_apiserver import FakeApiServer, raw_socket, status            # noqa: E402

BUILD = os.environ.get("WAGGLE_BUILD", os.path.join(HERE, "..", "..", "build"))
DRIVER = os.path.join(BUILD, "selftests", "k8s", "ipam_driver")
DEADLINE_S = 30
NS = "kube-system"
LEASES = f"/namespaces/{NS}/leases"
POOL = ("ipam=cluster-pool", "v4=10.5.0.0/20", "gc_delay_ms=50", "relist_ms=600000")
SCRATCH = tempfile.TemporaryDirectory(prefix="waggle-ipam-")

with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
    BOOT = boot.read().strip()


def until(true, what, seconds=DEADLINE_S):
    end = time.monotonic() + seconds
    while True:
        got = true()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"never came: {what() if callable(what) else what}")
        time.sleep(0.01)


class Agent:
    """One node's driver, its state folder, and what it has said so far."""

    def __init__(self, server, name, *args, state=None, url=None):
        self.server, self.name, self.args = server, name, args
        self.url = url or server.url
        self.state = state or tempfile.mkdtemp(dir=SCRATCH.name)
        self.logs, self.proc = [], None
        self.start()

    def start(self):
        account = tempfile.mkdtemp(dir=SCRATCH.name)
        for name in ("token", "ca.crt"):
            with open(os.path.join(account, name), "w", encoding="ascii") as f:
                f.write("tok\n" if name == "token" else "")
        self.proc = subprocess.Popen(
            [DRIVER, self.url, self.name, self.state, *self.args], text=True,
            stdout=subprocess.PIPE, env=dict(os.environ, SA_DIR=account))
        threading.Thread(target=self.pump, args=(self.proc,), daemon=True).start()

    def pump(self, proc):
        for line in proc.stdout:
            self.logs.append(line.rstrip("\n"))

    def stop(self):
        self.proc.terminate()
        if self.proc.wait(DEADLINE_S) != 0:
            raise AssertionError(f"the driver ended with {self.proc.returncode}: {self.logs[-5:]}")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()

    @property
    def file(self):
        return os.path.join(self.state, "ipam", "node.json")

    def node_json(self):
        try:
            with open(self.file, encoding="ascii") as f:
                return json.load(f)
        except FileNotFoundError:
            return None

    def ranges(self):
        found = self.node_json()
        return [cidr for family in found["ranges"] for cidr in family] if found else []

    def until_ranges(self, n=1):
        return until(lambda: len(self.ranges()) == n and self.ranges(),
                     lambda: f"{n} ranges of {self.name}: {self.ranges()} {self.logs[-4:]}")

    def until_log(self, text, times=1):
        until(lambda: sum(text in line for line in list(self.logs)) >= times,
              lambda: f"log {text!r} {times} times: {self.logs[-6:]}")

    def until_stat(self, **want):
        words = [f"{k}={v}" for k, v in want.items()]

        def ask():
            self.proc.send_signal(signal.SIGUSR2)
            stats = [line for line in list(self.logs) if line.startswith("stats ")]
            return stats and all(w in stats[-1].split() for w in words)
        until(ask, lambda: f"{words}: {[x for x in self.logs if x.startswith('stats')][-1:]}")

    def pods(self, cidr, n, word="leased"):
        """n leases in the range, written as the CNI plugin would; the others are released."""
        net = ipaddress.ip_network(cidr)
        folder = os.path.join(self.state, "ipam", cidr.replace("/", "-"), "leases")
        os.makedirs(folder, exist_ok=True)
        now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        for i in range(n):
            with open(os.path.join(folder, str(net[2 + i])), "w", encoding="ascii") as f:
                f.write(f"{word} {BOOT} {now} pod{i} eth0\n")
        self.proc.send_signal(signal.SIGUSR1)


def add_node(server, name, **spec):
    return server.store.apply("nodes", {"metadata": {"name": name, "uid": str(uuid.uuid4())},
                                        "spec": spec})


def node_of(server, name):
    return server.store.objects["nodes"][("", name)][0]


def published(server, name):
    return (node_of(server, name)["metadata"].get("annotations") or {}).get("waggle.io/pod-cidrs")


def leases(server):
    return {name: obj for (_, name), (obj, _) in dict(server.store.objects["leases"]).items()}


def block_of(lease):
    return lease["metadata"]["annotations"]["waggle.io/block"]


def blocks_of(server, node):
    return sorted(block_of(x) for x in leases(server).values()
                  if x["spec"]["holderIdentity"] == node)


def make_lease(block, node, uid=None):
    net = ipaddress.ip_network(block)
    name = "waggle-ipam-" + block.replace(".", "-").replace(":", "-").replace("/", "-")
    return {"metadata": {"name": name, "namespace": NS,
                         "labels": {"waggle.io/ipam": f"v{net.version}-{net.prefixlen}",
                                    "waggle.io/node": node},
                         "annotations": {"waggle.io/block": block},
                         "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node,
                                              "uid": uid or str(uuid.uuid4())}]},
            "spec": {"holderIdentity": node}}


def expect(true, *what):
    if not true:
        raise AssertionError(" ".join(str(w) for w in what))


def disjoint(cidrs):
    nets = [ipaddress.ip_network(c) for c in cidrs]
    return not any(a.version == b.version and a.overlaps(b)
                   for i, a in enumerate(nets) for b in nets[:i])


# ---- claiming ----

def test_twenty_agents_race_for_twenty_blocks():
    names = [f"n{i}" for i in range(20)]
    with FakeApiServer() as server:
        for name in names:
            add_node(server, name)
        agents = [Agent(server, name, "ipam=cluster-pool", "v4=10.5.0.0/20,10.6.0.0/22",
                        "v6=fd00:5::/118", "v6mask=124", "gc_delay_ms=50") for name in names]
        try:
            for agent in agents:
                agent.until_ranges(2)
            everything = [c for agent in agents for c in agent.ranges()]
            expect(len(everything) == 40 and disjoint(everything), everything)
            expect(sorted(everything) == sorted(block_of(x) for x in leases(server).values()),
                   "the Leases say something else")
            for agent in agents:
                until(lambda a=agent: published(server, a.name) == ",".join(a.ranges()),
                      lambda a=agent: f"{a.name} published {published(server, a.name)}")
                for lease in leases(server).values():
                    owner = lease["metadata"]["ownerReferences"][0]
                    expect(owner["uid"] == node_of(server, owner["name"])["metadata"]["uid"],
                           lease)
            conflicts = server.count("POST", LEASES) - 40
            expect(conflicts > 0, "they never met")
            for agent in agents:
                agent.stop()
        finally:
            for agent in agents:
                agent.__exit__()
    return f"{conflicts} conflicts"


def test_restart_keeps_blocks():
    with FakeApiServer() as server:
        add_node(server, "n1")
        with Agent(server, "n1", *POOL) as a:
            first = a.until_ranges()
            until(lambda: published(server, "n1") == first[0], "the annotation")
            posts = server.count("POST", LEASES)
            before = leases(server)
            a.stop()
            a.logs.clear()
            a.start()
            until(lambda: server.count(LEASES, "waggle.io%2Fnode") == 2, "its own Leases listed")
            a.until_stat(blocks0=1)
            # Without its record it still knows them: by its Leases.
            a.stop()
            os.unlink(a.file)
            a.start()
            expect(a.until_ranges() == first, a.ranges())
            expect(server.count("POST", LEASES) == posts and leases(server) == before,
                   "claimed anew")


def test_lost_answer_claims_no_second_block():
    with FakeApiServer() as server:
        add_node(server, "n1")

        def create_and_hang_up(handler):
            server.store.create("leases", handler.sent)
            handler.close_connection = True
        server.fault(f"POST /apis/coordination.k8s.io/v1{LEASES}", create_and_hang_up)
        with Agent(server, "n1", *POOL) as a:
            a.until_ranges()
            a.until_stat(blocks0=1, conflicts=0)
            expect(blocks_of(server, "n1") == a.ranges(), leases(server))


def test_errors_then_recovery():
    cases = [status(500, "Sick", "x"), status(403, "Forbidden", "no leases for you"),
             status(429, "TooManyRequests", "later", [("Retry-After", "1")]), raw_socket(b""),
             raw_socket(b"garbage\0\n\n"), status(503, "Down", "down")]
    with FakeApiServer() as server:
        add_node(server, "n1")
        for run in cases:
            server.fault(f"POST /apis/coordination.k8s.io/v1{LEASES}", run)
        for run in cases:
            server.fault("/leases?limit", run)
        server.fault("PATCH /api/v1/nodes/n1", status(403, "Forbidden", "no patch"), times=2)
        with Agent(server, "n1", *POOL) as a:
            a.until_ranges()
            a.until_log("HTTP 403 Forbidden: no leases for you; grant it: docs/ipam.md")
            a.until_log("HTTP 429 TooManyRequests: later")
            a.until_log("address blocks: fine again")
            a.until_log("other nodes are not told of this node's pod ranges: PATCH "
                        "/api/v1/nodes/n1: HTTP 403 Forbidden: no patch")
            until(lambda: published(server, "n1") == a.ranges()[0], "the annotation at last")
            expect(len(leases(server)) == 1, leases(server))


def test_block_of_another_size_is_left_alone():
    """Agents of different settings: no Lease of the same name warns them."""
    with FakeApiServer() as server:
        add_node(server, "n1")
        add_node(server, "old")
        server.store.apply("leases", make_lease("10.5.0.128/25", "old", node_of(
            server, "old")["metadata"]["uid"]))
        pool = ("ipam=cluster-pool", "v4=10.5.0.0/23", "gc_delay_ms=50")
        agents = []
        try:
            # Two names, as a name may happen to begin with the other block.
            for name in ("n1", "n2", "n3", "n4"):
                add_node(server, name)
                agents.append(Agent(server, name, *pool))
            until(lambda: any(a.ranges() for a in agents), "a block")
            for a in agents:
                until(lambda a=a: a.ranges() or any("no block of /24 is free" in x
                                                    for x in list(a.logs)), "an end")
            got = [a.ranges() for a in agents if a.ranges()]
            expect(got == [["10.5.1.0/24"]], got)
            expect(any("overlaps 10.5.0.128/25 of node old: giving it back" in x
                       for a in agents for x in a.logs), "none met the other block")
            until(lambda: sorted(map(block_of, leases(server).values()))
                  == ["10.5.0.128/25", "10.5.1.0/24"], lambda: sorted(leases(server)))
        finally:
            for a in agents:
                a.__exit__()


def test_full_pool_waits_for_a_free_block():
    with FakeApiServer() as server:
        add_node(server, "n1")
        add_node(server, "n2")
        uid = node_of(server, "n2")["metadata"]["uid"]
        for block in ("10.5.0.0/24", "10.5.1.0/24"):
            server.store.apply("leases", make_lease(block, "n2", uid))
        with Agent(server, "n1", "ipam=cluster-pool", "v4=10.5.0.0/23", "relist_ms=500") as a:
            a.until_log("no block of /24 is free in --cluster-pool-ipv4-cidr (2 are taken)")
            expect(a.node_json() is None, a.node_json())
            server.store.delete("leases", NS, "waggle-ipam-10-5-1-0-24")
            expect(a.until_ranges() == ["10.5.1.0/24"], a.ranges())


def test_blocks_of_services_and_nodes_are_not_claimed():
    with FakeApiServer() as server:
        add_node(server, "n1")
        node = node_of(server, "n1")
        server.store.apply("nodes", dict(node, status={"addresses": [
            {"type": "InternalIP", "address": "10.5.2.9"}]}))
        for i in (0, 1):
            server.store.apply("services", {"metadata": {"name": f"s{i}", "namespace": "t"},
                                            "spec": {"clusterIP": f"10.5.{i}.1",
                                                     "ports": [{"port": 80}]}})
        with Agent(server, "n1", "ipam=cluster-pool", "v4=10.5.0.0/22") as a:
            expect(a.until_ranges() == ["10.5.3.0/24"], a.ranges())


# ---- nodes that go and come ----

def test_blocks_are_freed_when_a_node_goes():
    with FakeApiServer() as server:
        for name in ("n1", "n2", "n3"):
            add_node(server, name)
        with Agent(server, "n1", *POOL) as a, Agent(server, "n2", *POOL) as b:
            a.until_ranges()
            gone = b.until_ranges()
            b.stop()
            server.store.apply("leases", make_lease("10.5.15.0/24", "n3"))
            server.store.delete("nodes", "", "n2")
            until(lambda: not blocks_of(server, "n2"), "the freed block")
            a.until_log(f"address block {gone[0]} of node n2 is free: the Node is gone")
            expect(blocks_of(server, "n3") == ["10.5.15.0/24"], "freed the block of a Node")
            expect(blocks_of(server, "n1") == a.ranges(), leases(server))
            # The model may be behind: the server's own word counts.
            server.fault("/api/v1/nodes/n3", status(200), times=100)
            server.store.delete("nodes", "", "n3")
            until(lambda: server.count("/api/v1/nodes/n3"), "a question before deleting")
            expect(blocks_of(server, "n3") == ["10.5.15.0/24"], "freed without asking")
            expect(server.count("DELETE") == 1, server.requests)


def test_blocks_of_nodes_gone_before_the_start_are_freed():
    with FakeApiServer() as server:
        add_node(server, "n1")
        for i in range(4):
            server.store.apply("leases", make_lease(f"10.5.{i}.0/24", f"gone{i % 2}"))
        with Agent(server, "n1", *POOL, "gc_sweep_ms=2000") as a:
            a.until_ranges()
            until(lambda: len(leases(server)) == 1, lambda: sorted(leases(server)))


def test_a_lease_written_in_between_stays():
    """The node comes back just as another agent frees its block."""
    with FakeApiServer() as server:
        add_node(server, "n1")
        add_node(server, "n2")
        server.store.apply("leases", make_lease("10.5.7.0/24", "n2"))

        def answer_late(handler):
            server.store.apply("leases", make_lease("10.5.7.0/24", "n2"))
            status(404, "NotFound", "not found")(handler)
        server.fault("/api/v1/nodes/n2", answer_late)
        with Agent(server, "n1", *POOL) as a:
            a.until_ranges()
            server.store.delete("nodes", "", "n2")
            until(lambda: server.count("DELETE"), "an attempt")
            until(lambda: a.until_stat(blocks0=1) or True, "the agent still runs")
            expect(blocks_of(server, "n2") == ["10.5.7.0/24"], "freed what was written anew")


def test_node_that_comes_back_keeps_its_block():
    with FakeApiServer() as server:
        add_node(server, "n1")
        with Agent(server, "n1", *POOL) as a:
            block = a.until_ranges()
            until(lambda: published(server, "n1"), "the annotation")
            server.store.delete("nodes", "", "n1")
            new = add_node(server, "n1")["metadata"]["uid"]

            def owner():
                found = list(leases(server).values())
                return len(found) == 1 and found[0]["metadata"]["ownerReferences"][0]["uid"] == new
            until(owner, lambda: f"the new owner: {leases(server)}")
            until(lambda: published(server, "n1") == block[0], "the annotation again")
            # Now the garbage collector was faster.
            server.store.delete("nodes", "", "n1")
            for name in list(leases(server)):
                server.store.delete("leases", NS, name)
            new = add_node(server, "n1")["metadata"]["uid"]
            until(owner, lambda: f"the block again: {leases(server)}")
            expect(a.ranges() == block and blocks_of(server, "n1") == block, a.ranges())


def test_block_lost_to_another_node():
    with FakeApiServer() as server:
        add_node(server, "n1")
        add_node(server, "n2")
        with Agent(server, "n1", *POOL, "v4=10.5.0.0/20") as a:
            block = a.until_ranges()[0]
            a.pods(block, 3)
            a.until_stat(used0=3)
            a.stop()
            server.store.delete("leases", NS, next(iter(leases(server))))
            server.store.apply("leases", make_lease(block, "n2"))
            a.start()
            a.until_log(f"address block {block} is not this node's any more")
            a.until_log("it is kept until the 3 pods with addresses of it are gone")
            until(lambda: a.ranges() and block not in a.ranges(), "another block")
            expect(a.node_json()["draining"] == [block], a.node_json())
            until(lambda: published(server, "n1") == ",".join(a.ranges()), "the annotation")
            a.pods(block, 0)
            a.until_log(f"pod range {block}: its last pod is gone")
            until(lambda: "draining" not in a.node_json(), "the end of it")


# ---- how full ----

def events(server):
    return [obj for obj, _ in list(server.store.objects["events"].values())]


def test_second_block_and_event_at_80_percent():
    with FakeApiServer() as server:
        add_node(server, "n1")
        with Agent(server, "n1", *POOL, "v4mask=27") as a:         # 29 addresses a block
            first = a.until_ranges()
            a.pods(first[0], 23)                                   # 79 %
            a.until_stat(used0=23, capacity0=29)
            expect(len(a.ranges()) == 1 and not events(server), "too early")
            a.pods(first[0], 24)                                   # 82 %
            both = a.until_ranges(2)
            expect(both[0] == first[0] and disjoint(both), both)
            until(lambda: events(server), "the Event")
            event = events(server)[0]
            node = node_of(server, "n1")["metadata"]
            expect(event["type"] == "Warning" and event["reason"] == "IPAMNearlyFull", event)
            expect(event["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "n1",
                                               "uid": node["uid"]}, event)
            expect("82 % of the 29 IPv4 pod addresses of node n1" in event["message"], event)
            expect(event["metadata"]["namespace"] == "default", event)
            until(lambda: published(server, "n1") == ",".join(both), "both in the annotation")
            a.until_stat(blocks0=2, capacity0=58)
            expect(len(events(server)) == 1 and len(leases(server)) == 2, events(server))
            a.stop()
            a.start()                                              # and both are kept
            a.until_stat(blocks0=2, used0=24)
            expect(a.ranges() == both and len(leases(server)) == 2, a.ranges())


def test_event_once_until_it_is_calm_again():
    with FakeApiServer() as server:
        add_node(server, "n1", podCIDRs=["10.5.0.0/27"])
        server.fault("POST /api/v1/namespaces/default/events", status(500, "Sick", "x"))
        with Agent(server, "n1") as a:
            block = a.until_ranges()[0]
            for n, total in ((24, 1), (28, 1), (21, 1), (26, 1), (19, 1), (24, 2)):
                a.pods(block, n)                          # 21: 72 %, not calm; 19: 65 %, calm
                a.until_stat(used0=n)
                until(lambda t=total: len(events(server)) == t, lambda: f"{n}: {events(server)}")
            a.until_log("give the node a larger range, or fewer pods", 2)


def test_quarantine_counts():
    with FakeApiServer() as server:
        add_node(server, "n1", podCIDRs=["10.5.0.0/27", "fd00:5::/64"])
        with Agent(server, "n1") as a:
            a.until_ranges(2)
            a.pods("10.5.0.0/27", 5, "released")
            a.until_stat(quarantined0=5, used0=0, capacity0=29, capacity1=2 ** 64 - 3)


# ---- the Node's own ranges ----

def test_pod_cidrs_of_the_node():
    with FakeApiServer() as server:
        node = add_node(server, "n1", podCIDRs=["10.5.3.0/24", "fd00:5:3::/64", "10.5.9.0/24",
                                                "10.5.4.1/24"])
        add_node(server, "n2", podCIDRs=["10.5.8.0/24"])
        node["metadata"]["annotations"] = {"waggle.io/pod-cidrs": "10.7.7.0/24"}
        server.store.apply("nodes", node)
        with Agent(server, "n1") as a:
            a.until_ranges(3)
            expect(a.node_json() == {"mode": "kubernetes",
                                     "ranges": [["10.5.3.0/24", "10.5.9.0/24"], ["fd00:5:3::/64"]]},
                   a.node_json())
            a.until_log("pod range 10.5.4.1/24 is not used: it has host bits set")
            expect(published(server, "n1") is None, "a block of another mode is still published")
            a.pods("10.5.3.0/24", 2)
            a.until_stat(used0=2)
            node = node_of(server, "n1")
            server.store.apply("nodes", dict(node, spec={"podCIDRs": ["10.5.5.0/24"]}))
            a.until_ranges(1)
            expect(a.node_json() == {"mode": "kubernetes", "ranges": [["10.5.5.0/24"]],
                                     "draining": ["10.5.3.0/24"]}, a.node_json())
            a.until_log("pod range 10.5.3.0/24 is not this node's any more")
            a.pods("10.5.3.0/24", 0)
            until(lambda: "draining" not in a.node_json(), "the end of it")
            server.store.apply("nodes", dict(node, spec={}))
            a.until_log("Node n1 has no spec.podCIDRs: start kube-controller-manager with")
            server.store.delete("nodes", "", "n1")
            a.until_stat(blocks0=1)
            expect(a.ranges() == ["10.5.5.0/24"], "a Node without ranges takes none away")
            expect(not server.count("POST") and not leases(server), server.requests)


def test_api_server_down():
    with FakeApiServer() as server:
        add_node(server, "n1", podCIDRs=["10.5.3.0/24"])
        with Agent(server, "n1") as a:
            a.until_ranges()
            a.stop()
    before = a.node_json()
    for args in ((), POOL):
        with FakeApiServer() as dead:
            url = dead.url
        with Agent(None, "n1", *args, state=a.state, url=url) as b:
            b.until_log("list nodes")
            b.pods("10.5.3.0/24", 3)
            b.until_stat(used0=3)
            expect(b.node_json() == before, b.node_json())
            b.pods("10.5.3.0/24", 0)
            b.stop()


def main():
    failed = 0
    wanted = sys.argv[1:]
    for name, test in list(globals().items()):
        if not name.startswith("test_") or (wanted and name not in wanted):
            continue
        try:
            said = test()
            print(f"ok k8s: ipam: {name[5:].replace('_', ' ')}" + (f" ({said})" if said else ""),
                  flush=True)
        except (AssertionError, OSError, subprocess.SubprocessError) as e:
            failed += 1
            print(f"FAIL k8s: ipam: {name[5:].replace('_', ' ')}: {e!r}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
