#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a node makes to reach others: tunnel, routes, tables. They follow the Node objects, and a
restart of the agent touches none of them.

netns/test_nodes.py [PART]     only tests with this in their name. Needs root.
"""
import json
import os
import subprocess
import sys
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../lib"))

from netlab import NODE4, NODE6, OUT4, OUT6, Lab, LabError, wait_for

PROTO = "78"
TUNNEL = "waggle_vxlan"
TESTS = []


class Failure(Exception):
    """What was expected and what came."""


def expect(condition, *what):
    if not condition:
        raise Failure(" ".join(str(w) for w in what))


def test(*args, devices="eth0"):
    """Marks a test; it gets a lab whose agent runs with these flags."""
    def mark(function):
        TESTS.append((function, [f"--devices={devices}", *args]))
        return function
    return mark


def node(lab, name, addrs, cidrs, created="2026-01-01T00:00:00Z"):
    lab.write(f"{name}.yaml", json.dumps({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"podCIDRs": cidrs},
        "status": {"addresses": [{"type": "InternalIP", "address": a} for a in addrs]}}))


def own(lab):
    node(lab, "node-1", [NODE4, NODE6], ["10.244.0.0/24", "fd00:10:244::/64"])


def routes(lab):
    """{prefix: "via A dev D src S mtu M"} of ours, both families."""
    found = {}
    for family in ("-4", "-6"):
        text = lab.sh("node", ["ip", family, "route", "show", "proto", PROTO])
        for line in text.splitlines():
            words = line.split()
            said = []
            for word in ("via", "dev", "src", "mtu"):
                if word in words:
                    said += [word, words[words.index(word) + 1]]
            found[words[0]] = " ".join(said)
    return found


def table(lab, name):
    return json.loads(lab.cli("bpf", "map", "dump", name, "-o", "json"))


def link(lab, name):
    out = lab.sh("node", ["ip", "-d", "-j", "link", "show", name], check=False)
    return json.loads(out)[0] if out.strip() else None


def attached(lab):
    """Are both programs on the tunnel's device? By TCX, or on an older kernel by clsact."""
    pins = os.listdir(os.path.join(lab.pin_dir, "links"))
    name = f"{TUNNEL}_{link(lab, TUNNEL)['ifindex']}"
    if {f"{name}_ingress", f"{name}_egress"} <= {*pins}:
        return True
    return all(f"wag_{way}_tunnel" in
               lab.sh("node", ["tc", "filter", "show", "dev", TUNNEL, side])
               for way, side in (("from", "ingress"), ("to", "egress")))


def wait_routes(lab, want, seconds=10):
    try:
        wait_for("routes", lambda: routes(lab) == want, seconds)
    except LabError as e:
        raise Failure(f"routes: {routes(lab)}, wanted {want}") from e


def wait_log(lab, *words):
    wait_for(f"{words} in the log", lambda: all(w in lab.log("agent") for w in words))


class Monitor:
    """What the kernel says of routes and links while it runs."""

    def __init__(self, lab):
        self.lab = lab
        self.proc = lab.start("node", ["ip", "-t", "monitor", "link", "route", "address"],
                              name=f"monitor-{len(lab.procs)}")
        wait_for("the monitor", self.notices)

    def notices(self):
        """Does it see a link come and go? It may not have been there yet, the time before."""
        self.lab.ip("node", "link add probe0 type bridge")
        self.lab.ip("node", "link del probe0")
        return "Deleted" in self.lab.log(self.proc.log_name)

    def lines(self):
        """All it saw but the probe."""
        self.lab.ip("node", "link add probe1 type bridge")
        wait_for("the monitor's end", lambda: "probe1" in self.lab.log(self.proc.log_name))
        self.lab.stop(self.proc)
        self.lab.ip("node", "link del probe1")
        return [line for line in self.lab.log(self.proc.log_name).splitlines()
                if "probe" not in line and "Timestamp" not in line and line.strip()
                and not line.lstrip().startswith("link/")]


FAR = {"10.244.7.0/24": f"dev {TUNNEL} src {NODE4} mtu 1450",
       "fd00:10:247::/64": f"dev {TUNNEL} src {NODE6} mtu 1450"}


def far(lab, addr="10.91.0.2"):
    node(lab, "far", [addr], ["10.244.7.0/24", "fd00:10:247::/64"])


