# SPDX-License-Identifier: Apache-2.0
"""What kube-proxy promises: which endpoints a client gets, by which address they know it."""
import json

from suite import (FAMILIES, expect, expect_ok, expect_refused, host_port, observed, port,
                   test, wait_for)
from netlab import FAR4, FAR6, NODE4, NODE6, OUT4, OUT6, service_objects, vip

NODE, FAR, OUT = (NODE4, NODE6), (FAR4, FAR6), (OUT4, OUT6)
LB = ("203.0.113.10", "2001:db8:9::10")
EXTERNAL = ("203.0.113.20", "2001:db8:9::20")
NP_TCP, NP_UDP = 30090, 30091
PORTS = [port(80, 8080, "TCP", NP_TCP), port(80, 8080, "UDP", NP_UDP)]
HERE = ("web-1", {"nodeName": "node-1"})
ELSEWHERE = (OUT, {"nodeName": "node-2"})


def addr_of(text):
    return text.rpartition(":")[0].strip("[]")


class Service:
    """A Service with an address of every kind. backends: (pod or addresses, more of the endpoint)
    """

    def __init__(self, env, backends, live=True, **kw):
        self.env, self.vips = env, vip(env.next_vip)
        env.next_vip += 1
        self.name = f"svc-{env.next_vip}"
        env.services.append(self.name)
        for lead in ("203.0.113.0/24 via " + NODE4, "2001:db8:9::/64 via " + NODE6):
            env.lab.ip("out", f"{'-6 ' if '::' in lead else ''}route replace {lead}")
        self.write(backends, **kw)
        if live:
            env.wait_live(self.vips, PORTS, bool(backends))

    def write(self, backends, labels=None, kind="LoadBalancer", ports=None, ingress=LB, **spec):
        lab = self.env.lab
        objects = service_objects(self.name, self.vips, [], ports or PORTS, kind)
        objects[0]["spec"].update({"externalIPs": list(EXTERNAL), **spec})
        objects[0]["status"] = {"loadBalancer": {"ingress": [
            a if isinstance(a, dict) else {"ip": a} for a in ingress]}}
        objects[0]["metadata"]["labels"] = labels or {}
        for piece in objects[1:]:
            family = piece["addressType"] == "IPv6"
            piece["endpoints"] = [
                {"addresses": [lab.pods.get(who, who)[family]], "conditions": {"ready": True},
                 **extra} for who, extra in backends]
        lab.write(f"{self.name}.yaml", "---\n".join(json.dumps(o, indent=1) + "\n"
                                                    for o in objects))

    def fronts(self, family):
        return {"ClusterIP": (self.vips[family], 80), "NodePort": (NODE[family], NP_TCP),
                "LB": (LB[family], 80), "externalIP": (EXTERNAL[family], 80)}


