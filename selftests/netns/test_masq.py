# SPDX-License-Identifier: Apache-2.0
"""What pods send out of the cluster, and ports of the node that are a pod's."""
import json
import os

from suite import FAMILIES, expect, expect_ok, fields, host_port, port, test, wait_for
from netlab import FAR4, FAR6, NODE4, NODE6, OUT4, OUT6

NODE, OUT, FAR = (NODE4, NODE6), (OUT4, OUT6), (FAR4, FAR6)
HOST_PORT, HOST_PORT_UDP, ONE_ADDRESS = 18080, 18081, 18082
TIME_EXCEEDED = (("11", "0"), ("3", "0"))


def addr_of(text):
    """The address of "10.0.0.1:80" or "[fd00::1]:80"."""
    return text.rpartition(":")[0].strip("[]")


def port_of(text):
    return text.rpartition(":")[2]


def clients(env):
    return [(net, env.lab.pods[net]) for net in ("client", "other")]


@test()
def outside_sees_the_node(env):
    for family in FAMILIES:
        for net, _ in clients(env):
            for server, label in ((OUT[family], "outside"), (FAR[family], "far")):
                got = expect_ok(env.lab.connect(net, server, 8080), label)
                expect(addr_of(got["seen"]) == NODE[family], f"{server} saw", got)
                expect(port_of(got["seen"]) == port_of(got["local"]), "the port changed:", got)
                for how in ((), ("--connected",)):
                    got = expect_ok(env.lab.udp(net, server, 8080, *how), label,
                                    **{"from": host_port(server, 8080)})
                    expect(addr_of(got["seen"]) == NODE[family], f"{server} saw", got)


@test()
def outside_sees_the_node_through_a_service(env):
    for family, addr in enumerate(env.service([(OUT4, OUT6)])):
        # The socket path, where there is one, has the backend from the start.
        got = expect_ok(env.lab.connect("client", addr, 80), "outside", peer=host_port(addr, 80))
        expect(addr_of(got["seen"]) == NODE[family], "the backend saw", got)
        got = expect_ok(env.lab.udp("client", addr, 80), "outside",
                        **{"from": host_port(addr, 80)})
        expect(addr_of(got["seen"]) == NODE[family], "the backend saw", got)


@test()
def sctp_to_outside(env):
    server = env.lab.background("out", "sctp-server", "--label", "outside", "--port", "7000")
    for family in FAMILIES:
        for net, mine in clients(env):
            got = env.lab.wagtest(net, "sctp", "--src", host_port(mine[family], 5000),
                                  "--dst", host_port(OUT[family], 7000))[0]
            expect_ok(got, "outside", crc="good")
    expect("bad crc" not in env.lab.log(server.log_name), "the server saw a wrong CRC")
    env.lab.stop(server)


def hold(env, net, src, dst):
    """A connection that stays: its process, and what the client and the server said of it."""
    proc = env.lab.background(net, "connect", "--reuse", "--hold-open", "--src", src, "--dst", dst)
    return proc, fields(env.lab.log(proc.log_name).splitlines()[0])


@test()
def one_port_of_two_pods_and_the_node(env):
    """Whoever comes later gets another port, and every connection lives."""
    for family in FAMILIES:
        dst = host_port(OUT[family], 8080)
        owners = [*clients(env), ("node", NODE)]
        for n, order in enumerate((owners, owners[::-1])):
            held, seen = [], []
            for net, mine in order:
                proc, got = hold(env, net, host_port(mine[family], 21000 + n), dst)
                held.append(proc)
                expect_ok(got, "outside")
                expect(addr_of(got["seen"]) == NODE[family], f"{net} was seen as", got)
                seen.append(port_of(got["seen"]))
            expect(len(set(seen)) == 3 and seen[0] == str(21000 + n), "ports", seen)
            for proc in held:
                expect(proc.poll() is None, "a connection ended")
                env.lab.stop(proc)


@test()
def one_udp_port_of_a_pod_and_the_node(env):
    mine = env.lab.pods["client"]
    for family in FAMILIES:
        dst = host_port(OUT[family], 8080)
        server = env.lab.background("node", "echo", "--label", "node", "--port", "22000")
        got = env.lab.wagtest("client", "udp", "--src", host_port(mine[family], 22000), "--dst",
                              dst)[0]
        expect_ok(got, "outside")
        expect(port_of(got["seen"]) != "22000", "took the port of the node's socket:", got)
        expect_ok(env.lab.udp("out", NODE[family], 22000), "node")
        env.lab.stop(server)


