# SPDX-License-Identifier: Apache-2.0
"""How long a change of policies takes to count for a connection that lives, among 10,000 Pods and
1,000 NetworkPolicies."""
import os
import random
import subprocess
import time

from forwarding import NODE_IP
from scale_server import NAMESPACES, NETWORKPOLICIES, PODS, THIS_NODE, meta
from scale_world import World
from topology import BenchError, ns_path
from waggle import cni_add

PORT = 7777
TEAMS = 50
APPS = 10
PODS_OF_A_NODE = 100
SUBNET = "10.244.0.0/24"
MOST_MS = {"policy_p99_ms": 20, "namespace_worst_ms": 100}


class Cluster:
    """Its objects. Namespace big has a tenth of the Pods; the client is one of them."""

    def __init__(self, pods, policies):
        self.pods = pods
        self.nodes = -(-pods // PODS_OF_A_NODE)
        self.objects = {
            "/api/v1/nodes": [self.node(n) for n in range(self.nodes)],
            NAMESPACES: [self.big(True)] + [self.team(k) for k in range(TEAMS)],
            PODS: [self.pod(i) for i in range(pods)],
            NETWORKPOLICIES: [self.gate(True)] + [self.policy(i) for i in range(1, policies)]}
        self.local = [p for p in self.objects[PODS] if p["spec"]["nodeName"] == THIS_NODE]
        self.client, self.server = self.local[0], self.local[-1]

    @staticmethod
    def node(n):
        cidr = f"10.244.{n}.0/24"
        return {"metadata": {"name": f"node-{n:04d}", "uid": "x", "resourceVersion": "1"},
                "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
                "status": {"addresses": [{"type": "InternalIP", "address": NODE_IP if n == 0 else
                                          f"10.90.1.{n}"}]}}

    @staticmethod
    def namespace(name, labels):
        return {"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "uid": "x", "resourceVersion": "1",
                             "labels": {"kubernetes.io/metadata.name": name, **labels}}}

    def big(self, opened):
        return self.namespace("big", {"open": "yes" if opened else "no"})

    def team(self, k):
        return self.namespace(f"team-{k}", {"team": str(k)})

    def pod(self, i):
        """Those of this node get their address from its plugin."""
        n = i % self.nodes
        about = meta(f"pod-{i}", {"app": f"app-{i // TEAMS % APPS}",
                                  "pod-template-hash": f"{i % 997:x}",
                                  "role": "server" if i == self.pods - self.nodes else "other"},
                     i + 10)
        if i < self.pods // 10:
            about["namespace"] = "big"
        status = {"phase": "Running"}
        if n:
            ip = f"10.244.{n}.{2 + i // self.nodes}"
            status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
        return {"metadata": about, "status": status,
                "spec": {"nodeName": f"node-{n:04d}", "containers": [
                    {"name": "c", "ports": [{"name": "http", "containerPort": 8080,
                                             "protocol": "TCP"}]}]}}

    @staticmethod
    def network_policy(name, namespace, spec):
        return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec,
                "metadata": {"name": name, "namespace": namespace, "uid": f"u-{name}",
                             "resourceVersion": "1"}}

    def policy(self, i):
        """Of an app in a namespace: another app of another namespace, and some addresses."""
        app = i // TEAMS % APPS
        peers = [{"namespaceSelector": {"matchLabels": {"team": str(i * 7 % TEAMS)}},
                  "podSelector": {"matchLabels": {"app": f"app-{(app + 1) % APPS}"}}}]
        if i % 5 == 0:
            peers.append({"ipBlock": {"cidr": f"198.51.{i // 5 % 256}.0/24",
                                      "except": [f"198.51.{i // 5 % 256}.{i % 200}/32"]}})
        return self.network_policy(f"policy-{i}", f"team-{i % TEAMS}", {
            "podSelector": {"matchLabels": {"app": f"app-{app}"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": peers, "ports": [
                {"protocol": "TCP", "port": "http" if i % 3 == 0 else 8000 + i % 100},
                {"protocol": "UDP", "port": 53}]}]})

    def gate(self, opened):
        """The one that says whether the client reaches the server."""
        rule = {"from": [{"namespaceSelector": {"matchLabels": {"open": "yes"}}}],
                "ports": [{"protocol": "UDP", "port": PORT}]}
        at = self.pods - self.nodes
        return self.network_policy("gate", f"team-{at % TEAMS}", {
            "podSelector": {"matchLabels": {"role": "server"}}, "policyTypes": ["Ingress"],
            "ingress": [rule] if opened else []})

    def mute(self):
        """The client's pods reach nobody."""
        return self.network_policy("mute", "big", {
            "podSelector": {"matchLabels": {"app": self.client["metadata"]["labels"]["app"]}},
            "policyTypes": ["Egress"]})