@test("--routing-mode=tunnel")
def a_tunnel_comes_up_with_the_agent(lab):
    dev = link(lab, TUNNEL)
    data = dev["linkinfo"]["info_data"]
    expect(dev["linkinfo"]["info_kind"] == "vxlan" and data["external"], dev)
    expect(data["port"] == 8472 and not data["learning"] and data["udp_zero_csum6_rx"]
           and data["udp_zero_csum6_tx"], data)
    expect(dev["mtu"] == 1450 and {"UP", "NOARP"} <= set(dev["flags"]), dev["mtu"], dev["flags"])
    expect(dev["inet6_addr_gen_mode"] == "none", dev)
    for key, value in ((f"net.ipv4.conf.{TUNNEL}.rp_filter", "0"),
                       (f"net.ipv6.conf.{TUNNEL}.forwarding", "1")):
        expect(lab.sh("node", ["sysctl", "-n", key]).strip() == value, key, "is not", value)
    expect(attached(lab), os.listdir(os.path.join(lab.pin_dir, "links")))
    meta = table(lab, "wag_meta")
    expect(meta[0]["value"]["mtu"] == 1500 and meta[0]["value"]["route_mtu"] == 1450, meta)


@test("--routing-mode=tunnel")
def nodes_come_change_and_go(lab):
    wait_routes(lab, {})
    far(lab)
    wait_routes(lab, FAR)
    expect([e["key"] for e in table(lab, "wag_nodes")] == ["10.91.0.2"], table(lab, "wag_nodes"))
    cidrs = json.dumps(table(lab, "wag_cidr"))
    expect("10.91.0.2" in cidrs and "1450" in cidrs, cidrs)
    # another address: the same routes, another end of the tunnel
    monitor = Monitor(lab)
    far(lab, "10.91.0.3")
    wait_for("the new address", lambda: [e["key"] for e in table(lab, "wag_nodes")] ==
             ["10.91.0.3"])
    expect("10.91.0.2" not in json.dumps(table(lab, "wag_cidr")), table(lab, "wag_cidr"))
    touched = monitor.lines()
    expect(touched == [], "touched:", touched)
    # another range
    node(lab, "far", ["10.91.0.3"], ["10.244.8.0/24"])
    wait_routes(lab, {"10.244.8.0/24": f"dev {TUNNEL} src {NODE4} mtu 1450"})
    lab.remove("far.yaml")
    wait_routes(lab, {})
    wait_for("no node", lambda: table(lab, "wag_nodes") == [])


@test("--routing-mode=tunnel")
def a_restart_touches_nothing(lab):
    far(lab)
    wait_routes(lab, FAR)
    before = table(lab, "wag_cidr"), table(lab, "wag_nodes"), table(lab, "wag_device")
    index = link(lab, TUNNEL)["ifindex"]
    monitor = Monitor(lab)
    lab.restart_agent()
    lab.kill_agent()
    expect(routes(lab) == FAR, "without the agent:", routes(lab))
    lab.start_agent(*lab.agent_args)
    status, metrics = lab.http("/metrics")
    expect("waggle_node_routes 2\n" in metrics, status, metrics[-500:])
    touched = monitor.lines()
    expect(touched == [], "touched:", touched)
    expect(routes(lab) == FAR and link(lab, TUNNEL)["ifindex"] == index, "changed")
    after = table(lab, "wag_cidr"), table(lab, "wag_nodes"), table(lab, "wag_device")
    expect(after == before, before, after)


@test("--routing-mode=tunnel")
def what_is_removed_comes_back(lab):
    far(lab)
    wait_routes(lab, FAR)
    lab.ip("node", "route del 10.244.7.0/24")
    wait_routes(lab, FAR)
    lab.ip("node", "-6 route del fd00:10:247::/64")
    wait_routes(lab, FAR)
    lab.ip("node", f"route replace 10.244.7.0/24 via {OUT4}")
    lab.ip("node", "route del 10.244.7.0/24")
    wait_routes(lab, FAR)
    lab.ip("node", f"link set {TUNNEL} down")
    wait_routes(lab, FAR)
    expect("UP" in link(lab, TUNNEL)["flags"], link(lab, TUNNEL))
    # the programs know the device: they are loaded anew
    lab.ip("node", f"link del {TUNNEL}")
    wait_for("a new device", lambda: link(lab, TUNNEL))
    wait_routes(lab, FAR, 20)
    lab.wait_ready()


@test("--routing-mode=tunnel")
def routes_of_others_are_left_alone(lab):
    lab.ip("node", f"route add 10.244.7.0/24 via {OUT4} proto static",
           f"route add 10.250.0.0/16 via {OUT4} proto bird")
    far(lab)
    v6 = {p: r for p, r in FAR.items() if ":" in p}
    wait_routes(lab, v6)
    wait_log(lab, "10.244.7.0/24", "not Waggle's")
    status, text = lab.http("/readyz")
    expect(status == 503 and "10.244.7.0/24" in text, status, text)
    lab.ip("node", "route del 10.244.7.0/24")
    wait_routes(lab, FAR)
    lab.wait_ready()
    lab.remove("far.yaml")
    wait_routes(lab, {})
    expect("10.250.0.0/16" in lab.sh("node", ["ip", "route"]), "a foreign route is gone")


