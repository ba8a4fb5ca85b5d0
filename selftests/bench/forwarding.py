# SPDX-License-Identifier: Apache-2.0
"""Who forwards: a node with one pod and one neighbour that plays another node of the cluster."""
import json
import os
import socket
import struct

from contenders import Frames
from topology import Node, command
from waggle import Waggle

PORT = 8080
POD, POD_CIDR = "10.244.1.10", "10.244.1.0/24"
REMOTE, REMOTE_CIDR = "10.244.2.9", "10.244.2.0/24"
NODE_IP, WIRE_IP = "10.90.0.1", "10.90.0.2"
NODE_MAC, WIRE_MAC = "02:00:00:00:09:01", "02:00:00:00:09:02"
NODE_VX_MAC, WIRE_VX_MAC = "02:00:00:00:0a:01", "02:00:00:00:0a:02"
VXLAN_PORT, VNI = 8472, 1


def mac_bytes(mac):
    return bytes.fromhex(mac.replace(":", ""))


def outer_headers(inner):
    """What the neighbour's tunnel puts before a frame of this length, as hex."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + 8 + 8 + inner, 0, 0x4000, 64, 17, 0,
                     socket.inet_aton(WIRE_IP), socket.inet_aton(NODE_IP))
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xffff) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", ~((total & 0xffff) + (total >> 16)) & 0xffff) + ip[12:]
    udp = struct.pack("!HHHH", 40000, VXLAN_PORT, 8 + 8 + inner, 0)
    return (mac_bytes(NODE_MAC) + mac_bytes(WIRE_MAC) + b"\x08\x00" + ip + udp
            + struct.pack("!BxxxI", 8, VNI << 8)).hex()


class Link(Node):
    """NAME-n (node), NAME-c (its pod), NAME-w (the neighbour)."""

    def __init__(self, name):
        super().__init__(name)
        self.pods = [f"{name}-c"]
        self.wire = f"{name}-w"

    def make_link(self):
        command(["ip", "netns", "add", self.wire])
        command(["ip", "-n", self.node, "link", "add", "eth0", "address", NODE_MAC, "type", "veth",
                 "peer", "name", "eth0", "address", WIRE_MAC, "netns", self.wire])
        for name, addr, other, mac in ((self.node, NODE_IP, WIRE_IP, WIRE_MAC),
                                       (self.wire, WIRE_IP, NODE_IP, NODE_MAC)):
            command(["ip", "-n", name, "-batch", "-"], f"""\
addr add {addr}/24 dev eth0
link set eth0 up
link set lo up
neigh add {other} lladdr {mac} dev eth0 nud permanent
route add default via {other}
""")

    def remove(self):
        self.pods.append(self.wire)
        super().remove()


class Forward:
    """A contender. out: from the pod to the wire; in: from the wire to the pod."""
    tunnel = False

    def __init__(self, ctx):
        self.ctx, self.label = ctx, self.kind
        self.node = Link(ctx.netns_name())
        self.frames = {}

    def start_frames(self, flows):
        macs = []
        if self.tunnel:
            macs = ["--macs", (mac_bytes(WIRE_VX_MAC) + mac_bytes(self.vx_mac())).hex()]
        self.frames["out"] = EndToEnd(self.ctx, self.node, (self.node.client_if, self.node.client),
                                      self.node.wire, (self.node.addresses[0], REMOTE),
                                      ["--tunnel", "backend"] if self.tunnel else [])
        self.frames["in"] = EndToEnd(self.ctx, self.node, ("eth0", self.node.wire),
                                     self.node.client, (REMOTE, self.node.addresses[0]),
                                     ["--tunnel", "client:" + outer_headers(54), *macs]
                                     if self.tunnel else [])
        for frames in self.frames.values():
            frames.open(0, flows)

    def vx_mac(self):
        return NODE_VX_MAC

    def settle(self):
        pass

    def down(self):
        for frames in self.frames.values():
            frames.close()
        self.node.remove()


class EndToEnd(Frames):
    """bench_pkt between one interface and another: frames go into `start`, seen at `end`."""

    def __init__(self, ctx, node, start, end, addresses, more):
        self.start, self.end, self.addresses, self.more = start, end, addresses, more
        super().__init__(ctx, node, (addresses[1], PORT))

    def argv(self, ctx, node, target):
        node_if, client = self.start
        return [ctx.tool("bench_pkt"), "--node-ns", f"/run/netns/{node.node}", "--node-if", node_if,
                "--client-ns", f"/run/netns/{client}", "--client-addr", self.addresses[0],
                "--target-addr", target[0], "--target-port", str(target[1]), "--cpu",
                str(ctx.cpu), "--backend-ns", f"/run/netns/{self.end}", *self.more]


class KernelRoute(Forward):
    kind = "route"

    def up(self):
        self.node.make_namespaces()
        self.node.make_link()
        self.node.make_veths()
        self.routes()

    def routes(self):
        command(["ip", "-n", self.node.node, "route", "add", REMOTE_CIDR, "via", WIRE_IP])


class KernelVxlan(KernelRoute):
    kind = "vxlan"
    tunnel = True

    def routes(self):
        command(["ip", "-n", self.node.node, "link", "add", "vx", "address", NODE_VX_MAC, "type",
                 "vxlan", "id", str(VNI), "dstport", str(VXLAN_PORT), "local", NODE_IP, "dev",
                 "eth0", "nolearning"])
        command(["ip", "-n", self.node.node, "-batch", "-"], f"""\