# As kube-proxy's TestInternalExternalMasquerade: A all endpoints, L those of this node; m the
# endpoint sees the node, - the client itself. By client, then ClusterIP, NodePort, LB, externalIP.
MATRIX = {
    "plain": ({}, {"client": "A- Am Am Am", "node": "Am Am Am Am", "far": "Am Am Am Am"}),
    "eTP:Local": ({"externalTrafficPolicy": "Local"},
                  {"client": "A- A- A- A-", "node": "Am Am Am Am", "far": "Am L- L- L-"}),
    "iTP:Local": ({"internalTrafficPolicy": "Local"},
                  {"client": "L- Am Am Am", "node": "Lm Am Am Am", "far": "Lm Am Am Am"}),
    "both": ({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"},
             {"client": "L- A- A- A-", "node": "Lm Am Am Am", "far": "Lm L- L- L-"}),
}


def check_cell(env, net, own, dst, want, what):
    family = ":" in dst[0]
    lines = env.lab.wagtest(net, "connect", "--dst", host_port(*dst), "--count", 24)
    seen = [expect_ok(line, ("web-1", "outside")) for line in lines]
    labels = {got["label"] for got in seen}
    expect(len(seen) == 24 and labels == ({"web-1"} if want[0] == "L" else {"web-1", "outside"}),
           what, "reached", labels)
    # At its socket a pod needs no masquerade: nobody can answer past the node.
    masked = want[1] == "m" and not (net == "client" and env.mode in ("full", "clsact", "kernel"))
    for got in seen:
        # What is outside of the cluster sees the node in any case.
        masks = masked or got["label"] == "outside" or net == "node"
        expect(addr_of(got["seen"]) == (NODE if masks else own)[family],
               what, got["label"], "saw", got["seen"])


@test()
def who_gets_which_endpoints_by_which_address(env):
    service = Service(env, [HERE, ELSEWHERE])
    own = {"client": env.lab.pods["client"], "node": NODE, "far": FAR}
    for name, (spec, rows) in MATRIX.items():
        service.write([HERE, ELSEWHERE], **spec)
        policies = [spec.get(f"{way}TrafficPolicy", "Cluster") for way in ("internal", "external")]
        for family in FAMILIES:
            for addr, policy in zip((service.vips[family], LB[family]), policies):
                wait_for("the policy",
                         lambda a=addr, p=policy: frontend(env, a)["trafficPolicy"] == p)
        for net, row in rows.items():
            for family in FAMILIES:
                fronts = service.fronts(family)
                for (kind, dst), want in zip(fronts.items(), row.split()):
                    check_cell(env, net, own[net], dst, want,
                               f"{name}, {net} to {kind} {dst[0]}:")


def frontend(env, addr):
    """What `waggle service list` says of an address's first port."""
    return next(e for e in json.loads(env.lab.cli("service", "list", "-o", "json"))
                if e["frontend"].startswith(host_port(addr, "")))


def expect_silence(env, net, dst):
    got = env.lab.connect(net, *dst, timeout_ms=600)
    expect(got["is"] == "err" and got["errno"] == "ETIMEDOUT", f"{net} to {dst}: wanted silence",
           got)


def without_local(env, policy):
    """Service ports: two of each family are this test's."""
    name = f'waggle_service_ports_without_local_endpoints{{traffic_policy="{policy}"}} '
    return next(int(line[len(name):]) for line in env.lab.http("/metrics")[1].splitlines()
                if line.startswith(name))


@test()
def no_local_endpoint_is_silence(env):
    service = Service(env, [ELSEWHERE], live=False, externalTrafficPolicy="Local",
                      internalTrafficPolicy="Local")
    env.wait_live(service.vips, PORTS, False)
    before = env.drops().get("No backend of the Service on this node", 0)
    for family in FAMILIES:
        fronts = service.fronts(family)
        for kind, dst in fronts.items():
            expect_silence(env, "far", dst)
            if kind == "ClusterIP":
                expect_silence(env, "client", dst)
                expect_silence(env, "node", dst)
            else:
                expect_ok(env.lab.connect("client", *dst), "outside")
                expect_ok(env.lab.connect("node", *dst), "outside")
    expect(env.drops()["No backend of the Service on this node"] >= before + 12, env.drops())
    text = env.lab.cli("bpf", "lb", "list", "--frontends")
    expect("Local" in text and "NodePort" in text, text)
    expect("none here: dropped" in env.lab.cli("service", "list"), env.lab.cli("service", "list"))
    for policy in ("internal", "external"):
        expect(without_local(env, policy) == 4, policy, without_local(env, policy))
    service.write([HERE, ELSEWHERE], externalTrafficPolicy="Local")
    for family in FAMILIES:
        for kind, dst in service.fronts(family).items():
            wait_for("an answer", lambda d=dst: env.lab.connect("far", *d, timeout_ms=300)["is"]
                     == "ok")


@test()
def no_endpoints_are_refused_on_every_frontend(env):
    service = Service(env, [])
    for family in FAMILIES:
        for kind, (addr, number) in service.fronts(family).items():
            udp = NP_UDP if kind == "NodePort" else number
            for net in ("client", "node", "far"):
                expect_refused(env.lab.connect(net, addr, number))
                expect_refused(env.lab.udp(net, addr, udp, "--connected"))


@test()
def only_some_clients_of_a_load_balancer(env):
    ranges = [f"{FAR4}/32", f"{FAR6}/128", "10.244.0.0/24"]
    service = Service(env, [HERE], loadBalancerSourceRanges=ranges)
    before = env.drops().get("Denied by LB src range check", 0)
    for family in FAMILIES:
        expect_ok(env.lab.connect("far", LB[family], 80), "web-1")
        for net in ("out", "node"):
            expect_silence(env, net, (LB[family], 80))
        if family:
            expect_silence(env, "client", (LB[family], 80))
        else:
            expect_ok(env.lab.connect("client", LB[family], 80), "web-1")
        for kind, dst in service.fronts(family).items():
            if kind != "LB":
                expect_ok(env.lab.connect("out", *dst), "web-1")
                expect_ok(env.lab.connect("client", *dst), "web-1")
    expect(env.drops()["Denied by LB src range check"] >= before + 5, env.drops())
    flows = observed(env, "--verdict", "DROPPED")
    expect(any(f.get("drop_reason_desc") == "DENIED_BY_LB_SRC_RANGE_CHECK" for f in flows),
           "no flow tells it")
    listed = json.loads(env.lab.cli("bpf", "lb", "list", "--source-ranges", "-o", "json"))
    listed = {e["frontend"]: sorted(e["sourceRanges"]) for e in listed}
    expect(listed[f"{LB[0]}:80/TCP"] == sorted([ranges[0], ranges[2]]) and
           listed[f"[{LB[1]}]:80/UDP"] == [ranges[1]] and len(listed) == 4, listed)
    dump = env.lab.cli("bpf", "map", "dump", "wag_src_range")
    expect(f"cidr={FAR4}/32" in dump, dump)
    service.write([HERE], loadBalancerSourceRanges=[f"{OUT4}/32", f"{OUT6}/128", f"{NODE4}/32",
                                                    f"{NODE6}/128"])
    for family in FAMILIES:
        for net in ("out", "node"):
            wait_for(f"{net} to be let in", lambda n=net, a=LB[family]: env.lab.connect(
                n, a, 80, timeout_ms=300)["is"] == "ok")
        expect_silence(env, "far", (LB[family], 80))
    service.write([HERE])
    for family in FAMILIES:
        wait_for("everybody to be let in", lambda a=LB[family]: env.lab.connect(
            "far", a, 80, timeout_ms=300)["is"] == "ok")


WEBS = [(name, {"nodeName": "node-1"}) for name in ("web-1", "web-2", "web-3")]


def labels_of(env, net, dst, *args, udp=False, count=8):
    one = env.lab.udp if udp else env.lab.connect
    return {expect_ok(one(net, *dst, *args))["label"] for _ in range(count)}


@test()
def a_client_keeps_its_backend(env):
    service = Service(env, WEBS, sessionAffinity="ClientIP")
    expect("affinity 10800 s" in env.lab.cli("service", "list"), env.lab.cli("service", "list"))
    for family in FAMILIES:
        fronts = service.fronts(family)
        for net in ("client", "node", "far", "out"):
            seen = set()
            for dst in fronts.values():
                seen |= labels_of(env, net, dst)
            expect(len(seen) == 1, f"{net} met", seen)
        expect(env.lab.pods["client"][family] in env.lab.cli("bpf", "map", "dump", "wag_affinity"),
               "the client is not in the map")
        # a socket bound to its port is served by packets, others may be at the socket
        bound = host_port(env.lab.pods["client"][family], 23456 + family)
        known = labels_of(env, "client", fronts["ClusterIP"])
        expect(labels_of(env, "client", fronts["ClusterIP"], "--src", bound, "--reuse",
                         count=1) == known, "the two paths differ")
        for how in ((), ("--connected",)):
            expect(len(labels_of(env, "client", fronts["ClusterIP"], *how, udp=True)) == 1,
                   "datagrams are spread")
        gone = known.pop()
        service.write([w for w in WEBS if w[0] != gone], sessionAffinity="ClientIP")
        wait_for("another backend", lambda d=fronts["ClusterIP"], g=gone: env.lab.connect(
            "client", *d).get("label") != g)
        expect(len(labels_of(env, "client", fronts["ClusterIP"])) == 1, "spread afterwards")
        service.write(WEBS, sessionAffinity="ClientIP")


@test("full", "off")
def a_client_is_forgotten_in_time(env):
    service = Service(env, WEBS, sessionAffinity="ClientIP", sessionAffinityConfig={
        "clientIP": {"timeoutSeconds": 1}})
    for net in ("client", "far"):
        first = expect_ok(env.lab.connect(net, service.vips[0], 80))["label"]
        # Each new connection renews it, so the next comes when it is over.
        wait_for("another backend", lambda n=net, f=first: env.lab.connect(
            n, service.vips[0], 80)["label"] != f, 30, 1.1)


@test("full")
def tables_side_by_side(env):
    """Each option of 'bpf lb list' shows its table, whichever others are given."""
    Service(env, [HERE], loadBalancerSourceRanges=[f"{FAR4}/32"])
    lists = {"frontends": "--frontends", "backends": "--backends",
             "sourceRanges": "--source-ranges"}
    command = ("bpf", "lb", "list")
    want = {name: json.loads(env.lab.cli(*command, option, "-o", "json"))
            for name, option in lists.items()}
    expect(all(want.values()), want)
    for left_out in (None, *lists):
        names = [n for n in lists if n != left_out]
        options = [lists[n] for n in reversed(names)]
        got = json.loads(env.lab.cli(*command, *options, "-o", "json"))
        expect(got == {n: want[n] for n in names}, left_out, got)
        text = env.lab.cli(*command, *options)
        expect(text == "\n".join(env.lab.cli(*command, lists[n]) for n in names), left_out, text)


@test("full")
def other_peoples_services(env):
    service = Service(env, [HERE])
    for label in ("service-proxy-name", "headless"):
        service.write([HERE], labels={f"service.kubernetes.io/{label}": "x"})
        wait_for("it to go", lambda: service.vips[0] not in env.lab.cli("bpf", "lb", "list"))
        service.write([HERE])
        env.wait_live(service.vips, PORTS)


@test("full")
def a_service_changes_its_type(env):
    service = Service(env, [HERE])
    service.write([HERE], kind="ClusterIP", ingress=())
    listing = wait_for("the NodePort to go", lambda: f":{NP_TCP}/" not in env.lab.cli(
        "bpf", "lb", "list") and env.lab.cli("bpf", "lb", "list"))
    expect(LB[0] not in listing and service.vips[0] in listing, listing)
    bare = [{k: v for k, v in p.items() if k != "nodePort"} for p in PORTS]
    service.write([HERE], ports=bare, allocateLoadBalancerNodePorts=False)
    wait_for("the load balancer's address", lambda: env.lab.connect(
        "far", LB[0], 80, timeout_ms=300)["is"] == "ok")
    expect(f":{NP_TCP}/" not in env.lab.cli("bpf", "lb", "list"), "there is a NodePort")
    service.write([HERE], ingress=({"ip": LB[0], "ipMode": "Proxy"}, {"ip": LB[1]}))
    wait_for("the proxied address to go", lambda: LB[0] not in env.lab.cli("bpf", "lb", "list"))
    expect_ok(env.lab.connect("far", LB[1], 80), "web-1")


@test("full")
def endpoints_of_the_nodes_zone(env):
    hints = [("web-1", {"hints": {"forZones": [{"name": "a"}]}}),
             ("web-2", {"hints": {"forZones": [{"name": "b"}]}}),
             ("web-3", {"hints": {"forZones": [{"name": "b"}], "forNodes": [{"name": "x"}]}})]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
    service = Service(env, hints)

    def backends():
        return sorted(b["address"] for b in frontend(env, service.vips[0])["backends"])
    pods = env.lab.pods
    try:
        for zone, want in (("a", ["web-1"]), ("b", ["web-2", "web-3"]), ("c", None)):
            node["metadata"]["labels"] = {"topology.kubernetes.io/zone": zone}
            env.lab.write("zone.yaml", json.dumps(node))
            want = sorted(f"{pods[w][0]}:8080/TCP" for w in want or ("web-1", "web-2", "web-3"))
            wait_for(f"the endpoints of zone {zone}", lambda w=want: backends() == w)
    finally:
        env.lab.remove("zone.yaml")


@test("nodeport")
def node_ports_on_some_addresses(env):
    Service(env, [HERE], kind="NodePort")
    expect_refused(env.lab.connect("out", NODE4, NP_TCP))
    expect_refused(env.lab.connect("client", NODE4, NP_TCP))
    for net in ("out", "client", "node"):
        expect_ok(env.lab.connect(net, NODE6, NP_TCP), "web-1")
    expect_ok(env.lab.connect("node", "127.0.0.1", NP_TCP), "web-1")
    expect_refused(env.lab.connect("node", "::1", NP_TCP))
    env.lab.ip("node", "addr add 10.92.0.1/32 dev eth0", "addr add 10.93.0.1/32 dev eth0")
    env.lab.ip("out", f"route replace 10.92.0.1/32 via {NODE4}",
               f"route replace 10.93.0.1/32 via {NODE4}")
    try:
        wait_for("an address that came later", lambda: env.lab.connect(
            "out", "10.92.0.1", NP_TCP, timeout_ms=300)["is"] == "ok")
        expect_refused(env.lab.connect("out", "10.93.0.1", NP_TCP))
    finally:
        env.lab.ip("node", "addr del 10.92.0.1/32 dev eth0", "addr del 10.93.0.1/32 dev eth0")


@test()
def a_load_balancers_address_on_the_node_itself(env):
    """As some load balancers want it: the node then calls it from that very address."""
    service = Service(env, [HERE, ELSEWHERE])
    env.lab.ip("node", f"addr add {LB[0]}/32 dev lo", f"addr add {LB[1]}/128 dev lo nodad")
    try:
        for addr in LB:
            wait_for("the node's new address", lambda a=addr: a in env.lab.cli(
                "bpf", "map", "dump", "wag_node_addr"))
        for policy in ("Cluster", "Local"):
            service.write([HERE, ELSEWHERE], externalTrafficPolicy=policy)
            for family in FAMILIES:
                wait_for("the policy", lambda a=LB[family], p=policy: frontend(env, a)[
                    "trafficPolicy"] == p)
                for net in ("node", "client", "far"):
                    lines = env.lab.wagtest(net, "connect", "--dst", host_port(LB[family], 80),
                                            "--count", 16, "--timeout", 1000)
                    for line in lines:
                        got = expect_ok(line, ("web-1", "outside"))
                        expect(net != "node" or got["label"] != "outside" or
                               addr_of(got["seen"]) == NODE[family], "outside saw", got["seen"])
    finally:
        env.lab.ip("node", f"addr del {LB[0]}/32 dev lo", f"addr del {LB[1]}/128 dev lo")
