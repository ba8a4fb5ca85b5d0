#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""waggle-cni together with others: plugins that give addresses or interfaces, cnitool, the agent.

Prints "ok NAME", "FAIL NAME: why" or "skipped: NAME: why" for each test. Needs root and, for the
reference plugins, Go.
"""
import json
import os
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../lib")]
import netlab
from cni_world import BUILD, CNI, Node, addresses, ping, run_tests, sh
from refcni import reference

CHAINED = 4
REF, WHY = reference()


def needs_reference(test):
    return lambda world: WHY if not REF else test(world)


# ---- addresses from an ipam plugin ----

def host_local(world, **more):
    return {"type": "host-local", "dataDir": os.path.join(world.top, "host-local"),
            "ranges": [[{"subnet": "10.83.0.0/24"}], [{"subnet": "fd83::/64"}]], **more}


def held(world):
    """Addresses that host-local has given out."""
    found = []
    for _, _, names in os.walk(os.path.join(world.top, "host-local")):
        found += [n for n in names if n[0].isdigit() or n.startswith("fd83")]
    return found


@needs_reference
def test_host_local(world):
    node, pod = Node(world, "local"), world.netns("local")
    node.conf["ipam"] = host_local(world, routes=[{"dst": "10.200.0.0/16"}, {"dst": "0.0.0.0/0"}])
    path = {"CNI_PATH": f"/nonsense:{REF}"}
    out = node.ok("ADD", "c", pod, conf={"cniVersion": "1.1.0"}, **path)
    assert len(held(world)) == 2 and addresses(out)[0].startswith("10.83.0."), out
    assert [i["address"].split("/")[1] for i in out["ips"]] == ["32", "128"], out
    assert [r["dst"] for r in out["routes"]] == ["0.0.0.0/0", "::/0", "10.200.0.0/16"], out
    for addr in addresses(out):
        ping(world.node, addr)
    ping(pod, "10.77.255.1")
    assert "169.254.1.1" in sh("ip", "-n", pod, "route", "show", "10.200.0.0/16")
    node.ok("CHECK", "c", pod, **path)
    sh("ip", "-n", pod, "route", "del", "10.200.0.0/16")
    node.error(102, "CHECK", "c", pod, says="no route to 10.200.0.0/16", **path)
    assert node.leased() == [], "our own store was used too"
    node.ok("DEL", "c", pod, **path)
    node.ok("DEL", "c", pod, **path)
    assert held(world) == []
    world.drop(pod)
    node.clean()


@needs_reference
def test_host_local_gc_and_status(world):
    node, pod = Node(world, "localgc"), world.netns("localgc")
    node.conf["ipam"] = host_local(world)
    path = {"CNI_PATH": REF}
    assert node.call("STATUS", conf={"cniVersion": "1.1.0"}, **path) == (0, None)
    for i in range(3):
        node.ok("ADD", f"c{i}", pod, CNI_IFNAME=f"e{i}", **path)
    code, out = node.gc(("c1", "e1"), **path)
    assert code == 0, out
    assert len(held(world)) == 2 and set(node.records()) == {"c1"}, held(world)
    code, out = node.gc(**path)
    assert code == 0 and held(world) == [], out
    world.drop(pod)
    node.clean()


@needs_reference
def test_host_local_is_undone(world):
    """An ADD that fails after the address was given gives it back."""
    node, pod = Node(world, "undo"), world.netns("undo")
    node.conf["ipam"] = host_local(world)
    sh("ip", "-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    node.error(100, "ADD", "c", pod, says="eth0 exists", CNI_PATH=REF)
    assert held(world) == []
    sh("ip", "-n", pod, "link", "del", "eth0")
    world.drop(pod)
    node.clean()


@needs_reference
def test_host_local_after_kills(world):
    """The other plugin lives on, and holds the attachment's lock, when ours is killed. What it gave
    goes by the DEL that GC sends, once it has ended."""
    node, pod = Node(world, "killed"), world.netns("killed")
    node.conf["ipam"] = host_local(world)
    for i in range(20):
        env = {"CNI_PATH": REF, "CNI_IFNAME": f"e{i}"}
        proc = node.start("ADD", f"c{i}", pod, **env)
        if i % 4:
            time.sleep(i / 1000)
            proc.kill()
        proc.stdout.close()
        proc.wait()
    assert len(held(world)) >= 10

    def all_gone():
        code, out = node.gc(CNI_PATH=REF)
        assert code == 0, out
        return not held(world) and not node.records()
    netlab.wait_for("GC to take all of them", all_gone)
    world.drop(pod)
    node.clean()


@needs_reference
def test_static(world):
    node, pod = Node(world, "static"), world.netns("static")
    node.conf["ipam"] = {"type": "static", "addresses": [{"address": "10.84.0.5/24"}],
                         "dns": {"nameservers": ["10.96.0.10"]}}
    out = node.ok("ADD", "c", pod, CNI_PATH=REF)
    assert addresses(out) == ["10.84.0.5"] and out["dns"]["nameservers"] == ["10.96.0.10"], out
    node.ok("CHECK", "c", pod, conf={"prevResult": out}, CNI_PATH=REF)
    node.ok("DEL", "c", pod, CNI_PATH=REF)
    asked = {"runtimeConfig": {"ips": ["10.84.0.77/24"]}}
    out = node.ok("ADD", "c", pod, conf=asked, CNI_PATH=REF)
    assert addresses(out) == ["10.84.0.77"], out
    node.ok("DEL", "c", pod, CNI_PATH=REF)
    node.conf["ipam"] = {"type": "static", "addresses": [{"address": "nonsense"}]}
    code, out = node.call("ADD", "c", pod, CNI_PATH=REF)
    assert code == 1 and "ipam plugin static:" in out["msg"], out
    world.drop(pod)
    node.clean()


def script(world, name, text):
    path = os.path.join(world.top, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write("#!/bin/sh\n" + text)
    os.chmod(path, 0o755)


def test_plugin_that_misbehaves(world):
    node, pod = Node(world, "odd"), world.netns("odd")
    path = {"CNI_PATH": world.top}
    cases = [
        ("echo '{\"code\":42,\"msg\":\"no luck\"}'; exit 1", 42, "ipam plugin odd: no luck"),
        ("exit 3", 5, "ADD failed with status 3"),
        ("kill -9 $$", 5, "killed by signal 9"),
        ("echo nonsense", 6, "ipam plugin odd: its answer is not JSON"),
        ("echo '{}'", 7, "gave no address"),
        ("echo '{\"ips\":[{\"address\":\"10.1.0.7\"}]}'", 6, "address must be like"),
        ("head -c 2000000 /dev/zero", 5, "its answer"),
    ]
    node.conf["ipam"] = {"type": "odd"}
    for text, code, says in cases:
        # DEL, by which ADD undoes itself, works.
        script(world, "odd", f'[ "$CNI_COMMAND" = ADD ] || exit 0\n{text}\n')
        node.error(code, "ADD", "c", pod, says=says, **path)
        node.clean()
    node.error(7, "ADD", "c", pod, says='no plugin "odd" in CNI_PATH', CNI_PATH="/")
    node.error(4, "ADD", "c", pod, says="CNI_PATH is not set", CNI_PATH=None)
    # What was never there has nothing to give back.
    node.clean()
    node.ok("DEL", "c", pod, CNI_PATH="/")
    node.ok("DEL", "c", pod, **path)
    world.drop(pod)
    node.clean()


def test_plugin_that_fails_to_delete(world):
    """The record stays, so that the next DEL or GC gives the address back."""
    node, pod = Node(world, "stuck"), world.netns("stuck")
    path = {"CNI_PATH": world.top}
    node.conf["ipam"] = {"type": "stuck"}
    works = 'case $CNI_COMMAND in ADD) echo \'{"ips":[{"address":"10.85.0.7/24"}]}\';; esac\n'
    script(world, "stuck", works + "[ $CNI_COMMAND != DEL ] || exit 1\n")
    node.ok("ADD", "c", pod, **path)
    node.error(5, "DEL", "c", pod, says="DEL failed with status 1", **path)
    assert set(node.records()) == {"c"} and node.map("wag_pods") == 0
    code, out = node.gc(**path)
    assert code == 1 and out["code"] == 5, out
    log = os.path.join(world.top, "deleted")
    script(world, "stuck", f'echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" >> {log}\n')
    code, out = node.gc(**path)
    assert code == 0, out
    with open(log, encoding="utf-8") as f:
        assert f.read().split("\n")[:2] == ["DEL c eth0", "GC  "]
    world.drop(pod)
    node.clean()


# ---- after another plugin ----

def conflist(world, node, kind, **first):
    """A folder with one network: a reference plugin, then waggle-cni."""
    folder = os.path.join(world.top, "conf-" + kind)
    os.makedirs(folder, exist_ok=True)
    plugins = [{"type": kind, "ipMasq": False, "ipam": host_local(world), **first},
               {"type": "waggle-cni", "chainingMode": "generic-veth", "pinDir": node.pins,
                "stateDir": node.state}]
    with open(os.path.join(folder, "10-x.conflist"), "w", encoding="utf-8") as f:
        json.dump({"cniVersion": "1.1.0", "name": "x", "plugins": plugins}, f)
    return folder


def cnitool(world, folder, verb, pod, check=True):
    env = {**os.environ, "NETCONFPATH": folder, "CNI_PATH": f"{REF}:{os.path.dirname(CNI)}",
           "CNI_IFNAME": "eth0"}
    argv = ["nsenter", f"--net=/run/netns/{world.node}", os.path.join(REF, "cnitool"), verb, "x",
            f"/run/netns/{pod}"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"cnitool {verb}: {done.stdout} {done.stderr}")
    return done


def chained(world, kind, **first):
    node, pod = Node(world, kind), world.netns(kind)
    folder = conflist(world, node, kind, **first)
    cnitool(world, folder, "status", pod)
    out = json.loads(cnitool(world, folder, "add", pod).stdout)
    alone = [i["name"] for i in out["interfaces"]]
    assert not any(n.startswith("wag") for n in alone), "prevResult goes on unchanged"
    record = next(iter(node.records().values()))
    assert record["chained"] and record["host_ifname"] in alone, (record, alone)
    link = json.loads(sh("ip", "-n", world.node, "-j", "link", "show", record["host_ifname"]))[0]
    assert link["ifindex"] == record["ifindex"] and link["address"] == record["host_mac"]
    assert {struct.unpack("<I", v[20:24])[0] for _, v in node.entries("wag_pods")} == {CHAINED}
    given = [ip["address"].split("/")[0] for ip in out["ips"]]
    assert [a["address"] for a in record["addresses"]] == given and len(given) == 2, record
    for way in ("ingress", "egress"):
        assert "wag_" in sh("tc", "-n", world.node, "filter", "show", "dev", link["ifname"], way)
    cnitool(world, folder, "check", pod)
    sh("tc", "-n", world.node, "filter", "del", "dev", link["ifname"], "ingress")
    said = cnitool(world, folder, "check", pod, check=False)
    assert "wag_from_pod is not attached" in said.stdout + said.stderr, said
    cnitool(world, folder, "del", pod)
    cnitool(world, folder, "del", pod)
    assert held(world) == []
    cnitool(world, folder, "add", pod)
    sh("ip", "-n", world.node, "link", "del", next(iter(node.records().values()))["host_ifname"])
    code, out = node.gc(conf={"name": "x", "chainingMode": "generic-veth"})
    assert code == 0, out
    cnitool(world, folder, "del", pod)
    world.drop(pod)
    node.clean()


@needs_reference
def test_after_bridge(world):
    chained(world, "bridge", bridge="br0", isGateway=True, isDefaultGateway=True)


@needs_reference
def test_after_ptp(world):
    chained(world, "ptp")


def test_our_filters_do_not_stay(world):
    """DEL of the chained plugin alone: the interface is another's and lives on, without us."""
    node, pod = Node(world, "stay"), world.netns("stay")
    sh("ip", "-n", world.node, "link", "add", "lxc1", "type", "veth", "peer", "name", "eth0",
       "netns", pod)
    sh("ip", "-n", world.node, "link", "set", "lxc1", "up")
    sh("ip", "-n", pod, "link", "set", "eth0", "up")
    sh("ip", "-n", pod, "addr", "add", "10.86.0.5/24", "dev", "eth0")
    prev = {"cniVersion": "1.0.0", "interfaces": [], "ips": [{"address": "10.86.0.5/24"}]}
    for mode in ("generic-veth", "aws-cni", "azure", "flannel"):
        conf = {"chainingMode": mode, "prevResult": prev}
        assert node.ok("ADD", "c", pod, conf=conf) == prev
        assert node.records()["c"]["host_ifname"] == "lxc1"
        node.ok("CHECK", "c", pod, conf=conf)
        node.ok("DEL", "c", pod, conf=conf)
        assert "clsact" not in sh("tc", "-n", world.node, "qdisc", "show", "dev", "lxc1")
    sh("ip", "-n", pod, "addr", "del", "10.86.0.5/24", "dev", "eth0")
    conf = {"chainingMode": "generic-veth", "prevResult": {"ips": []}}
    node.error(7, "ADD", "c", pod, conf=conf, says="neither prevResult nor")
    node.error(7, "ADD", "c", pod, conf=conf, CNI_IFNAME="lo", says="no veth")
    node.error(7, "ADD", "c", pod, conf=conf, CNI_IFNAME="eth7", says="has no eth7")
    node.error(7, "ADD", "c", pod, conf={"chainingMode": "generic-veth"}, says="prevResult")
    sh("ip", "-n", pod, "addr", "add", "10.86.0.9/24", "dev", "eth0")
    node.ok("ADD", "c", pod, conf=conf)
    assert node.records()["c"]["addresses"][0]["address"] == "10.86.0.9"
    node.ok("DEL", "c", "")
    sh("ip", "-n", world.node, "link", "del", "lxc1")
    world.drop(pod)
    node.clean()


