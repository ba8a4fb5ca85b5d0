# SPDX-License-Identifier: Apache-2.0
"""Random sets of policies between pods of three nodes: what real flows do is what a brute-force
evaluator of Kubernetes' semantics says (selftests/unit/policy_oracle.h)."""
import json
import os
import random
import re
import subprocess
import time

import prober
from suite import expect, test, wait_for

SETS = 50 if os.environ.get("WAGGLE_QUICK") else 500
PROBES = 40
PODS, NODES = 12, 3
PORTS = tuple(range(74, 92))  # what the random policies speak of, and a little more
FILE = "random-policies.yaml"
KINDS = {"namespaces": ("v1", "Namespace"), "nodes": ("v1", "Node"), "pods": ("v1", "Pod"),
         "policies": ("networking.k8s.io/v1", "NetworkPolicy"),
         "cluster_policies": ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy")}


def addresses(i):
    """Of pod I, which is on node I % 3 of the random cluster; behind those of the other tests."""
    n, host = i % NODES or NODES, 100 + i // NODES
    return f"10.244.{n}.{host}", f"fd00:10:244:{n}::{host:x}"


class Sets:
    """The random cluster, as it is told in this one: its node 0 is n3 here, and pods have other
    addresses."""

    def __init__(self, env, seed):
        self.proc = subprocess.Popen(
            [os.path.join(env.cluster.build, "selftests", "unit", "policy_sets"), str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.renamed = {}
        for i in range(NODES):
            node = env.cluster.nodes[f"n{i or NODES}"]
            self.renamed |= {f'"n{i}"': f'"{node.node_name}"', f'"172.16.0.{i + 1}"':
                             f'"{node.addr(4)}"', f'"fd00:16::{i + 1:x}"': f'"{node.addr(6)}"',
                             f"10.244.{i}.0/": f"10.244.{i or NODES}.0/",
                             f"fd00:10:244:{i}::/": f"fd00:10:244:{i or NODES}::/"}
            for k in range(PODS // NODES):
                theirs, (ours4, ours6) = k + 2, addresses(i + k * NODES)
                for end in '"/':
                    self.renamed[f"10.244.{i}.{theirs}{end}"] = ours4 + end
                    self.renamed[f"fd00:10:244:{i}::{theirs}{end}"] = ours6 + end
        self.pattern = re.compile("|".join(map(re.escape, self.renamed)))

    def close(self):
        self.proc.stdin.close()
        self.proc.wait()

    def ask(self, line):
        self.proc.stdin.write(line + "\n")
        self.proc.stdin.flush()
        answer = self.proc.stdout.readline()
        expect(answer, "policy_sets ended")
        return answer

    def step(self):
        return json.loads(self.pattern.sub(lambda m: self.renamed[m[0]], self.ask("step")))


def add_pods(env):
    """In the namespaces that policy_world.c has them in."""
    for i in range(PODS):
        name, ns = f"p{i}", ("red", "green", "blue")[i % 3 * (i % 2)]
        node, ips = env.cluster.nodes[f"n{i % NODES or NODES}"], addresses(i)
        node.add_net(name)
        node.cni("ADD", name, ns, conf={"capabilities": {"ips": True}, "runtimeConfig": {
            "ips": [f"{a}/{64 if ':' in a else 24}" for a in ips]}})
        for k in range(0, len(PORTS), 9):
            for mode in ("echo", "sctp-server"):
                node.background(name, mode, "--label", name, "--port",
                                ",".join(map(str, PORTS[k:k + 9])), name=f"{mode}-{name}-{k}")


def usable(cluster, known):
    """Every pod here runs and has a network of its own: what else a Pod may be is kept from it."""
    for pod in cluster["pods"]:
        if not pod["spec"].get("hostNetwork"):
            pod["status"]["phase"] = "Running"
            known[pod["metadata"]["name"]] = pod
    cluster["pods"] = list(known.values())
    return cluster


def manifest(cluster):
    return [{"apiVersion": version, "kind": kind, **obj}
            for key, (version, kind) in KINDS.items() for obj in cluster[key]]


def random_probes(env, rng, cluster):
    """(source's netns, source, destination, protocol, port)"""
    pods = {p["metadata"]["name"]: [a["ip"] for a in p["status"]["podIPs"]]
            for p in cluster["pods"]}
    where = {name: node for node in env.nodes for name in node.nets if name in pods}
    out = [env.outside.addr("out", f) for f in (4, 6)]
    for _ in range(PROBES):
        src = rng.choice(sorted(pods))
        family = rng.randrange(2)
        if rng.random() < 0.1:
            dst, proto, port = out[family], rng.choice(("TCP", "UDP")), 8080
        else:
            dst = pods[rng.choice(sorted(p for p in pods if p != src))][family]
            proto, port = rng.choice(("TCP", "UDP", "SCTP")), rng.choice(PORTS)
        yield f"/run/netns/{where[src].ns(src)}", pods[src][family], dst, proto, port


@test("policy", routing=("tunnel",))
def random_policies(env):
    seed = int(os.environ.get("WAGGLE_SEED") or time.time())
    rng, sets, known = random.Random(seed), Sets(env, seed), {}
    # The files of the nodes say other things of them than this cluster does.
    for node in env.nodes:
        env.cluster.remove_node(node)
    try:
        first = usable(sets.step(), known)
        env.cluster.write(FILE, manifest(first))
        add_pods(env)
        denied = 0
        for n in range(SETS):
            cluster = usable(sets.step(), known)
            env.cluster.write(FILE, manifest(cluster))
            probes = list(random_probes(env, rng, cluster))
            want = json.loads(sets.ask(json.dumps({**cluster, "probes": [p[1:] for p in probes]})))
            denied += want.count(False)
            holds(f"seed {seed}, set {n}", probes, want)
        expect(denied > SETS and denied < SETS * PROBES - SETS, f"{denied} flows were denied")
    finally:
        sets.close()
        for node in env.nodes:
            env.cluster.write_node(node)
        env.cluster.remove(FILE)
        for node in env.nodes:
            for pod in [p for p in node.nets if p.startswith("p")]:
                node.cni("DEL", pod, check=False)
                node.run(["ip", "netns", "del", node.ns(pod)])
                node.nets.remove(pod)


def holds(what, probes, want):
    got = []

    def as_wanted():
        got[:] = prober.ask([prober.Probe(p[0], p[2], p[4], p[3]) for p in probes], want)
        return got == want
    try:
        wait_for(what, as_wanted, 10)
    finally:
        wrong = [p[1:] for p, g, w in zip(probes, got, want) if g != w]
        expect(not wrong, f"{what}: not as Kubernetes says:", wrong[:5])
