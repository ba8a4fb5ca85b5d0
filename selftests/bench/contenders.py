# SPDX-License-Identifier: Apache-2.0
"""Who is compared: the plain route, kube-proxy's two rule sets, and Waggle on both its paths."""
import subprocess
import time

import rules
from topology import (MORE_CLIENTS, Node, BenchError, command, flush_conntrack, inside, netns,
                      ns_path, sysctls)

EST_FLOWS = 4096
BURST = 16384  # packets of one measured burst at most
FILL = 65536  # and of one that is not


class Void(BenchError):
    """A measurement that lost packets measures nothing."""


class Frames:
    """bench_pkt at work between the pods of one node."""

    def __init__(self, ctx, node, target):
        args = self.argv(ctx, node, target)
        if ctx.fifo:
            args.append("--fifo")
        self.process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.expect("ready")

    def argv(self, ctx, node, target):
        address, port = target
        args = [ctx.tool("bench_pkt"), "--node-ns", ns_path(node.node), "--node-if",
                node.client_if, "--client-ns", ns_path(node.client), "--client-addr",
                node.addresses[0], "--more-addrs", MORE_CLIENTS, "--target-addr", address,
                "--target-port", str(port), "--cpu", str(ctx.cpu)]
        for name in node.backends:
            args += ["--backend-ns", ns_path(name)]
        return args

    def answer(self):
        line = self.process.stdout.readline().strip()
        if not line:
            self.process.wait(timeout=30)
            raise BenchError("frames: " + self.process.stderr.read().strip())
        return line

    def expect(self, word):
        line = self.answer()
        if line != word:
            raise BenchError(f"frames: expected {word}, not {line}")

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def open(self, first, count):
        self.say(f"open {first} {count}")
        line = self.answer()
        if line != "ok":
            raise Void(f"{line} (opening flow {first} and up)")

    def run(self, kind, first, count, times=1):
        """ns per packet; a packet that no backend saw voids the whole run."""
        self.say(f"run {kind} {first} {count} {times}")
        ns, sent, seen = (int(word) for word in self.answer().split())
        if sent != seen:
            raise Void(f"of {sent} packets {seen} arrived ({kind} of flow {first} and up)")
        return ns / sent

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Contender:
    kind = "direct"
    cgroup = None
    timed = True  # programmed alone, after all are up

    def __init__(self, ctx, services):
        self.ctx = ctx
        self.services = services
        self.label = f"{self.kind}-{services}" if services else self.kind
        self.node = Node(ctx.netns_name())
        self.frames = None
        self.next_new = 1 << 22
        self.program_ms = None
        self.burst = None  # packets of a burst of new flows

    def up(self):
        self.node.make_namespaces()
        self.node.make_veths()
        self.node.route_more_clients()
        if not self.timed:
            self.program()

    def program(self):
        """Brings the Services into force, and sets program_ms."""

    @property
    def target(self):
        """Where a client connects to."""
        return self.node.addresses[-1], rules.TARGET_PORT

    @property
    def frame_target(self):
        """Where the packets of that client's pod go to."""
        return self.target

    def memory(self):
        return {}

    def start_frames(self):
        self.frames = Frames(self.ctx, self.node, self.frame_target)
        if self.ctx.fill:
            self.fill()
        self.frames.open(0, EST_FLOWS)

    def fill(self):
        """Brings the conntrack table to 90 % with live flows."""

    def after_new(self):
        """Brings back the state that new flows disturbed."""

    def new_burst(self, count):
        first = self.next_new
        self.next_new += count
        return self.frames.run("syn", first, count)

    def down(self):
        if self.frames:
            self.frames.close()
        self.node.remove()


class KubeProxy(Contender):
    def up(self):
        super().up()
        # The packets of a local pod come with their checksums vouched for; live frames cannot.
        sysctls(self.node.node, {"net.netfilter.nf_conntrack_checksum": 0})

    @property
    def target(self):
        return rules.vip(self.services - 1), rules.PORT

    def after_new(self):
        flush_conntrack(self.node.node)
        self.frames.open(0, EST_FLOWS)


class Nft(KubeProxy):
    kind = "nftables"

    @property
    def timed(self):
        return self.services <= 1000 or self.ctx.slow_nft

    def program(self):
        parts = rules.nft(self.services, self.node.addresses[1:], None if self.timed else 400)
        begin = time.monotonic()
        for part in parts:
            if self.ctx.stopping:
                raise BenchError("stopped")
            command(inside(self.node.node, "nft", "-f", "-"), part)
        if self.timed:
            self.program_ms = (time.monotonic() - begin) * 1e3


class Iptables(KubeProxy):
    kind = "iptables"

    def program(self):
        text = rules.iptables(self.services, self.node.addresses[1:])
        begin = time.monotonic()
        command(inside(self.node.node, "iptables-legacy-restore", "--noflush"), text)
        self.program_ms = (time.monotonic() - begin) * 1e3


class Filler(Nft):
    """The kernel has one conntrack hash table for every namespace. One namespace fills it, and
    each kube-proxy contender finds it as full as if the flows were its own."""
    kind = "filler"
    FLOWS = (1 << 20) * 9 // 10

    def __init__(self, ctx):
        super().__init__(ctx, 1)

    def up(self):
        super().up()
        self.program()
        sysctls(self.node.node, {"net.netfilter.nf_conntrack_tcp_timeout_unacknowledged": 432000,
                                 "net.netfilter.nf_conntrack_tcp_timeout_max_retrans": 432000})
        frames = Frames(self.ctx, self.node, self.target)
        try:
            # Picked up in mid-stream: an established flow for one packet.
            for first in range(0, self.FLOWS, FILL):
                frames.run("ack", first, min(FILL, self.FLOWS - first))
        finally:
            frames.close()
        with netns(self.node.node), open("/proc/sys/net/netfilter/nf_conntrack_count",
                                         encoding="ascii") as f:
            count = int(f.read())
        if count < self.FLOWS:
            raise BenchError(f"conntrack holds {count} flows, not {self.FLOWS}")


KINDS = {c.kind: c for c in (Contender, Nft, Iptables)}
