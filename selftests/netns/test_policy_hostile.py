# SPDX-License-Identifier: Apache-2.0
"""Policies nobody should write: each is in force and right, or refused by name and for a reason,
and what was in force beside it is, by real packets."""
import json

from netlab import LabError, wait_for
from policy_world import labels, name_of, network_policy
from suite import Failure, expect
from test_policy import policy_test

A = labels(pod="a")
GROWTH_MAX_KIB = 16 * 1024   # of the agent, while one of them is known
FULL_MAX_KIB = 192 * 1024    # with as many classes as there may be
GONE_MAX_KIB = 48 * 1024     # after that: hash tables keep their room
NONE = "waggle_policies_refused 0"


def rss(env):
    with open(f"/proc/{env.lab.agent.pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def cidrs(addr, bits4=32, bits6=128):
    return [f"{a}/{b}" for a, b in zip(addr, (bits4, bits6))]


def from_pod(env, pod, **more):
    return [{"from": [{"ipBlock": {"cidr": c}} for c in cidrs(env.lab.pods[name_of(pod)])], **more}]


def hostile(ingress, name="hostile"):
    """For y/a."""
    return network_policy("y", name, A, ingress=ingress)


def is_refused(env, why, what="NetworkPolicy y/hostile"):
    status, body = env.lab.http("/readyz")
    lines = [line for line in body.splitlines() if f"{what} is not in force" in line]
    return status == 503 and any(why in line for line in lines)


def none_refused(env):
    return env.lab.http("/readyz")[0] == 200 and NONE in env.lab.http("/metrics")[1].splitlines()


class Watch:
    """A policy of another namespace, the hostile one's earlier version, and the agent's size."""

    def __init__(self, env, w):
        self.env, self.w = env, w
        w.apply(network_policy("x", "guard", A, ingress=[
            {"from": [{"podSelector": labels(pod="b")}]}]),
                hostile(from_pod(env, "x/b")))
        self.holds("before")
        self.pid, self.before = env.lab.agent.pid, rss(env)

    def holds(self, when, version="x/b"):
        """What was in force is; version: whom the hostile one's last good version lets in."""
        other = "z/a" if version == "x/b" else "x/b"
        self.w.expect(f"{when}: in force", ("x/b", "x/a", 80, "TCP", True),
                      ("y/b", "x/a", 80, "TCP", False), (version, "y/a", 80, "TCP", True),
                      (other, "y/a", 80, "TCP", False))

    def refuses(self, policy, why):
        self.w.apply(policy)
        wait_for(f"the refusal: {why}", lambda: is_refused(self.env, why), 20)
        expect("waggle_policies_refused 1" in self.env.lab.http("/metrics")[1].splitlines(), why)

    def stays_small(self, what, limit=GROWTH_MAX_KIB):
        def grown():
            return rss(self.env) - self.before
        expect(self.env.lab.agent.pid == self.pid and self.env.lab.agent.poll() is None,
               f"{what}: the agent has ended")
        try:
            wait_for("memory to go back", lambda: grown() < limit)
        except LabError as e:
            raise Failure(f"{what}: {grown()} KiB more") from e

    def mend(self):
        """Another version that is fine goes into force, and with it the refusal goes."""
        self.w.apply(hostile(from_pod(self.env, "z/a")))
        self.holds("mended", "z/a")
        wait_for("no refusal", lambda: none_refused(self.env))


@policy_test
def policy_of_100000_ports(env, w):
    watch = Watch(env, w)
    ports = [{"port": i % 32768 * 2 + 1} for i in range(100000)]
    watch.refuses(hostile([{"ports": ports}]), "it has 0 peers and 100000 ports")
    watch.holds("100,000 ports")
    watch.stays_small("100,000 ports")
    watch.mend()
    watch.refuses(hostile([{"ports": ports}]), "it has 0 peers and 100000 ports")
    w.drop("hostile")
    wait_for("the refusal to go with it", lambda: none_refused(env))
    w.expect("gone", ("z/b", "y/a", 80, "TCP", True), ("y/b", "x/a", 80, "TCP", False))


def block(cidr, excepts=()):
    return {"ipBlock": {"cidr": cidr, **({"except": list(excepts)} if excepts else {})}}


def far4(i):
    return f"172.{16 + (i >> 16)}.{i >> 8 & 255}.{i & 255}/32"


def far6(i):
    return f"2001:db8::{i:x}/128"


@policy_test
def policy_of_10000_cidrs(env, w):
    watch = Watch(env, w)
    peers = [block(f(i)) for i in range(5000) for f in (far4, far6)]
    w.apply(hostile([{"from": peers + from_pod(env, "z/a")[0]["from"]}]))
    watch.holds("10,000 CIDRs", "z/a")
    expect(none_refused(env), env.lab.http("/readyz")[1])
    watch.stays_small("10,000 CIDRs")
    peers = [block(f(i)) for i in range(10001) for f in (far4, far6)]
    watch.refuses(hostile([{"from": peers}]), "it has 20002 peers")
    watch.holds("20,002 CIDRs", "z/a")
    watch.stays_small("20,002 CIDRs")
    watch.mend()


@policy_test
def policy_of_everything_but_thousands(env, w):
    """/0 with thousands of exceptions, each allowed or not by another rule."""
    watch = Watch(env, w)
    out = cidrs(env.lab.pods["x-b"]) + cidrs(env.lab.pods["z-b"])
    wide = [block("0.0.0.0/0", [far4(i) for i in range(3000)] + out[::2]),
            block("::/0", [far6(i) for i in range(3000)] + out[1::2])]
    again = [block(f(i)) for i in range(0, 3000, 2) for f in (far4, far6)]
    w.apply(hostile([{"from": wide}, {"from": again, "ports": [{"port": 81}]}]))
    watch.holds("all but 3,000", "z/a")
    w.expect("who is excepted", ("z/b", "y/a", 80, "TCP", False), ("z/c", "y/a", 80, "TCP", True))
    expect(none_refused(env), env.lab.http("/readyz")[1])
    w.apply(hostile([{"from": wide}, {"from": again}, {"from": [block(c) for c in out[2:]]}]))
    w.expect("excepted here, allowed there", ("z/b", "y/a", 80, "TCP", True),
             ("x/b", "y/a", 80, "TCP", False))
    watch.stays_small("all but 3,000")
    watch.mend()


def spec(policy, **more):
    return {**policy, "spec": {**policy["spec"], **more}}


def expressions(**expression):
    selector = {"matchExpressions": [{"key": "a", **expression}]}
    return hostile([{"from": [{"podSelector": selector}]}])


def ports(**port):
    return hostile([{"ports": [port]}])


UNREADABLE = [
    (expressions(operator="In"), "values: must not be empty with this operator"),
    (expressions(operator="Exists", values=["b"]), "values: must be empty with this operator"),
    (expressions(operator="Près"), "is not In, NotIn, Exists or DoesNotExist"),
    (expressions(operator="In", values=[7]), "values[0]: must be a string"),
    (expressions(operator="In", values="b"), "values: must be a list"),
    (hostile([{"from": [block("10.0.0.0/33")]}]), "ipBlock.cidr: is no CIDR"),
    (hostile([{"from": [block("10.0.0/8")]}]), "ipBlock.cidr: is no CIDR"),
    (hostile([{"from": [block("10.0.0.0/8", ["fe80::/129"])]}]), "except[0]: is no CIDR"),
    (hostile([{"from": [block("0.0.0.0/0", ["fd00::/8"])]}]),
     "except[0]: fd00::/8 is no part of the cidr 0.0.0.0/0: remove it"),
    (hostile([{"from": [block("10.9.0.0/16", ["10.0.0.0/8"])]}]),
     "except[0]: 10.0.0.0/8 is no part of the cidr 10.9.0.0/16"),
    (ports(port="80"), "a number stands without quotes"),
    (spec(hostile([]), egress={}), "egress: must be a list"),
    (hostile([{"from": [{}]}]), "has no podSelector, namespaceSelector or ipBlock"),
    (hostile([{"from": ["x"]}]), "must be an object"),
    (hostile([{"from": {"podSelector": {}}}]), "from: must be a list"),
    (hostile([7]), "must be an object"),
    (hostile([{"fron": [{"podSelector": {}}]}]),
     "ingress[0].fron: no such field; did you mean from?"),
    (hostile({}), "ingress: must be a list"),
    (ports(port=80, endPort=79), "endPort: is less than port"),
    (ports(port="web", endPort=80), "endPort: stands beside a named port"),
    (ports(port=0), "port: 0 is not in 1..65535"),
    (ports(port=70000), "port: 70000 is not in 1..65535"),
    (ports(port=80.5), "port: must be an integer"),
    (ports(port=True), "port: must be an integer"),
    (ports(port=80, protocol="ICMP"), "protocol"),
    (ports(port=80, protocol=6), "protocol: must be a string"),
    (spec(hostile([]), policyTypes=["Sideways"]), 'policyTypes[0]: "Sideways" is not'),
    (spec(hostile([]), policyTypes="Ingress"), "policyTypes: must be a list"),
    (spec(hostile([]), podSelector=[]), "podSelector: must be an object"),
    (spec(hostile([]), podSelector={"matchLabels": {"a": 1}}), "matchLabels[a]: must be a string"),
    ({**hostile([]), "spec": "all"}, "spec: must be an object"),
]


@policy_test
def policy_that_cannot_be_read(env, w):
    watch = Watch(env, w)
    for i, (policy, why) in enumerate(UNREADABLE):
        watch.refuses(policy, why)
        if i % 7 == 0:
            watch.holds(why)
    watch.holds("unreadable")
    watch.stays_small("unreadable")
    watch.mend()
    watch.refuses(UNREADABLE[0][0], UNREADABLE[0][1])
    w.drop("hostile")
    wait_for("the refusal to go with it", lambda: none_refused(env))
    w.expect("gone", ("z/b", "y/a", 80, "TCP", True), ("y/b", "x/a", 80, "TCP", False))


@policy_test
def policy_in_other_letters(env, w):
    """Labels and names of any letters, longer than any field that keeps them."""
    watch = Watch(env, w)
    name, text = "имя" * 40, "ключ" * 40
    w.label("z/b", **{text: "値" * 80})
    w.apply(hostile([{"from": [{"namespaceSelector": {},
                                "podSelector": labels(**{text: "値" * 80})}]}], name),
            hostile(from_pod(env, "z/a")))
    watch.holds("other letters", "z/a")
    w.expect("by a label in other letters", ("z/b", "y/a", 80, "TCP", True),
             ("z/c", "y/a", 80, "TCP", False))
    got = json.loads(env.lab.cli("policy", "get", "-o", "json"))
    expect(any("имя" in r["policy"] for r in got), got)
    env.lab.observe("-o", "jsonpb", "--print-policy-names", "--last", "50")
    expect(env.lab.http("/metrics")[0] == 200 and none_refused(env), env.lab.http("/readyz")[1])
    watch.stays_small("other letters")


@policy_test
def policies_until_classes_overflow(env, w):
    """Every CIDR of theirs is a class of its own; those that come when there is no more room are
    refused, and only those."""
    watch = Watch(env, w)
    number, each = 200, 90           # 16,384 classes there may be
    for p in range(number):
        w.apply(network_policy("y", f"class-{p}", A, ingress=[
            {"from": [block(far4(p * each + i))]} for i in range(each)]))
    full = "with it, identities would be full"
    wait_for("a refusal", lambda: full in env.lab.http("/readyz")[1], 60)
    metrics = dict(line.rsplit(" ", 1) for line in env.lab.http("/metrics")[1].splitlines()
                   if line.startswith("waggle_polic"))
    refused, classes = (int(metrics[f"waggle_{k}"]) for k in ("policies_refused",
                                                              "policy_identities"))
    expect(0 < refused < number and 8000 < classes <= 16384, metrics)
    watch.holds("classes overflow")
    status, body = env.lab.http("/readyz")
    expect(status == 503 and len(body.splitlines()) <= 21, body)
    watch.stays_small("classes overflow", FULL_MAX_KIB)
    w.apply(hostile(from_pod(env, "z/a")))    # takes no class of its own
    watch.holds("another goes into force", "z/a")
    w.drop("class-")
    wait_for("no refusal", lambda: none_refused(env), 60)
    watch.holds("they are gone", "z/a")
    watch.stays_small("they are gone", GONE_MAX_KIB)
