# SPDX-License-Identifier: Apache-2.0
"""Three nodes with a router between them, each node with its agent, pins, state and cgroup.

    n1 (10.90.0.1) --+                                    +-- out (10.92.0.9), a client outside
    n2 (10.90.0.2) --+-- lan (10.90.0.254) router --------+
    rogue (.66) -----+                        |           +-- far (10.93.0.9), behind MTU 1300
                             n3 (10.91.0.3) --+

n1 and n2 share a subnet, n3 has one of its own: so a routing mode that tells them apart has both.
Every object of the cluster (Node, Service, EndpointSlice) is a file of one folder that all agents
watch. Pods of node N are 10.244.N.0/24 and fd00:10:244:N::/64.
"""
import contextlib
import json
import uuid

from netlab import Lab, LabError, service_objects, port

VXLAN_PORT, TUNNEL_VNI = 8472, 1
SUBNETS = {"lan": ("10.90.0.", "fd90::"), "wan": ("10.91.0.", "fd91::"),
           "out": ("10.92.0.", "fd92::"), "far": ("10.93.0.", "fd93::")}
PLACES = {"n1": ("lan", 1), "n2": ("lan", 2), "n3": ("wan", 3)}
FAR_MTU = 1300


def address(subnet, host, family):
    """Address HOST of a subnet in a family, 4 or 6."""
    prefix = SUBNETS[subnet][family == 6]
    return prefix + (str(host) if family == 4 else f"{host:x}")


def length(family):
    return 24 if family == 4 else 64


def family_of(addr):
    return 6 if ":" in addr else 4


def ip_family(family, command):
    return ("-6 " if family == 6 else "") + command