@test()
def ping_and_traceroute(env):
    for family in FAMILIES:
        for net, _ in clients(env):
            got = env.lab.wagtest(net, "ping", "--dst", FAR[family])[0]
            expect(got["is"] == "ok" and got["from"] == host_port(FAR[family], 0), net, "got", got)
            for ttl in (1, 2):
                got = env.lab.wagtest(net, "ping", "--dst", FAR[family], "--ttl", ttl)[0]
                expect(got["is"] == "icmp" and (got["type"], got["code"])
                       == TIME_EXCEEDED[family], f"{net}, TTL {ttl}:", got)
                expect((addr_of(got["from"]) == OUT[family]) == (ttl == 2),
                       f"{net}, TTL {ttl}, was answered by", got)


@test()
def path_mtu_is_learnt_from_outside(env):
    """The router quotes what the node seems to have sent."""
    for net, _ in clients(env):
        env.lab.ip(net, "route flush cache", "-6 route flush cache")  # of other tests
    for family in FAMILIES:
        got = env.lab.wagtest("client", "pmtu", "--dst", host_port(FAR[family], 8080), "--size",
                              1400)[0]
        expect(got["is"] == "ok" and got["mtu"] == "1300", "no path MTU:", got)
    for net, _ in clients(env):
        env.lab.ip(net, "route flush cache", "-6 route flush cache")


@test()
def path_mtu_is_learnt_from_the_node(env):
    """The node's own way out is narrow: what it says reaches the pod that it stands for."""
    lab, mtus = env.lab, (1200, 1280)
    routes = [f"route add {FAR4}/32 via {OUT4} mtu lock {mtus[0]}",
              f"-6 route add {FAR6}/128 via {OUT6} mtu lock {mtus[1]}"]
    lab.ip("node", *routes)
    try:
        for family in FAMILIES:
            got = lab.wagtest("client", "pmtu", "--dst", host_port(FAR[family], 8080), "--size",
                              1400)[0]
            expect(got["is"] == "ok" and got["mtu"] == str(mtus[family]),
                   f"no path MTU to {FAR[family]}:", got)
            got = lab.udp("client", FAR[family], 8080, "--size", 1400)
            expect_ok(got, "far", len="1400", intact="1")
            lab.ip("client", "route flush cache", "-6 route flush cache")
    finally:
        lab.ip("node", *(r.replace("route add", "route del") for r in routes))


@test()
def errors_from_outside(env):
    for family in FAMILIES:
        for server in (OUT[family], FAR[family]):
            got = env.lab.udp("client", server, 9, "--connected")
            expect(got.get("errno") == "ECONNREFUSED", f"{server}, a closed port:", got)
            got = env.lab.connect("client", server, 9)
            expect(got.get("errno") == "ECONNREFUSED", f"{server}, a closed port:", got)


@test()
def fragments_to_outside(env):
    for family in FAMILIES:
        for size in (1600, 8000, 30000):
            got = env.lab.udp("client", OUT[family], 8080, "--size", size)
            expect_ok(got, "outside", len=str(size), intact="1")
            expect(addr_of(got["seen"]) == NODE[family], "the server saw", got)


@test("kept", "off")
def some_destinations_keep_the_pods_address(env):
    """Mode kept: far is in --non-masquerade-cidrs."""
    for family in FAMILIES:
        mine = env.lab.pods["client"][family]
        for server, wanted in ((OUT[family], NODE[family]),
                               (FAR[family], mine if env.mode == "kept" else NODE[family])):
            got = expect_ok(env.lab.connect("client", server, 8080))
            expect(addr_of(got["seen"]) == wanted, f"{server} saw", got)
            got = expect_ok(env.lab.udp("client", server, 8080))
            expect(addr_of(got["seen"]) == wanted, f"{server} saw", got)


@test("kept")
def ip_masq_agents_file_is_followed(env):
    """New connections follow it; what flags say stays."""
    lab, path = env.lab, env.lab.path("ip-masq-agent")
    mine = lab.pods["client"][0]

    def write(cidrs):
        with open(path + ".new", "w", encoding="utf-8") as f:
            json.dump({"nonMasqueradeCIDRs": cidrs, "resyncInterval": "200ms"}, f)
        os.rename(path + ".new", path)

    def sees(server):
        return addr_of(lab.connect("client", server, 8080).get("seen", ""))

    write([])
    args = lab.agent_args
    lab.kill_agent()
    lab.start_agent(*args, f"--ip-masq-agent-config={path}")
    try:
        wait_for("outside to see the node", lambda: sees(OUT4) == NODE4)
        write(["10.90.0.0/24"])
        wait_for("outside to see the pod", lambda: sees(OUT4) == mine)
        expect(sees(FAR4) == mine, "--non-masquerade-cidrs holds no more")
        write([])
        wait_for("outside to see the node again", lambda: sees(OUT4) == NODE4)
        expect(sees(FAR4) == mine, "--non-masquerade-cidrs holds no more")
    finally:
        lab.kill_agent()
        lab.start_agent(*args)