class PolicyWorld(World):
    def __init__(self, args):
        self.cluster = Cluster(args.pods, args.policies)
        super().__init__(args, self.cluster.objects)
        self.node.pods = [f"{self.node.name}-{i}" for i in range(len(self.cluster.local))]

    def argv(self):
        return [*super().argv(), "--routing-mode=native", "--auto-direct-node-routes=false"]

    def add_pods(self):
        for name, pod in zip(self.node.pods, self.cluster.local):
            about = pod["metadata"]
            result = cni_add(self.args.build, self.node.node, self.pins,
                             os.path.join(self.dir, "state"), name, about["namespace"],
                             about["name"], SUBNET)
            self.node.addresses.append(result["ips"][0]["address"].split("/")[0])

    def watch(self, path):
        self.until(f"a watch of {path}", lambda: path in self.server.watches)
        return self.server.watches[path]


class Probe:
    """bench_probe between the client and the server."""

    def __init__(self, world):
        node = world.node
        argv = [world.tool("selftests", "bench", "bench_probe"), "--from-ns",
                ns_path(node.pods[0]), "--to-ns", ns_path(node.pods[-1]), "--to-addr",
                node.addresses[-1], "--port", str(PORT), "--cpu", str(world.args.cpu)]
        if not world.args.no_fifo:
            argv.append("--fifo")
        self.proc = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                     bufsize=1)

    def ask(self, what, ms=3000):
        self.proc.stdin.write(f"until {what} {ms}\n")

    def answer(self):
        """(ns, us of the longest pause)"""
        line = self.proc.stdout.readline().split()
        if len(line) != 2:
            raise BenchError("the connection did not follow a change in 3 s")
        return int(line[0]), int(line[1])

    def close(self):
        self.proc.stdin.close()
        self.proc.wait()


class Changes:
    """Each is one write, and what follows it: drop or pass."""

    def __init__(self, world):
        self.world = world
        self.policies, self.namespaces = (world.watch(p) for p in (NETWORKPOLICIES, NAMESPACES))
        c = world.cluster
        self.kinds = {
            "policy": [(self.policies, "MODIFIED", c.gate(False), "drop"),
                       (self.policies, "MODIFIED", c.gate(True), "pass"),
                       (self.policies, "ADDED", c.mute(), "drop"),
                       (self.policies, "DELETED", c.mute(), "pass")],
            "namespace": [(self.namespaces, "MODIFIED", c.big(False), "drop"),
                          (self.namespaces, "MODIFIED", c.big(True), "pass")]}

    def measure(self, probe, kind, rng, gaps):
        """Milliseconds of each of the changes, one after the other."""
        took = []
        for sock, event, obj, what in self.kinds[kind]:
            chunk = self.world.server.change(event, obj)
            time.sleep(rng.uniform(0.002, 0.02))
            probe.ask(what)
            at = time.monotonic_ns()
            sock.sendall(chunk)
            ns, gap = probe.answer()
            took.append((ns - at) / 1e6)
            gaps.append(gap)
        return took


def spread_ms(name, values):
    values = sorted(values)
    return {f"{name}_p50_ms": values[len(values) // 2],
            f"{name}_p99_ms": values[len(values) * 99 // 100], f"{name}_worst_ms": values[-1]}


def measure(args):
    rng, gaps = random.Random(1), []
    with PolicyWorld(args) as world:
        world.start()
        world.until("the first sync", lambda: "synced: " in world.log())
        world.add_pods()
        world.fifo()
        probe = Probe(world)
        try:
            probe.ask("pass", 30000)
            probe.answer()
            changes = Changes(world)
            took = {"policy": [], "namespace": []}
            for n in range(args.changes):
                took["policy"] += changes.measure(probe, "policy", rng, gaps)
                if n % 2 == 0:
                    took["namespace"] += changes.measure(probe, "namespace", rng, gaps)
        finally:
            probe.close()
    values = {}
    for kind, ms in took.items():
        values |= spread_ms(kind, ms)
    gaps.sort()
    return values | {"pause_p50_us": gaps[len(gaps) // 2], "pause_worst_us": gaps[-1]}


def report(args, values):
    """How many gates failed."""
    failed = 0
    print(f"{args.policies} policies, {args.pods} Pods, {args.changes} rounds of changes")
    for key, value in values.items():
        most, verdict = MOST_MS.get(key), ""
        if most is not None:
            failed += value > most
            verdict = f"  (at most {most}: {'ok' if value <= most else 'FAIL'})"
        print(f"  {key:20} {value:9.2f}{verdict}")
    return failed
