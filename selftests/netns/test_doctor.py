# SPDX-License-Identifier: Apache-2.0
"""waggle doctor: what it finds, and that it takes away kube-proxy's rules and nobody else's."""
import json
import os
import re
import shutil
import subprocess
import sys

from suite import expect, test, wait_for
from netlab import SRC

sys.path.insert(0, os.path.join(SRC, "selftests", "bench"))
import rules

PODS = ("10.244.0.1", "10.244.0.2", "10.244.0.3", "10.244.0.4")
FOREIGN = """\
*mangle
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-IPTABLES-HINT - [0:0]
-A PREROUTING -p udp -m comment --comment "mine: \\"quoted\\" -j KUBE-SERVICES" -j ACCEPT
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-ROUTER-INPUT - [0:0]
:MINE - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -m comment --comment "kube-router netpol" -j KUBE-ROUTER-INPUT
-A INPUT -p tcp -m tcp --dport 22 -j MINE
-A FORWARD -i eth7 -j DROP
-A MINE -j ACCEPT
COMMIT
*nat
:KUBE-MARK-DROP - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
-A POSTROUTING -o eth7 -m comment --comment "kubernetes is not all there is" -j MASQUERADE
-A CNI-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000
COMMIT
"""
FOREIGN_NFT = """\
add table inet mine
add chain inet mine kube-proxy { type filter hook input priority 5 ; }
add rule inet mine kube-proxy tcp dport 9 drop
add table ip kube-proxy-too
"""


def run(env, net, argv, text=None):
    """(exit status, what it printed)"""
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False,
                          timeout=120, preexec_fn=env.lab._enter(net, False))
    return done.returncode, done.stdout + done.stderr


def need(env, net, argv, text=None):
    code, out = run(env, net, argv, text)
    expect(code == 0, argv, out)
    return out


def doctor(env, net, *args):
    return run(env, net, [env.lab.binary("waggle"), "--pin-dir", env.lab.pin_dir, "doctor", *args])


def findings(env, net, area="kube-proxy"):
    code, out = doctor(env, net, "-o", "json")
    doc = json.loads(out)
    expect(doc["ok"] == (code == 0), code, out)
    return [f for f in doc["findings"] if f["area"] == area]


def saved(env, net, tool):
    """Its lines without the packets counted: the doctor itself asks the agent by TCP."""
    return [re.sub(r" \[\d+:\d+\]$", "", line) for line in need(env, net, [tool]).splitlines()
            if not line.startswith("#")]


class Rules:
    """A namespace with the rules of others, and a way to see that they are all still there."""

    tools = ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")

    def __init__(self, env, net):
        self.env, self.net = env, net
        env.lab.add_net(net)
        try:
            for tool in self.tools:
                need(env, net, [f"{tool}-restore", "--noflush"], FOREIGN)
            need(env, net, ["nft", "-f", "-"], FOREIGN_NFT)
            self.before = self.state()
        except Exception:
            self.done()
            raise

    def state(self):
        state = {tool: saved(self.env, self.net, f"{tool}-save") for tool in self.tools}
        for table in ("inet mine", "ip kube-proxy-too"):
            state[table] = need(self.env, self.net, ["nft", "list", "table", *table.split()])
        return state

    def expect_untouched(self):
        now = self.state()
        for name, was in self.before.items():
            expect(now[name] == was, f"{name} has changed:", now[name], "was", was)

    def done(self):
        self.env.lab.run(["ip", "netns", "del", self.env.lab.ns(self.net)])
        self.env.lab.nets.remove(self.net)


def six(text):
    """The same rules for IPv6."""
    return re.sub(r"\b10\.(\d+)\.(\d+)\.(\d+)(?:/\d+)?(:\d+)?",
                  lambda m: (f"[fd00:{m[1]}:{m[2]}::{m[3]}]{m[4]}" if m[4] else
                             f"fd00:{m[1]}:{m[2]}::{m[3]}"), text)