class Outside(Lab):
    """The router and whatever is no node."""

    def __init__(self, build, mtu, families):
        super().__init__(build)
        self.mtu, self.families = mtu, families

    def in_node(self, net):
        return False

    def _build(self):
        for net in ("router", "out", "far", "rogue"):
            self.add_net(net)
            self.sysctl(net, "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        self.sysctl("router", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
                    "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
        self.ip("router", f"link add lan mtu {self.mtu} type bridge forward_delay 0 "
                "mcast_snooping 0", "link set lan up")
        self.add_addresses("router", "lan", "lan", 254)
        for net, host in (("out", 9), ("far", 9)):
            self.plug(self, net, net)
            self.add_addresses("router", net, net, 254)
            self.add_addresses(net, "eth0", net, host)
            self.default_route(net, net)
        self.plug(self, "rogue", "rogue", bridge="lan")
        self.add_addresses("rogue", "eth0", "lan", 66)
        for end, dev in (("router", "far"), ("far", "eth0")):
            self.ip(end, f"link set {dev} mtu {FAR_MTU}")

    def plug(self, lab, net, port_name, bridge=None):
        """A cable from eth0 of a namespace to a port of the router."""
        self.run(["ip", "link", "add", "eth0", "mtu", str(self.mtu), "netns", lab.ns(net), "type",
                  "veth", "peer", "name", port_name, "mtu", str(self.mtu), "netns",
                  self.ns("router")])
        if bridge:
            self.ip("router", f"link set {port_name} master {bridge}")
        self.ip("router", f"link set {port_name} up")
        lab.ip(net, "link set eth0 up")

    def add_addresses(self, net, dev, subnet, host):
        for family in self.families:
            self.ip(net, f"addr add {address(subnet, host, family)}/{length(family)} dev {dev}"
                    + (" nodad" if family == 6 else ""))

    def default_route(self, net, subnet):
        for family in self.families:
            self.ip(net, ip_family(family, f"route add default via "
                                   f"{address(subnet, 254, family)}"))

    def addr(self, net, family):
        return {"out": address("out", 9, family), "far": address("far", 9, family),
                "rogue": address("lan", 66, family)}[net]


class ClusterNode(Lab):
    """One node: everything of a Lab, with the cluster's objects and router."""

    def __init__(self, cluster, name):
        super().__init__(cluster.build)
        self.cluster, self.node_name = cluster, name
        self.subnet, self.host = PLACES[name]
        self.manifests = cluster.outside.manifests
        self.boot_id = None  # a file, once the node has been rebooted

    def _build(self):
        outside = self.cluster.outside
        self.add_net("node")
        self.sysctl("node", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0",
                    "net.ipv4.conf.default.promote_secondaries=1")
        outside.plug(self, "node", self.node_name, "lan" if self.subnet == "lan" else None)
        if self.subnet != "lan":
            outside.add_addresses("router", self.node_name, self.subnet, 254)
        for family in self.cluster.underlay:
            addr = address(self.subnet, self.host, family)
            self.ip("node", f"addr add {addr}/{length(family)} dev eth0"
                    + (" nodad" if family == 6 else ""),
                    ip_family(family, f"route add default via {self.gateway(family)}"))

    def gateway(self, family):
        return address(self.subnet, 254, family)

    def addr(self, family):
        return address(self.subnet, self.host, family)

    def pod_cidr(self, family):
        n = self.node_name[1:]
        return f"10.244.{n}.0/24" if family == 4 else f"fd00:10:244:{n}::/64"

    def node_object(self):
        cidrs = [self.pod_cidr(f) for f in self.cluster.families]
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.node_name},
                "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
                "status": {"addresses": [
                    *({"type": "InternalIP", "address": self.addr(f)}
                      for f in self.cluster.underlay),
                    {"type": "Hostname", "address": self.node_name}]}}

    def cni_conf(self):
        return {"cniVersion": "1.1.0", "name": "waggle", "type": "waggle-cni",
                "pinDir": self.pin_dir, "stateDir": self.state_dir}

    def add_pod(self, pod, ns="default"):
        """Makes a namespace and has waggle-cni wire it; its addresses by family."""
        self.add_net(pod)
        result = json.loads(self.cni("ADD", pod, ns))
        ips = [ip["address"].split("/")[0] for ip in result["ips"]]
        self.pods[pod] = {family_of(a): a for a in ips}
        return self.pods[pod]

    def sh(self, net, argv, **kw):
        return super().sh(net, self.of_this_boot(net, argv), **kw)

    def start(self, net, argv, name=None, **kw):
        return super().start(net, self.of_this_boot(net, argv), name, **kw)

    def of_this_boot(self, net, argv):
        """After reboot() the node's programs see another boot id than the machine's."""
        if not self.boot_id or net != "node":
            return argv
        return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /proc/sys/kernel/random/boot_id && '
                'exec "$@"', self.boot_id, *argv]

    def reboot(self):
        """Only the disk is as before: no process, no namespace, nothing pinned, another boot id."""
        for proc in self.procs:
            if proc.poll() is None:
                proc.kill()
            proc.wait()
        self.cluster.outside.ip("router", f"link del {self.node_name}")
        for net in reversed(self.nets):
            self.run(["ip", "netns", "del", self.ns(net)])
        self.nets, self.pods = [], {}
        self.run(["umount", self.path("bpf")])
        self.run(["mount", "-t", "bpf", "bpf", self.path("bpf")])
        self.boot_id = self.path("boot_id")
        with open(self.boot_id, "w", encoding="ascii") as f:
            f.write(f"{uuid.uuid4()}\n")
        self._build()

    def routes(self):
        """Every route of the node, as the kernel prints them."""
        return sorted(line for family in ("-4", "-6") for line in self.sh(
            "node", ["ip", family, "route", "show", "table", "all"]).splitlines()
            if " cache" not in line)


class Cluster:
    """Use with `with`. families: of the pods; underlay: of the nodes' addresses."""

    def __init__(self, build=None, families=(4, 6), underlay=None, mtu=1500):
        self.families, self.underlay = families, underlay or families
        self.mtu = mtu
        self.outside = Outside(build, mtu, self.underlay)
        self.build = self.outside.build
        self.nodes = {}
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.outside)
            for name in PLACES:
                node = ClusterNode(self, name)
                self.nodes[name] = stack.enter_context(node)
                self.write_node(node)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exception):
        return self.stack.__exit__(*exception)

    def show_logs(self, tail=20):
        for lab in (*self.nodes.values(), self.outside):
            lab.show_logs(tail)

    # ---- objects ----

    def write(self, name, objects):
        self.outside.write(name, "---\n".join(json.dumps(o, indent=1) + "\n" for o in objects))

    def remove(self, name):
        self.outside.remove(name)

    def write_node(self, node, node_object=None):
        self.write(f"node-{node.node_name}.yaml", [node_object or node.node_object()])

    def remove_node(self, node):
        self.remove(f"node-{node.node_name}.yaml")

    def service(self, name, vips, backends, ports=None, kind="ClusterIP", where=None,
                annotations=None, **spec):
        """A Service of these addresses (one a family); backends: addresses. where: their nodes."""
        objects = service_objects(name, vips, backends,
                                  ports or [port(80, 8080), port(80, 8080, "UDP")], kind)
        objects[0]["spec"].update(spec)
        objects[0]["metadata"]["annotations"] = annotations or {}
        for piece in objects[1:]:
            for endpoint in piece["endpoints"]:
                if endpoint["addresses"][0] in (where or {}):
                    endpoint["nodeName"] = where[endpoint["addresses"][0]]
        self.write(f"{name}.yaml", objects)

    # ---- agents ----

    def start_agents(self, *args):
        for node in self.nodes.values():
            node.start_agent(*args, wait=False)
        for node in self.nodes.values():
            node.wait_ready(60)

    def router_routes(self, verb="add"):
        """What a network that routes natively knows: where each node's pods are."""
        for node in self.nodes.values():
            for family in self.families:
                self.outside.ip("router", ip_family(
                    family, f"route {verb} {node.pod_cidr(family)} via {node.addr(family)}"))


