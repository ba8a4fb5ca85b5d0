# SPDX-License-Identifier: Apache-2.0
"""What the behaviour tests share: the list of tests, their node and its pods, and assertions."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

import expect as expect_module
import netlab
from expect import Failure, expect, expect_ok, expect_refused
from netlab import NODE4, NODE6, OUT4, OUT6, fields, host_port, port, vip, wait_for

TESTS = []
FAMILIES = (0, 1)  # index into (v4, v6) pairs
MODES = {
    "full": ["--socket-lb=full"],
    "off": ["--socket-lb=off"],
    "clsact": ["--socket-lb=full", "--attach=clsact"],
    "tcx": ["--socket-lb=full", "--attach=tcx"],
    "host": ["--socket-lb=host"],
    "kept": ["--socket-lb=off", "--non-masquerade-cidrs=10.91.0.0/24,fd91::/64"],
    "kernel": ["--socket-lb=full", "--host-routing=kernel"],
    "nodeport": ["--socket-lb=full", "--nodeport-addresses=127.0.0.0/8,10.92.0.0/16,fd90::/64"],
    "unmasked": ["--socket-lb=full", "--enable-ipv4-masquerade=false"],
}
SUITE_MODES = ("full", "off", "clsact", "kernel")


def test(*modes):
    """Marks a test; it runs in the modes named, or in each of the suite's."""
    def mark(function):
        TESTS.append((function, modes or SUITE_MODES))
        return function
    return mark


def echo_server(number):
    """A Python program: what TCP brings to this port, of either family, goes back as it came."""
    return f"""
import socket, threading
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", {number}))
s.listen()
print("ready", flush=True)
def echo(c):
    while data := c.recv(65536):
        c.sendall(data)
    c.close()
while True:
    threading.Thread(target=echo, args=(s.accept()[0],), daemon=True).start()
"""


class Env:
    """One node in one mode, with the pods every test uses; Services come and go with the tests."""

    def __init__(self, lab, mode):
        self.lab, self.mode = lab, mode
        self.socket_lb = mode != "off"
        self.next_vip = 1
        self.services = []

    def set_up(self):
        lab = self.lab
        lab.start_agent(*MODES[self.mode])
        for pod in ("web-1", "web-2", "web-3"):
            lab.add_web(pod, "8080,8081", sctp=7000)
        for pod in ("client", "other"):
            lab.add_pod(pod)
        lab.background("out", "echo", "--label", "outside", "--port", "8080", name="echo-out")
        lab.background("far", "echo", "--label", "far", "--port", "8080", name="echo-far")
        # A new link's first neighbour lookups take up to a second: not what the tests measure.
        for net, addrs in (("node", (OUT4, OUT6)), ("client", (OUT4, OUT6))):
            for addr in addrs:
                wait_for(f"{net} to reach {addr}",
                         lambda n=net, a=addr: lab.connect(n, a, 8080)["is"] == "ok")

    def service(self, backends, ports=None, kind="ClusterIP", name=None, live=True):
        """A new Service of both families; its two addresses. Waits until it answers."""
        vips = vip(self.next_vip)
        self.next_vip += 1
        name = name or f"svc-{self.next_vip}"
        self.services.append(name)
        ports = ports or [port(80, 8080), port(80, 8080, "UDP")]
        self.lab.service(name, vips, backends, ports, kind)
        if live:
            self.wait_live(vips, [p for p in ports if p["protocol"] != "SCTP"], bool(backends))
        return vips

    def again(self, vips, backends, ports=None, kind="ClusterIP"):
        """Writes a Service anew with other backends."""
        self.lab.service(self.services[-1], vips, backends,
                         ports or [port(80, 8080), port(80, 8080, "UDP")], kind)

    def wait_live(self, vips, ports, answers=True):
        tcp = [p for p in ports if p["protocol"] == "TCP"]

        def known():
            lines = self.lab.cli("bpf", "lb", "list", "-o", "json")
            return all(v in lines for v in vips)
        wait_for(f"{vips} in the map", known)
        if answers and tcp:
            for v in vips:
                wait_for(f"{v} to answer", lambda a=v: self.lab.connect(
                    "client", a, tcp[0]["port"], timeout_ms=500)["is"] == "ok")

    def clean(self):
        """Removes the Services a test made."""
        for name in self.services:
            try:
                self.lab.remove(f"{name}.yaml")
            except FileNotFoundError:
                pass
        self.services = []
        if self.lab.agent.poll() is None:
            # the next test may use their node ports again
            wait_for("an empty node", lambda: "10.96." not in self.lab.cli(
                "bpf", "lb", "list", "-o", "json"))

    def drops(self):
        """Drop counters by reason, from the metrics."""
        found = {}
        for line in self.lab.http("/metrics")[1].splitlines():
            if "drop" in line and "bytes" not in line and 'reason="' in line:
                reason = line.split('reason="')[1].split('"')[0]
                found[reason] = found.get(reason, 0) + float(line.rsplit(" ", 1)[1])
        return found

    def node_addr(self, family):
        return (NODE4, NODE6)[family]


def observed(env, *args):
    return expect_module.observed(env.lab, *args)