@test("full")
def the_doctor_takes_kube_proxys_iptables_rules_and_no_others(env):
    ours = Rules(env, "rules")
    try:
        for tool in Rules.tools:
            text = rules.iptables(20, PODS).replace(":KUBE-FIREWALL - [0:0]\n", "")
            need(env, "rules", [f"{tool}-restore", "--noflush"],
                 six(text) if tool.startswith("ip6") else text)
        with_kube_proxy = ours.state()
        found = [f for f in findings(env, "rules") if f["severity"] == "problem"]
        expect(len(found) == 8, "two tables of each of four:", found)  # filter, nat
        expect(all("--clean-kube-proxy" in f["remedy"] for f in found), found)
        kubelet = {f["what"].split("chain ")[1].split()[0] for f in findings(env, "rules")
                   if "kubelet's" in f["what"]}
        expect(kubelet == {"KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "KUBE-FIREWALL",
                           "KUBE-MARK-DROP"}, kubelet)
        # to look changes nothing, nor does being asked when there is nobody to answer
        code, out = doctor(env, "rules", "--clean-kube-proxy", "--dry-run")
        expect(code == 1 and "-A PREROUTING" in out and "chain KUBE-SVC-" in out, code, out[-300:])
        code, out = doctor(env, "rules", "--clean-kube-proxy")
        expect(code == 1 and "--yes" in out, code, out[-300:])
        expect(ours.state() == with_kube_proxy, "something was removed")
        code, out = doctor(env, "rules", "--clean-kube-proxy", "--yes")
        expect(code == 0, code, out[-500:])
        ours.expect_untouched()
        expect(not [f for f in findings(env, "rules") if f["severity"] == "problem"], "left")
        code, out = doctor(env, "rules", "--clean-kube-proxy", "--yes")
        expect(code == 0 and "nothing of kube-proxy's" in out, code, out[-300:])
    finally:
        ours.done()


@test("full")
def the_doctor_takes_kube_proxys_nftables(env):
    ours = Rules(env, "rules")
    try:
        for part in rules.nft(20, PODS):
            need(env, "rules", ["nft", "-f", "-"], part)
        need(env, "rules", ["nft", "add", "table", "ip6", "kube-proxy"])
        found = {f["what"] for f in findings(env, "rules") if f["severity"] == "problem"}
        expect(found == {"nftables: table ip kube-proxy", "nftables: table ip6 kube-proxy"}, found)
        code, out = doctor(env, "rules", "--clean-kube-proxy", "--yes")
        expect(code == 0, code, out[-500:])
        ours.expect_untouched()
        tables = need(env, "rules", ["nft", "list", "tables"]).splitlines()
        expect(not any(t.endswith(" kube-proxy") for t in tables), tables)
    finally:
        ours.done()


@test("full")
def the_doctor_leaves_a_chain_that_others_use(env):
    ours = Rules(env, "rules")
    try:
        need(env, "rules", ["iptables-nft-restore", "--noflush"],
             rules.iptables(3, PODS).replace(":KUBE-FIREWALL - [0:0]\n", ""))
        need(env, "rules", ["iptables-nft", "-t", "nat", "-A", "CNI-HOSTPORT-SETMARK", "-j",
                            "KUBE-MARK-MASQ"])
        code, out = doctor(env, "rules", "--clean-kube-proxy", "--yes")
        expect(code == 0 and "KUBE-MARK-MASQ is in use by: -A CNI-HOSTPORT-SETMARK" in out,
               code, out[-500:])
        left = [line for line in saved(env, "rules", "iptables-nft-save") if "KUBE-" in line and
                "kubelet" not in line]
        expect("-A CNI-HOSTPORT-SETMARK -j KUBE-MARK-MASQ" in left and
               not any("KUBE-SVC" in line for line in left), left)
        need(env, "rules", ["iptables-nft", "-t", "nat", "-D", "CNI-HOSTPORT-SETMARK", "-j",
                            "KUBE-MARK-MASQ"])
        need(env, "rules", [env.lab.binary("waggle"), "doctor", "--clean-kube-proxy", "--yes"])
        ours.expect_untouched()
    finally:
        ours.done()