@test("unmasked")
def without_masquerade(env):
    """Of IPv4 only."""
    for family in FAMILIES:
        mine = env.lab.pods["client"][family]
        wanted = mine if family == 0 else NODE6
        got = expect_ok(env.lab.connect("client", OUT[family], 8080), "outside")
        expect(addr_of(got["seen"]) == wanted, "the server saw", got)


# ---- host ports ----

def add_with_ports(env, pod, *mappings):
    """A pod that answers with its name, and has ports of the node."""
    lab = env.lab
    conf = {**lab.cni_conf(), "capabilities": {"portMappings": True},
            "runtimeConfig": {"portMappings": list(mappings)}}
    plain, lab.cni_conf = lab.cni_conf, lambda: conf
    try:
        lab.add_web(pod)
    finally:
        lab.cni_conf = plain


@test()
def host_ports(env):
    add_with_ports(env, "hosted", {"hostPort": HOST_PORT, "containerPort": 8080},
                   {"hostPort": HOST_PORT_UDP, "containerPort": 8080, "protocol": "UDP"},
                   {"hostPort": ONE_ADDRESS, "containerPort": 8080, "hostIP": NODE4})
    try:
        for family in FAMILIES:
            addr = NODE[family]
            for net in ("out", "far", "client", "node", "hosted"):
                expect_ok(env.lab.connect(net, addr, HOST_PORT), "hosted",
                          peer=host_port(addr, HOST_PORT))
                expect_ok(env.lab.udp(net, addr, HOST_PORT_UDP), "hosted",
                          **{"from": host_port(addr, HOST_PORT_UDP)})
            got = expect_ok(env.lab.connect("out", addr, HOST_PORT), "hosted")
            expect(got["seen"] == got["local"], "the pod saw", got)
        expect_ok(env.lab.connect("out", NODE4, ONE_ADDRESS), "hosted")
        expect(env.lab.connect("out", NODE6, ONE_ADDRESS)["is"] == "err", "another address")
    finally:
        env.lab.del_pod("hosted")
    for net in ("out", "client", "node"):
        got = env.lab.connect(net, NODE4, HOST_PORT)
        expect(got.get("errno") == "ECONNREFUSED", f"from {net} after the pod:", got)


@test("full", "clsact", "host")
def host_ports_on_loopback(env):
    """Where the socket path serves the node. A pod's loopback is its own."""
    add_with_ports(env, "hosted", {"hostPort": HOST_PORT, "containerPort": 8080},
                   {"hostPort": HOST_PORT, "containerPort": 8080, "protocol": "UDP"})
    try:
        for addr in ("127.0.0.1", "::1"):
            expect_ok(env.lab.connect("node", addr, HOST_PORT), "hosted")
            expect_ok(env.lab.udp("node", addr, HOST_PORT), "hosted")
            got = env.lab.connect("client", addr, HOST_PORT)
            expect(got.get("errno") == "ECONNREFUSED", "a pod's own loopback:", got)
    finally:
        env.lab.del_pod("hosted")


@test()
def udp_host_port_moves_with_its_pod(env):
    """A client that goes on sending from one port meets the new pod."""
    mapping = {"hostPort": HOST_PORT_UDP, "containerPort": 8080, "protocol": "UDP"}
    add_with_ports(env, "hosted", mapping)
    client = None
    try:
        client = env.lab.start("out", [env.lab.binary("wagtest"), "udp", "--dst",
                                       host_port(NODE4, HOST_PORT_UDP), "--count", "1000",
                                       "--period", "10", "--timeout", "300"])
        wait_for("an answer", lambda: "label=hosted" in env.lab.log(client.log_name))
        env.lab.del_pod("hosted")
        add_with_ports(env, "hosted-2", mapping)
        wait_for("the new pod's answer", lambda: "label=hosted-2" in env.lab.log(client.log_name),
                 10)
    finally:
        if client:
            env.lab.stop(client)
        for pod in ("hosted", "hosted-2"):
            if pod in env.lab.pods:
                env.lab.del_pod(pod)


@test()
def metrics_count_no_failed_masquerade(env):
    """Nothing of all this was refused a port or a protocol."""
    bad = {r: n for r, n in env.drops().items() if n and "asquerade" in r}
    expect(not bad, json.dumps(bad))
