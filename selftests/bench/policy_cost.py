# SPDX-License-Identifier: Apache-2.0
"""What policies cost a packet: one node's pods without policies, and with so many rules for each of
both ends, in one run."""
import json
import os
import random

import rounds
import rules
from forwarding import WaggleForward
from results import show, spread
from waggle import Waggle

RULES_OF_A_POLICY = 100
PACKETS, NEW = 16384, 4096  # of one burst
EST_FLOWS = 4096
MOST = {"est_ns": 1.10, "est_1_ns": 1.10, "new_ns": 1.25}
FLAT = 0.1
MATCH = {"ipBlock": {"cidr": "10.244.0.0/16"}}  # of more clients than there are Pods


def policies(pod, direction, n):
    """So many rules about one pod, for one direction; the last one is about the packets."""
    key, peers = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}[direction]
    every = [{peers: [{"ipBlock": {"cidr": f"10.{200 + i // 65536}.{i >> 8 & 255}.{i & 255}/32"}}],
              "ports": [{"protocol": "TCP", "port": 1 + i % 5000}]} for i in range(n - 1)]
    every.append({peers: [MATCH], "ports": [{"protocol": "TCP", "port": rules.TARGET_PORT}]})
    for at in range(0, n, RULES_OF_A_POLICY):
        yield {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
               "metadata": {"name": f"{pod}-{key}-{at}", "namespace": "bench"},
               "spec": {"podSelector": {"matchLabels": {"name": pod}}, "policyTypes": [direction],
                        key: every[at:at + RULES_OF_A_POLICY]}}


class Policed(Waggle):
    """Pod to pod on one node. ends: which of the two pods policies select."""
    settle = WaggleForward.settle

    def __init__(self, ctx, kind, n, ends):
        super().__init__(ctx, 0)
        self.kind = self.label = kind
        self.n, self.ends = n, ends
        self.more_args = [f"--attach={ctx.args.attach}"]

    def up(self):
        super().up()
        self.write([self.pod_object(i) for i in range(len(self.node.pods))])
        selected = {"Egress": self.node.client, "Ingress": self.node.pods[-1]}
        self.write([p for d in self.ends for p in policies(selected[d], d, self.n)])
        want = sum(-(-self.n // RULES_OF_A_POLICY) for _ in self.ends)
        if want:
            self.until("the policies are in force",
                       lambda: self.metric("waggle_policies") == want and
                       self.metric("waggle_policy_epoch"), 60)

    def write(self, objects):
        """All at once: the agent takes a file whole."""
        if not objects:
            return
        path = os.path.join(self.dir, "list.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"apiVersion": "v1", "kind": "List", "items": objects}, f)
        os.rename(path, os.path.join(self.manifests, f"{objects[0]['kind'].lower()}.json"))

    def pod_object(self, i):
        name = self.node.pods[i]
        return {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "bench", "labels": {"name": name}},
                "spec": {"nodeName": self.node.name, "containers": [{"name": "c"}]},
                "status": {"phase": "Running", "podIPs": [{"ip": self.node.addresses[i]}]}}


def numbers(most):
    return sorted({1, min(100, most), most})


def contenders(ctx, many):
    yield Policed(ctx, "none", 0, ())
    for n in numbers(many):
        yield Policed(ctx, f"rules-{n}", n, ("Egress", "Ingress"))
    yield Policed(ctx, "one-end-1", 1, ("Ingress",))


def turn(c, values):
    for name, flows in (("est_ns", EST_FLOWS), ("est_1_ns", 1)):
        c.frames.run("ack", 0, flows, max(1, 1024 // flows))
        costs = [c.frames.run("ack", 0, flows, PACKETS // flows) for _ in range(3)]
        values.add(name, c.kind, min(costs))
    values.add("new_ns", c.kind, min(c.new_burst(NEW) for _ in range(6)))


def measure(args, values):
    with rounds.Context(args, "wagp") as ctx:
        every = list(contenders(ctx, args.rules))
        try:
            for c in every:
                c.up()
                c.start_frames()
            for c in every:
                c.settle()
            for n in range(args.rounds):
                for c in random.sample(every, len(every)):
                    turn(c, values)
                print(f"round {n + 1} of {args.rounds}", flush=True)
        finally:
            for c in every:
                c.down()


def good(metric, _, ratio):
    return ratio <= MOST[metric]


def flat(values, few, many):
    """A new flow costs the same whatever the number of rules. Prints it; True if it does."""
    pairs = zip(values.rounds[("new_ns", many)], values.rounds[("new_ns", few)])
    ratio = spread([a / b for a, b in pairs])
    fine = abs(ratio[0] - 1) <= FLAT
    print(f"new flow, {many} to {few}: {show(ratio)} {'pass' if fine else 'FAIL'}")
    return fine


def run(args):
    kinds = ("none", "one-end-1", *(f"rules-{n}" for n in numbers(args.rules)))
    values = rounds.Values({kind: "none" for kind in kinds[1:]}, good)
    status = rounds.run("policy", args, values, lambda a: measure(a, values), "to none")
    many = f"rules-{args.rules}"
    if args.rules > 1 and ("new_ns", many) in values.rounds and \
            not flat(values, "rules-1", many) and args.gate:
        status = 1
    return status