@test("--routing-mode=tunnel")
def a_device_of_another_kind_is_replaced(lab):
    lab.kill_agent()
    for make in (f"link add {TUNNEL} type bridge",
                 f"link add {TUNNEL} type vxlan external dstport 9999"):
        lab.ip("node", f"link del {TUNNEL}", make)
        lab.start_agent(*lab.agent_args)
        data = link(lab, TUNNEL)["linkinfo"]
        expect(data["info_kind"] == "vxlan" and data["info_data"]["port"] == 8472, data)
        lab.kill_agent()
    lab.start_agent(*lab.agent_args)


@test("--routing-mode=tunnel")
def the_mtu_follows_the_device(lab):
    far(lab)
    wait_routes(lab, FAR)
    lab.ip("out", "link set eth0 mtu 9000")
    lab.ip("node", "link set eth0 mtu 9000")
    wait_routes(lab, {p: r.replace("1450", "8950") for p, r in FAR.items()})
    expect(link(lab, TUNNEL)["mtu"] == 8950, link(lab, TUNNEL)["mtu"])
    meta = table(lab, "wag_meta")[0]["value"]
    expect(meta["mtu"] == 9000 and meta["route_mtu"] == 8950, meta)
    devices = table(lab, "wag_device")
    expect([d["value"]["mtu"] for d in devices] == [9000], devices)
    lab.ip("node", "link set eth0 mtu 1500")
    wait_routes(lab, FAR)


@test("--routing-mode=tunnel", "--underlay-protocol=ipv6")
def an_underlay_of_ipv6(lab):
    node(lab, "far", ["10.91.0.2", "fd91::2"], ["10.244.7.0/24"])
    wait_routes(lab, {"10.244.7.0/24": f"dev {TUNNEL} src {NODE4} mtu 1430"})
    expect(link(lab, TUNNEL)["mtu"] == 1430, link(lab, TUNNEL)["mtu"])
    expect("fd91::2" in json.dumps(table(lab, "wag_cidr")), table(lab, "wag_cidr"))


@test("--routing-mode=auto")
def direct_in_the_subnet_tunnel_beyond(lab):
    far(lab)
    node(lab, "near", ["10.90.0.7", "fd90::7"], ["10.244.9.0/24", "fd00:10:249::/64"])
    near = {"10.244.9.0/24": "via 10.90.0.7 dev eth0",
            "fd00:10:249::/64": "via fd90::7 dev eth0"}
    wait_routes(lab, {**FAR, **near})
    status, metrics = lab.http("/metrics")
    expect('waggle_nodes{link="direct"} 1' in metrics and
           'waggle_nodes{link="tunnel"} 1' in metrics, status, metrics[-600:])
    # it moves to another subnet
    node(lab, "near", ["10.91.0.7"], ["10.244.9.0/24", "fd00:10:249::/64"])
    wait_routes(lab, {**FAR, "10.244.9.0/24": FAR["10.244.7.0/24"],
                      "fd00:10:249::/64": FAR["fd00:10:247::/64"]})


@test("--routing-mode=native", "--auto-direct-node-routes=true")
def native_with_routes_of_our_own(lab):
    node(lab, "near", ["10.90.0.7"], ["10.244.9.0/24"])
    far(lab)
    wait_routes(lab, {"10.244.9.0/24": "via 10.90.0.7 dev eth0"})
    expect(link(lab, TUNNEL) is None, "there is a tunnel")
    wait_log(lab, "node far", "routing-mode=auto")
    lab.wait_ready()
    status, metrics = lab.http("/metrics")
    expect("waggle_nodes_unreachable 1\n" in metrics, status, metrics[-600:])
    # the device goes down and up: the kernel has dropped its routes meanwhile
    lab.ip("node", "link set eth0 down")
    wait_for("the failure in /readyz", lambda: "10.244.9.0/24" in lab.http("/readyz")[1])
    lab.ip("node", "link set eth0 up")
    wait_routes(lab, {"10.244.9.0/24": "via 10.90.0.7 dev eth0"})
    lab.wait_ready()


@test("--routing-mode=native")
def native_leaves_routes_to_the_network(lab):
    far(lab)
    wait_for("its range", lambda: "10.244.7.0" in json.dumps(table(lab, "wag_cidr")))
    expect(routes(lab) == {} and link(lab, TUNNEL) is None, routes(lab))
    expect(table(lab, "wag_nodes") == [], table(lab, "wag_nodes"))


