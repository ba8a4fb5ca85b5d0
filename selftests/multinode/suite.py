# SPDX-License-Identifier: Apache-2.0
"""What the tests of several nodes share: the list of tests, the configurations, one cluster."""
import dataclasses
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

import multinode
from netlab import LabError, fields, host_port, port, wait_for
from expect import Failure, expect, expect_ok, observed

TESTS = []
NODES = ("n1", "n2", "n3")
PODS = ("a", "b")
NODE_PORT_ECHO = 9000  # where a server of the node itself listens


@dataclasses.dataclass
class Config:
    """One cluster to test. level: how much of the suite ("plain" is the lab without Waggle)."""
    level: str
    routing: str = "tunnel"
    args: tuple = ()
    families: tuple = (4, 6)
    underlay: tuple = ()
    mtu: int = 1500
    plain: str = ""
    link_type: str = ""  # what the kernel must have

    @property
    def overhead(self):
        """What a tunnel over the underlay's first family adds to a packet."""
        return 50 if (self.underlay or self.families)[0] == 4 else 70

    def direct(self, a, b):
        """Do packets between these nodes travel as they are?"""
        if self.routing == "native":
            return True
        return self.routing == "auto" and a.subnet == b.subnet


CONFIGS = {  # the longest first: they run side by side
    "policy": Config("policy", "tunnel"),
    "policy-native": Config("policy", "native", ("--socket-lb=off",)),
    "plain-route": Config("plain", "native", plain="route"),
    "plain-vxlan": Config("plain", "tunnel", plain="vxlan"),
    "tunnel": Config("full", "tunnel"),
    "native": Config("full", "native", ("--socket-lb=off",)),
    "auto": Config("full", "auto"),
    "tunnel-packet": Config("paths", "tunnel", ("--socket-lb=off",)),
    "tunnel-kernel": Config("paths", "tunnel", ("--host-routing=kernel",)),
    "native-kernel": Config("paths", "native", ("--host-routing=kernel",)),
    "tunnel-v4": Config("some", "tunnel", families=(4,)),
    "tunnel-v6": Config("some", "tunnel", families=(6,)),
    "tunnel-over-v4": Config("some", "tunnel", underlay=(4,)),
    "tunnel-over-v6": Config("some", "tunnel", underlay=(6,)),
    "tunnel-geneve": Config("some", "tunnel", ("--tunnel-protocol=geneve",), link_type="geneve"),
    "native-v4": Config("some", "native", families=(4,)),
    "native-v6": Config("some", "native", families=(6,)),
    "auto-v4": Config("some", "auto", families=(4,)),
    "auto-v6": Config("some", "auto", families=(6,)),
    "tunnel-jumbo": Config("some", "tunnel", mtu=9000),
    "native-jumbo": Config("some", "native", mtu=9000),
    "dsr": Config("dsr", "tunnel", ("--lb-mode=dsr",)),
    "dsr-kernel": Config("dsr", "tunnel", ("--lb-mode=dsr", "--host-routing=kernel")),
    "dsr-auto": Config("dsr", "auto", ("--lb-mode=dsr",)),
    "dsr-hybrid": Config("dsr", "auto", ("--lb-mode=hybrid", "--socket-lb=off")),
    "dsr-v6": Config("dsr", "tunnel", ("--lb-mode=dsr",), families=(6,)),
    "auto-jumbo": Config("some", "auto", mtu=9000),
}


QUICK = ("policy", "plain-route", "plain-vxlan", "tunnel", "native", "auto-v6", "tunnel-jumbo",
         "dsr")


def kernel_has(link_type):
    """Can this kernel make such a device? Tried in a namespace of its own."""
    if not link_type:
        return True
    done = subprocess.run(["unshare", "-n", "ip", "link", "add", "probe", "type", link_type,
                           "external"], capture_output=True, check=False)
    return done.returncode == 0


def test(*levels, routing=("tunnel", "native", "auto")):
    """Marks a test; it runs in the configurations of these levels and routing modes."""
    def mark(function):
        TESTS.append((function, levels, routing))
        return function
    return mark


def tests_of(config, part=""):
    return [f for f, levels, routing in TESTS
            if config.level in levels and config.routing in routing and part in f.__name__]