link set vx up
neigh add 10.94.0.2 lladdr {WIRE_VX_MAC} dev vx nud permanent
route add {REMOTE_CIDR} via 10.94.0.2 dev vx onlink
""")
        command(["bridge", "-n", self.node.node, "fdb", "append", WIRE_VX_MAC, "dev", "vx", "dst",
                 WIRE_IP])


class WaggleForward(Forward, Waggle):
    kind = "waggle-native"
    more_args = ["--routing-mode=native", "--auto-direct-node-routes=true", "--devices=eth0"]

    def __init__(self, ctx):
        Waggle.__init__(self, ctx, 0)
        self.more_args = [*self.more_args, f"--attach={ctx.args.attach}"]
        self.node = Link(self.node.name)
        self.frames = {}

    def up(self):
        self.node.make_namespaces()
        self.node.make_link()
        for path in (self.dir, self.manifests, self.state, self.cgroup):
            os.mkdir(path)
        for n, (name, addr, cidr) in enumerate(((self.node.name, NODE_IP, POD_CIDR),
                                                ("other", WIRE_IP, REMOTE_CIDR))):
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                    "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
                    "status": {"addresses": [{"type": "InternalIP", "address": addr}]}}
            with open(os.path.join(self.manifests, f"node-{n}.yaml"), "w", encoding="utf-8") as f:
                json.dump(node, f)
        self.start_agent()
        self.add_pod(0)
        self.until("a way to the other node", self.knows_other, 10)

    def settle(self):
        """A pod that is here to stay has its link in its filter's place (docs/adr/0007)."""
        if self.ctx.args.attach == "auto" and "devices by tcx" in self.log_tail(1 << 16):
            self.until("the pod's link", lambda: any(
                p.startswith(self.node.client_if + "_")
                for p in os.listdir(os.path.join(self.pins, "links"))), 60)

    def knows_other(self):
        return "10.244.2.0" in command(["ip", "-n", self.node.node, "route", "show"])

    def vx_mac(self):
        link = json.loads(command(["ip", "-n", self.node.node, "-j", "link", "show",
                                   "waggle_vxlan"]))
        return link[0]["address"]

    def down(self):
        for frames in self.frames.values():
            frames.close()
        self.frames = None
        Waggle.down(self)


class WaggleTunnel(WaggleForward):
    kind = "waggle-tunnel"
    tunnel = True
    more_args = ["--routing-mode=tunnel", "--devices=eth0"]


KINDS = {c.kind: c for c in (KernelRoute, KernelVxlan, WaggleForward, WaggleTunnel)}