@test("--routing-mode=tunnel")
def a_change_of_mode_leaves_nothing(lab):
    far(lab)
    wait_routes(lab, FAR)
    lab.kill_agent()
    lab.start_agent("--routing-mode=native")
    wait_routes(lab, {})
    wait_for("no tunnel", lambda: link(lab, TUNNEL) is None)
    wait_for("no ends of a tunnel", lambda: table(lab, "wag_nodes") == [])
    expect("10.91.0.2/128" not in json.dumps(table(lab, "wag_cidr")), table(lab, "wag_cidr"))


@test("--routing-mode=tunnel")
def cleanup_removes_all_of_it(lab):
    far(lab)
    wait_routes(lab, FAR)
    lab.kill_agent()
    lab.sh("node", [*lab.agent_argv(*lab.agent_args), "--cleanup"])
    expect(routes(lab) == {} and link(lab, TUNNEL) is None, routes(lab), link(lab, TUNNEL))


@test("--routing-mode=tunnel")
def geneve_where_the_kernel_has_it(lab):
    probe = lab.sh("node", ["ip", "link", "add", "probe0", "type", "geneve", "external"],
                   check=False)
    has = link(lab, "probe0") is not None
    lab.kill_agent()
    args = ["--routing-mode=tunnel", "--tunnel-protocol=geneve"]
    if has:
        lab.ip("node", "link del probe0")
        lab.start_agent(*args)
        expect(link(lab, "waggle_geneve")["linkinfo"]["info_kind"] == "geneve", probe)
        wait_for("no VXLAN", lambda: link(lab, TUNNEL) is None)
        return
    agent = lab.start_agent(*args, wait=False)
    wait_for("the agent to give up", lambda: agent.poll() is not None)
    expect("CONFIG_GENEVE" in lab.log("agent") and "--tunnel-protocol=vxlan" in lab.log("agent"),
           lab.log("agent")[-400:])


@test("--routing-mode=tunnel")
def hostile_nodes_cut_nothing_off(lab):
    before = lab.sh("node", ["ip", "route", "show"])
    node(lab, "evil", ["10.91.0.66"], ["0.0.0.0/0", "10.90.0.0/24", f"{OUT4}/32", "127.0.0.0/8"])
    wait_log(lab, "0.0.0.0/0", "10.90.0.0/24", f"{OUT4}/32", "127.0.0.0/8")
    expect(routes(lab) == {} and lab.sh("node", ["ip", "route", "show"]) == before, routes(lab))
    # and two that want the same: who was there first has it, and keeps it
    far(lab)
    wait_routes(lab, FAR)
    node(lab, "late", ["10.91.0.9"], ["10.244.7.0/25"], "2026-02-01T00:00:00Z")
    wait_log(lab, "node late", "10.244.7.0/25", "node far")
    expect(routes(lab) == FAR, routes(lab))


@test("--routing-mode=native")
def masquerade_waits_for_the_nodes(lab):
    """A first start that no API server answers: who is outside is not known yet."""
    args = lab.agent_args
    lab.kill_agent()
    lab.run(["rm", "-rf", lab.pin_dir])
    agent = lab.start_agent_alone(*args)
    try:
        lab.add_web("web")
        lab.add_pod("client")
        lab.background("out", "echo", "--label", "outside", "--port", "8080", name="echo-out")
        got = lab.connect("client", lab.pods["web"][0], 8080)
        expect(got["is"] == "ok", "a pod of the node:", got)
        for addr in (OUT4, OUT6):
            got = lab.connect("client", addr, 8080, timeout_ms=300)
            expect(got.get("errno") == "ETIMEDOUT", f"{addr}:", got)
        drops = json.loads(lab.sh("node", [lab.binary("waggle"), "--pin-dir", lab.pin_dir,
                                           "status", "-o", "json"], check=False))["drops"]
        expect("Host datapath not ready" in [d["reason"] for d in drops], drops)
    finally:
        agent.kill()
        agent.wait()
    lab.start_agent(*args)
    for addr in (OUT4, OUT6):
        wait_for(f"{addr} to answer", lambda a=addr: lab.connect("client", a, 8080)["is"] == "ok")
    # It is known for good: the next agent need not be told before flows go on.
    lab.kill_agent()
    expect(lab.connect("client", OUT4, 8080)["is"] == "ok", "without an agent")


def run_one(function, args):
    with Lab() as lab:
        own(lab)
        lab.start_agent(*args)
        function(lab)


def main():
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    failed = 0
    for function, args in TESTS:
        if part not in function.__name__:
            continue
        why = None
        try:
            run_one(function, args)
        except (Failure, LabError) as e:
            why = str(e)
        except subprocess.TimeoutExpired as e:
            why = f"{e.cmd[0]} did not end within {e.timeout} s"
        except Exception as e:
            traceback.print_exc()
            why = f"{type(e).__name__}: {e}"
        failed += why is not None
        name = f"netns/nodes/{function.__name__}"
        print(f"FAIL {name}: {' '.join(why.split())}" if why else f"ok {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