class Env:
    """A cluster in one configuration, with the pods every test uses."""

    def __init__(self, cluster, config):
        self.cluster, self.config = cluster, config
        self.nodes = list(cluster.nodes.values())
        self.outside = cluster.outside
        self.next_vip = 1
        self.services = []

    @property
    def families(self):
        return self.cluster.families

    @property
    def underlay(self):
        return self.cluster.underlay

    @property
    def node_families(self):
        """In which a node and a pod can talk to each other."""
        return [f for f in self.families if f in self.underlay]

    @property
    def agent_args(self):
        # Small tables: what is preallocated takes time to make.
        args = [f"--routing-mode={self.config.routing}", "--ct-max=32768", "--svc-max=1024",
                "--slot-max=4096", *self.config.args]
        if self.config.routing == "native":
            args.append("--auto-direct-node-routes=true")
            args.append("--direct-routing-skip-unreachable=true")
        return args

    def set_up(self):
        if self.config.plain:
            multinode.PLAIN[self.config.plain](self.cluster)
        else:
            if self.config.routing != "tunnel":
                self.cluster.router_routes()
            self.cluster.start_agents(*self.agent_args)
        for node in self.nodes:
            for n, name in enumerate(PODS):
                pod = f"{node.node_name}-{name}"
                if self.config.plain:
                    multinode.plain_pod(node, pod, n + 10)
                else:
                    node.add_pod(pod)
                self.echo(node, pod, pod, "8080")
            self.echo(node, "node", node.node_name, NODE_PORT_ECHO)
        for net in ("out", "far"):
            self.echo(self.outside, net, net, "8080")
        self.meet()

    def echo(self, lab, net, label, ports):
        lab.background(net, "echo", "--label", label, "--port", ports, name=f"echo-{label}")

    def meet(self):
        """A new link's first neighbour lookups take up to a second: not what the tests measure."""
        for node in self.nodes:
            for other in self.nodes:
                for family in self.underlay:
                    if other is not node:
                        wait_for(f"{node.node_name} to reach {other.node_name}",
                                 lambda n=node, o=other, f=family: n.connect(
                                     "node", o.addr(f), NODE_PORT_ECHO,
                                     timeout_ms=300)["is"] == "ok")
            for family in self.underlay:
                for net in ("out", "far"):
                    wait_for(f"{node.node_name} to reach {net}",
                             lambda n=node, t=net, f=family: n.connect(
                                 "node", self.outside.addr(t, f), 8080,
                                 timeout_ms=300)["is"] == "ok")

    def pods(self, but=None):
        """(node, name, addresses by family) of every pod."""
        return [(node, name, addrs) for node in self.nodes
                for name, addrs in sorted(node.pods.items()) if name != but]

    def first_pods(self):
        """One pod of each node."""
        return [(node, f"{node.node_name}-a", node.pods[f"{node.node_name}-a"])
                for node in self.nodes]

    def service(self, backends, ports=None, kind="ClusterIP", **spec):
        """A new Service before these pods; its address by family. In force when this returns."""
        n = self.next_vip
        self.next_vip += 1
        vips = {4: f"10.96.0.{n}", 6: f"fd00:10:96::{n:x}"}
        vips = {f: vips[f] for f in self.families}
        name = f"svc-{n}"
        self.services.append(name)
        self.cluster.service(name, list(vips.values()),
                             [addrs[f] for _, _, addrs in backends for f in self.families],
                             ports, kind,
                             {addrs[f]: node.node_name for node, _, addrs in backends
                              for f in self.families}, **spec)
        for node in self.nodes:
            wait_for(f"{name} at {node.node_name}",
                     lambda l=node: all(v in l.cli("bpf", "lb", "list", "-o", "json")
                                        for v in vips.values()), 20)
        return vips

    def clean(self):
        for name in self.services:
            self.cluster.remove(f"{name}.yaml")
        for node in self.nodes if self.services else ():
            if node.agent.poll() is None:
                wait_for(f"no Service at {node.node_name}",
                         lambda l=node: not json.loads(l.cli("bpf", "lb", "list", "-o", "json")))
        self.services = []

    def revive(self):
        """A test that failed half-way may have left an agent dead."""
        for node in self.nodes:
            if node.agent and node.agent.poll() is not None:
                node.start_agent(*self.agent_args, seconds=60)


def ask(lab, net, mode, targets, *args):
    """wagtest from net to each (address, port) in one process; its lines, in that order."""
    if not targets:
        return []
    dst = ",".join(host_port(a, p) if p else a for a, p in targets)
    lines = [line for line in lab.wagtest(net, mode, "--dst", dst, "--timeout", 2000, *args)
             if line["is"] != "peer"]
    expect(len(lines) == len(targets), f"{mode} from {net} to {dst}:", lines)
    return lines


__all__ = ["CONFIGS", "Env", "Failure", "LabError", "NODE_PORT_ECHO", "QUICK", "ask", "expect",
           "expect_ok", "fields", "host_port", "kernel_has", "observed", "port", "test", "tests_of",
           "wait_for"]