@needs_reference
def test_cnitool_alone(world):
    """The verbs as a runtime's library sends them."""
    node, pod = Node(world, "tool"), world.netns("tool")
    folder = os.path.join(world.top, "conf-tool")
    os.makedirs(folder)
    for version in ("0.3.1", "0.4.0", "1.0.0", "1.1.0"):
        with open(os.path.join(folder, "10-x.conflist"), "w", encoding="utf-8") as f:
            json.dump({"cniVersion": version, "name": "x", "plugins": [
                {**{k: v for k, v in node.conf.items() if k not in ("cniVersion", "name")},
                 "capabilities": {"portMappings": True, "bandwidth": True, "mac": True,
                                  "ips": True}}]}, f)
        out = json.loads(cnitool(world, folder, "add", pod).stdout)
        assert out["cniVersion"] == version and len(out["ips"]) == 2, out
        if version != "0.3.1":
            cnitool(world, folder, "check", pod)
        if version == "1.1.0":
            cnitool(world, folder, "status", pod)
            cnitool(world, folder, "gc", pod)
        cnitool(world, folder, "del", pod)
        cnitool(world, folder, "del", pod)
    world.drop(pod)
    node.clean()


# ---- with a real agent: Services and flows of a pod that another plugin wired ----

class ChainLab(netlab.Lab):
    runtime = {}

    def cni_conf(self):
        return {**super().cni_conf(), "runtimeConfig": self.runtime}

    def chain_pod(self, pod, kind, first):
        """A pod of the reference plugin, then ours; its addresses."""
        self.add_net(pod)
        env = {**os.environ, "CNI_COMMAND": "ADD", "CNI_CONTAINERID": f"{self.name}-{pod}",
               "CNI_NETNS": f"/run/netns/{self.ns(pod)}", "CNI_IFNAME": "eth0", "CNI_PATH": REF,
               "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}"}
        ipam = {"type": "host-local", "dataDir": self.path("host-local"),
                "ranges": [[{"subnet": "10.244.9.0/24"}], [{"subnet": "fd00:10:244:9::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
        conf = {"cniVersion": "1.0.0", "name": "x", "type": kind, "ipam": ipam, **first}
        prev = json.loads(self.sh("node", [os.path.join(REF, kind)], env=env,
                                  input=json.dumps(conf)))
        ours = {"cniVersion": "1.0.0", "name": "x", "type": "waggle-cni", "prevResult": prev,
                "pinDir": self.pin_dir, "stateDir": self.state_dir,
                "chainingMode": "generic-veth"}
        out = json.loads(self.sh("node", [self.binary("waggle-cni")], env=env,
                                 input=json.dumps(ours)))
        ips = [ip["address"].split("/")[0] for ip in out["ips"]]
        self.pods[pod] = (next(a for a in ips if ":" not in a), next(a for a in ips if ":" in a))
        return self.pods[pod]


def service_from_chained(kind, first, agent_args):
    with ChainLab(BUILD) as lab:
        lab.start_agent("--cni-chaining-mode=generic-veth", "--cni-conf-dir=", *agent_args,
                        seconds=60)
        for pod in ("client", "server"):
            lab.chain_pod(pod, kind, first)
        lab.background("server", "echo", "--label", "server", "--port", "8080")
        vips = netlab.vip(1)
        lab.service("chained", vips, ["server"])
        for way in (*vips, *lab.pods["server"]):
            port = 80 if way in vips else 8080
            netlab.wait_for(f"{way} from a pod of {kind}", lambda a=way, p=port: lab.connect(
                "client", a, p, timeout_ms=500)["is"] == "ok", 10)
        netlab.wait_for("the flow of the client, with names",
                        lambda: "default/client" in lab.observe("--last", "100"))
        said = lab.observe("--last", "100")
        assert "default/server" in said, said


@needs_reference
def test_services_after_bridge(_):
    service_from_chained("bridge", {"bridge": "br0", "isGateway": True}, ("--socket-lb=off",))


@needs_reference
def test_services_after_ptp(_):
    service_from_chained("ptp", {}, ("--socket-lb=full",))


def test_host_ports(_):
    """From outside, from the node and from a pod, until the pod goes."""
    with ChainLab(BUILD) as lab:
        lab.start_agent(seconds=60)
        lab.runtime = {"portMappings": [{"hostPort": 8088, "containerPort": 8080, "protocol": p}
                                        for p in ("tcp", "udp")]}
        lab.add_web("web")
        lab.runtime = {}
        lab.add_pod("client")
        ways = [(net, addr) for net in ("out", "node", "client")
                for addr in (netlab.NODE4, netlab.NODE6)]
        for net, addr in ways:
            for ask in (lab.connect, lab.udp):
                got = netlab.wait_for(f"{net} to reach port 8088 of {addr}", lambda n=net, a=addr,
                                      f=ask: (lambda x: x["is"] == "ok" and x)(f(n, a, 8088)))
                assert got["label"] == "web", got
        lab.del_pod("web")
        for net, addr in ways:
            assert lab.connect(net, addr, 8088, timeout_ms=300)["is"] == "err", (net, addr)


TESTS = [
    ("host-local gives the addresses", test_host_local),
    ("host-local with GC and STATUS", test_host_local_gc_and_status),
    ("host-local is undone", test_host_local_is_undone),
    ("host-local after kills", test_host_local_after_kills),
    ("static gives the addresses", test_static),
    ("an ipam plugin that misbehaves", test_plugin_that_misbehaves),
    ("an ipam plugin that fails to delete", test_plugin_that_fails_to_delete),
    ("after bridge, by cnitool", test_after_bridge),
    ("after ptp, by cnitool", test_after_ptp),
    ("what DEL of a chained pod leaves", test_our_filters_do_not_stay),
    ("every version by cnitool", test_cnitool_alone),
    ("Services and flows after bridge", test_services_after_bridge),
    ("Services and flows after ptp", test_services_after_ptp),
    ("ports of the node carry traffic", test_host_ports),
]


if __name__ == "__main__":
    sys.exit(run_tests("cni", TESTS))
