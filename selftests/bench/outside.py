# SPDX-License-Identifier: Apache-2.0
"""Who serves a NodePort: a node whose neighbour plays both a client outside and the other nodes
that have the backends, so that every packet comes in and goes out by the node's one device."""
import json
import os

import rules
from forwarding import NODE_IP, REMOTE_CIDR, WIRE_IP, Link
from contenders import Frames
from topology import command, flush_conntrack, inside, sysctls
from waggle import Waggle

NODE_PORT = 30080
CLIENT, MORE_CLIENTS = "10.91.0.2", "10.91.128.0"
BACKENDS = [f"10.244.2.{n}" for n in range(9, 13)]
EST_FLOWS = 4096


class WireFrames(Frames):
    xdp = False

    def argv(self, ctx, node, target):
        wire = f"/run/netns/{node.wire}"
        return [ctx.tool("bench_pkt"), "--node-ns", f"/run/netns/{node.node}", "--node-if", "eth0",
                "--client-ns", wire, "--client-addr", CLIENT, "--more-addrs", MORE_CLIENTS,
                "--target-addr", target[0], "--target-port", str(target[1]), "--cpu", str(ctx.cpu),
                "--at-wire", *(["--node-has-xdp"] if self.xdp else [])]


class XdpFrames(WireFrames):
    xdp = True


class Outside:
    frames_class = WireFrames

    def __init__(self, ctx, services):
        self.ctx, self.services = ctx, services
        self.node = Link(ctx.netns_name())
        self.frames = None
        self.next_new = 1 << 20

    def up(self):
        self.node.make_namespaces()
        self.node.make_link()
        command(["ip", "-n", self.node.node, "route", "add", REMOTE_CIDR, "via", WIRE_IP])
        self.program()

    def program(self):
        pass

    def start_frames(self):
        self.frames = self.frames_class(self.ctx, self.node, (NODE_IP, NODE_PORT))
        self.frames.open(0, EST_FLOWS)

    def new_burst(self, count):
        first = self.next_new
        self.next_new += count
        return self.frames.run("syn", first, count)

    def after_new(self):
        """Brings back the state that new flows disturbed."""

    def down(self):
        if self.frames:
            self.frames.close()
        self.node.remove()


class KubeProxy(Outside):
    def up(self):
        super().up()
        sysctls(self.node.node, {"net.netfilter.nf_conntrack_checksum": 0})

    def after_new(self):
        flush_conntrack(self.node.node)
        self.frames.open(0, EST_FLOWS)


class Nft(KubeProxy):
    kind = "nftables"

    def program(self):
        for part in rules.nft(self.services, BACKENDS, 400, NODE_PORT):
            command(inside(self.node.node, "nft", "-f", "-"), part)
        command(inside(self.node.node, "nft", "add", "element", *rules.TABLE.split(),
                       "nodeport-ips", "{", NODE_IP, "}"))


class Iptables(KubeProxy):
    kind = "iptables"

    def program(self):
        command(inside(self.node.node, "iptables-legacy-restore", "--noflush"),
                rules.iptables(self.services, BACKENDS, NODE_PORT))


class WaggleOutside(Outside, Waggle):
    kind = "waggle"
    acceleration = "disabled"

    def __init__(self, ctx, services):
        Waggle.__init__(self, ctx, services)
        self.node = Link(self.node.name)
        self.more_args = ["--devices=eth0", f"--lb-acceleration={self.acceleration}",
                          f"--attach={ctx.args.attach}"]
        self.next_new = 1 << 20

    def program(self):
        for path in (self.dir, self.manifests, self.state, self.cgroup):
            os.mkdir(path)
        for n, (name, addr, cidr) in enumerate(((self.node.name, NODE_IP, "10.244.1.0/24"),
                                                ("other", WIRE_IP, REMOTE_CIDR))):
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                    "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
                    "status": {"addresses": [{"type": "InternalIP", "address": addr}]}}
            with open(os.path.join(self.manifests, f"node-{n}.yaml"), "w", encoding="utf-8") as f:
                json.dump(node, f)
        with open(os.path.join(self.manifests, "services.json"), "w", encoding="utf-8") as f:
            f.write(rules.manifest(self.services, BACKENDS, NODE_PORT))
        self.start_agent()
        self.until(f"{self.services} Services are programmed", self.programmed, 60)

    def down(self):
        if self.frames:
            self.frames.close()
        self.frames = None
        Waggle.down(self)


class WaggleXdp(WaggleOutside):
    kind = "waggle-xdp"
    acceleration = "native"
    frames_class = XdpFrames


KINDS = {c.kind: c for c in (Nft, Iptables, WaggleOutside, WaggleXdp)}
