# SPDX-License-Identifier: Apache-2.0
"""One node with a client pod and four backend pods, each a network namespace."""
import contextlib
import ctypes
import os
import socket
import struct
import subprocess

CLONE_NEWNET = 0x40000000
BACKENDS = 4
MORE_CLIENTS = "10.244.128.0"  # further source addresses behind the client pod

libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    pass


def command(args, stdin=None, env=None):
    done = subprocess.run(args, input=stdin, text=True, capture_output=True, env=env, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise BenchError(f"{' '.join(args[:6])}: {said[-800:]}")
    return done.stdout


def ns_path(name):
    return f"/run/netns/{name}"


def inside(name, *args):
    """`ip netns exec` would remount /sys and hide the cgroups; nsenter does not."""
    return ["nsenter", f"--net={ns_path(name)}", *args]


@contextlib.contextmanager
def netns(name):
    """This thread inside a namespace; a socket opened there stays there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(ns_path(name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {name}")
        yield
    finally:
        libc.setns(home, CLONE_NEWNET)
        os.close(home)
        os.close(there)


def sysctls(name, values):
    with netns(name):
        for key, value in values.items():
            with open("/proc/sys/" + key.replace(".", "/"), "w", encoding="ascii") as f:
                f.write(str(value))


def flush_conntrack(name):
    """Forgets every flow of one namespace: ctnetlink's DELETE without a tuple."""
    with netns(name):
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
    with s:
        s.bind((0, 0))
        header = struct.pack("=IHHII", 20, 1 << 8 | 2, 0x1 | 0x4, 1, 0)
        s.send(header + struct.pack("=BBH", socket.AF_INET, 0, 0))
        error = struct.unpack_from("=i", s.recv(4096), 16)[0]
    if error:
        raise BenchError(f"flushing conntrack in {name}: {os.strerror(-error)}")


class Node:
    """Namespaces NAME-n (node), NAME-c (client pod) and NAME-0.. (backend pods)."""

    def __init__(self, name):
        self.name = name
        self.node = f"{name}-n"
        self.pods = [f"{name}-c"] + [f"{name}-{i}" for i in range(BACKENDS)]
        self.addresses = []  # of the pods, in their order
        self.client_if = None  # the node's end of the client's veth

    @property
    def client(self):
        return self.pods[0]

    @property
    def backends(self):
        return self.pods[1:]

    def make_namespaces(self):
        command(["ip", "-batch", "-"],
                "".join(f"netns add {n}\n" for n in [self.node, *self.pods]))
        for name in [self.node, *self.pods]:
            command(["ip", "-n", name, "link", "set", "lo", "up"])
        sysctls(self.node, {"net.ipv4.ip_forward": 1, "net.ipv4.conf.all.rp_filter": 0,
                            "net.ipv4.conf.default.rp_filter": 0,
                            "net.ipv4.conf.default.send_redirects": 0,
                            "net.ipv4.conf.all.send_redirects": 0})
        for name in self.pods:
            sysctls(name, {"net.ipv4.ip_local_port_range": "1024 65535",
                           "net.ipv4.tcp_tw_reuse": 1})

    def make_veths(self):
        """The wiring waggle-cni does, for the contenders without it."""
        for i, pod in enumerate(self.pods):
            address = f"10.244.1.{10 if i == 0 else i + 1}"
            host = f"pod{i}"
            host_mac, pod_mac = f"02:00:00:00:01:{i:02x}", f"02:00:00:00:02:{i:02x}"
            command(["ip", "-n", self.node, "link", "add", host, "address", host_mac, "type",
                     "veth", "peer", "name", "eth0", "address", pod_mac, "netns", pod])
            command(["ip", "-n", self.node, "-batch", "-"], f"""\
link set {host} up
route add {address}/32 dev {host} scope link
neigh add {address} lladdr {pod_mac} dev {host} nud permanent
""")
            command(["ip", "-n", pod, "-batch", "-"], f"""\
addr add {address}/32 dev eth0
link set eth0 up
neigh add 169.254.1.1 lladdr {host_mac} dev eth0 nud permanent
route add default via 169.254.1.1 dev eth0 onlink
""")
            self.addresses.append(address)
        self.client_if = "pod0"

    def route_more_clients(self):
        command(["ip", "-n", self.node, "route", "add", f"{MORE_CLIENTS}/17", "via",
                 self.addresses[0], "dev", self.client_if, "onlink"])

    def remove(self):
        for name in [*self.pods, self.node]:
            if os.path.exists(ns_path(name)):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
