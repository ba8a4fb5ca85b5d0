# SPDX-License-Identifier: Apache-2.0
"""One TCP connection as fast as it goes, from a pod to a pod of another node."""
import os
import socket
import time

from multinode import Cluster, PLAIN, plain_pod
from netlab import LabError, wait_for
from topology import netns

MS = 400
PORT = 9999
KINDS = {"route": None, "vxlan": None,
         "waggle-native": ["--routing-mode=native", "--auto-direct-node-routes=true",
                           "--direct-routing-skip-unreachable=true"],
         "waggle-tunnel": ["--routing-mode=tunnel"]}


def set_up(cluster, kind):
    """Two pods on two nodes of one subnet: (node, pod), (node, pod)."""
    ends = [(node, f"{name}-a") for name, node in list(cluster.nodes.items())[:2]]
    if KINDS[kind] is None:
        PLAIN[kind](cluster)
    else:
        cluster.start_agents(*KINDS[kind])
    for node, pod in ends:
        if KINDS[kind] is None:
            plain_pod(node, pod, 10)
        else:
            node.add_pod(pod)
    return ends


def receive_all(listener, seconds):
    """In a child: bytes received in that time, as an exit through the pipe."""
    conn, _ = listener.accept()
    buf = bytearray(1 << 20)
    total, begin = 0, time.monotonic()
    while time.monotonic() - begin < seconds:
        n = conn.recv_into(buf)
        if not n:
            break
        total += n
    return total / (time.monotonic() - begin)


def gbit_per_s(ends, seconds):
    """One transfer; the receiver counts."""
    (client, client_pod), (server, server_pod) = ends
    with netns(server.ns(server_pod)):
        listener = socket.create_server((server.pods[server_pod][4], PORT))
    with netns(client.ns(client_pod)):
        sender = socket.socket()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        rate = receive_all(listener, seconds)
        os.write(write, f"{rate}".encode())
        os._exit(0)
    with sender, listener:
        sender.settimeout(5)
        sender.connect(listener.getsockname())
        data = bytes(1 << 18)
        try:
            while True:
                sender.sendall(data)
        except (ConnectionError, TimeoutError):
            pass
    os.close(write)
    rate = float(os.read(read, 64) or 0)
    os.close(read)
    os.waitpid(child, 0)
    return rate * 8 / 1e9


def measure(args, values):
    clusters = []
    try:
        for kind in args.contenders:
            cluster = Cluster(args.build, families=(4,))
            cluster.__enter__()
            clusters.append((kind, cluster, set_up(cluster, kind)))
        for kind, _, ends in clusters:
            (client, pod), (server, other) = ends
            server.background(other, "echo", "--label", other, "--port", 8080)
            wait_for(f"{kind}: {pod} to reach {other}", lambda c=client, p=pod, a=server.pods[
                other][4]: c.connect(p, a, 8080, timeout_ms=300)["is"] == "ok")
        for _ in range(max(3, args.rounds // 2)):
            for kind, _, ends in clusters:
                values.add("bulk_gbit", kind, gbit_per_s(ends, MS / 1000))
    finally:
        for _, cluster, _ in clusters:
            cluster.__exit__(None, None, None)


__all__ = ["LabError", "measure"]