# ---- the same wires without Waggle: that the lab itself is right ----

def plain_pod(node, pod, host):
    """Wires a pod as a plugin would: /32 and /128, the node's end answers for everything."""
    node.add_net(pod)
    dev = f"h-{pod}"[:15]
    node.run(["ip", "link", "add", dev, "mtu", str(node.cluster.mtu), "netns", node.ns("node"),
              "type", "veth", "peer", "name", "eth0", "mtu", str(node.cluster.mtu), "netns",
              node.ns(pod)])
    node.ip("node", f"link set {dev} up")
    node.ip(pod, "link set eth0 up")
    macs = [json.loads(node.sh(net, ["ip", "-j", "link", "show", name]))[0]["address"]
            for net, name in (("node", dev), (pod, "eth0"))]
    node.pods[pod] = {}
    for family in node.cluster.families:
        gateway = "169.254.1.1" if family == 4 else "fe80::1"
        addr = node.pod_cidr(family).split("/", maxsplit=1)[0]
        addr = addr[:-1] + str(host) if family == 4 else f"{addr}{host:x}"
        bits = 32 if family == 4 else 128
        node.ip("node", ip_family(family, f"route add {addr}/{bits} dev {dev}"),
                f"neigh add {addr} lladdr {macs[1]} dev {dev} nud permanent")
        node.ip(pod, f"addr add {addr}/{bits} dev eth0" + (" nodad" if family == 6 else ""),
                f"neigh add {gateway} lladdr {macs[0]} dev eth0 nud permanent",
                ip_family(family, f"route add default via {gateway} dev eth0 onlink"))
        node.pods[pod][family] = addr


def plain_sysctls(node):
    node.sysctl("node", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def plain_routes(cluster):
    """Nodes of one subnet know each other's pods; the router knows all of them."""
    cluster.router_routes()
    for node in cluster.nodes.values():
        plain_sysctls(node)
        for other in cluster.nodes.values():
            if other is not node and other.subnet == node.subnet:
                for family in cluster.families:
                    node.ip("node", ip_family(family, f"route add {other.pod_cidr(family)} via "
                                              f"{other.addr(family)}"))


def plain_vxlan(cluster):
    """One VXLAN device a node, with the entries by hand that a control plane would write."""
    family = cluster.underlay[0]
    mac = {name: f"02:00:00:00:0a:0{name[1:]}" for name in cluster.nodes}
    overhead = 50 if family == 4 else 70
    for node in cluster.nodes.values():
        plain_sysctls(node)
        node.ip("node", f"link add vx address {mac[node.node_name]} mtu {cluster.mtu - overhead} "
                f"type vxlan id 1 dstport {VXLAN_PORT} local {node.addr(family)} dev eth0 "
                "nolearning", "link set vx up")
        for name, other in cluster.nodes.items():
            if other is node:
                continue
            node.run(["bridge", "-n", node.ns("node"), "fdb", "append", mac[name], "dev", "vx",
                      "dst", other.addr(family)])
            for f in cluster.families:
                gateway = f"10.94.0.{other.host}" if f == 4 else f"fd94::{other.host}"
                node.ip("node", f"neigh add {gateway} lladdr {mac[name]} dev vx nud permanent",
                        ip_family(f, f"route add {other.pod_cidr(f)} via {gateway} dev vx onlink "
                                  f"src {node.addr(f)}"))


PLAIN = {"route": plain_routes, "vxlan": plain_vxlan}

__all__ = ["Cluster", "ClusterNode", "LabError", "PLAIN", "address", "family_of", "plain_pod"]