@test("full")
def the_doctor_takes_the_device_and_sets_of_ipvs(env):
    env.lab.add_net("ipvs")
    try:
        env.lab.ip("ipvs", "link add kube-ipvs0 type veth peer name peer0",
                   "link add mine0 type veth peer name peer1")
        sets = bool(shutil.which("ipset"))
        if sets:
            for name in ("KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP", "KUBE-SRC-ABC", "mine"):
                need(env, "ipvs", ["ipset", "create", name, "hash:ip,port"])
            need(env, "ipvs", ["iptables-nft", "-t", "nat", "-N", "KUBE-SERVICES"])
            need(env, "ipvs", ["iptables-nft", "-t", "nat", "-A", "KUBE-SERVICES", "-m", "set",
                               "--match-set", "KUBE-CLUSTER-IP", "dst,dst", "-j", "ACCEPT"])
        found = [f["what"] for f in findings(env, "ipvs")]
        expect(any("kube-ipvs0" in what for what in found), found)
        code, out = doctor(env, "ipvs", "--clean-kube-proxy", "--yes")
        expect(code == 0, code, out)
        links = env.lab.sh("ipvs", ["ip", "-br", "link"])
        expect("kube-ipvs0" not in links and "mine0" in links, links)
        if sets:
            expect(need(env, "ipvs", ["ipset", "list", "-name"]).split() ==
                   ["KUBE-SRC-ABC", "mine"], "sets")
    finally:
        env.lab.run(["ip", "netns", "del", env.lab.ns("ipvs")])
        env.lab.nets.remove("ipvs")


@test("full")
def the_doctor_sees_a_kube_proxy_that_runs(env):
    env.lab.add_net("proxied")
    holder = env.lab.background("proxied", "echo", "--label", "x", "--port", 10249, name="proxy")
    try:
        need(env, "proxied", ["nft", "add", "table", "ip", "kube-proxy"])
        found = [f["what"] for f in findings(env, "proxied")]
        expect(any("port 10249" in what and f"pid {holder.pid}" in what for what in found), found)
        code, out = doctor(env, "proxied", "--clean-kube-proxy", "--yes")
        expect(code == 1 and "kube-proxy runs" in out, code, out)
        expect("kube-proxy" in need(env, "proxied", ["nft", "list", "tables"]), "removed")
        code, out = doctor(env, "proxied", "--clean-kube-proxy", "--yes", "--force")
        expect("kube-proxy" not in need(env, "proxied", ["nft", "list", "tables"]), "not removed")
    finally:
        env.lab.stop(holder)
        env.lab.run(["ip", "netns", "del", env.lab.ns("proxied")])
        env.lab.nets.remove("proxied")


@test("full")
def the_doctor_says_what_cannot_be_looked_at(env):
    env.lab.add_net("bare")
    try:
        # a node without any of the programs: everything else is still told
        argv = ["unshare", "-m", "sh", "-c",
                "for f in /usr/sbin/iptables* /usr/sbin/ip6tables* /usr/sbin/nft; do "
                "mount --bind /dev/null $f; done; exec \"$0\" doctor -o json",
                env.lab.binary("waggle")]
        code, out = run(env, "bare", argv)
        blind = [f["what"] for f in json.loads(out)["findings"] if f["area"] == "kube-proxy"]
        expect(code == 1 and any("iptables-nft-save are not here" in b for b in blind) and
               any("nft is not here" in b for b in blind), code, out)
    finally:
        env.lab.run(["ip", "netns", "del", env.lab.ns("bare")])
        env.lab.nets.remove("bare")


@test("full")
def the_doctor_finds_a_healthy_node_healthy(env):
    lab = env.lab
    found = findings(env, "node", "agent") + findings(env, "node", "datapath")
    expect(not found, found)
    problems = [f for f in json.loads(doctor(env, "node", "-o", "json")[1])["findings"]
                if f["severity"] == "problem"]
    expect(not problems, problems)
    lab.ip("node", "link add flannel.1 type veth peer name cilium_host")
    lab.sysctl("node", "net.ipv4.ip_forward=0")
    try:
        code, out = doctor(env, "node")
        expect(code == 1 and "ip_forward is 0" in out and "of Flannel, such as flannel.1" in out and
               "of Cilium, such as cilium_host" in out, code, out)
    finally:
        lab.sysctl("node", "net.ipv4.ip_forward=1")
        lab.ip("node", "link del flannel.1")
    lab.kill_agent()
    try:
        code, out = doctor(env, "node")
        expect(code == 1 and "no agent answers on 127.0.0.1:9879" in out, code, out)
    finally:
        lab.start_agent(*lab.agent_args)
    wait_for("a healthy node", lambda: doctor(env, "node")[0] == 0)

