# SPDX-License-Identifier: Apache-2.0
"""Pod addresses with an API server: the node's own blocks, and twenty nodes that claim at once."""
import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import threading
import time

from cluster import Client
from netlab import LabError, wait_for

NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
EVENTS = "/api/v1/namespaces/default/events"
SLOW_S = 60         # twenty agents start on two cores


def expect(condition, *what):
    if not condition:
        raise LabError(" ".join(str(w) for w in what))


def node_of(client, name):
    return client.call("GET", f"{NODES}/{name}")


def add_node(client, name, **spec):
    return client.call("POST", NODES, {"apiVersion": "v1", "kind": "Node",
                                       "metadata": {"name": name}, "spec": spec})


def published(client, name):
    return node_of(client, name)["metadata"].get("annotations", {}).get("waggle.io/pod-cidrs")


def leases(client):
    """block -> Lease"""
    return {lease["metadata"]["annotations"]["waggle.io/block"]: lease
            for lease in client.call("GET", LEASES)["items"]
            if "waggle.io/ipam" in (lease["metadata"].get("labels") or {})}


def ranges(state):
    try:
        with open(os.path.join(state, "ipam", "node.json"), encoding="ascii") as f:
            return [cidr for family in json.load(f)["ranges"] for cidr in family]
    except FileNotFoundError:
        return []


def disjoint(cidrs):
    nets = [ipaddress.ip_network(c) for c in cidrs]
    return not any(a.version == b.version and a.overlaps(b)
                   for i, a in enumerate(nets) for b in nets[:i])


class Driver:
    """A node of which there is only the claiming of blocks."""

    def __init__(self, lab, name, *args):
        self.name, self.state = name, lab.path("states", name)
        self.lines = []
        self.proc = subprocess.Popen(
            [os.path.join(lab.build, "selftests/k8s/ipam_driver"), lab.plane.url, name, self.state,
             *args], stdout=subprocess.PIPE, text=True, preexec_fn=lab._enter("out", False),
            env={**os.environ, "KUBECONFIG": lab.plane.kubeconfig(
                f"{name}.kubeconfig", lab.plane.url, lab.plane.user)})
        lab.procs.append(self.proc)
        threading.Thread(target=lambda: self.lines.extend(self.proc.stdout), daemon=True).start()

    def ranges(self):
        return ranges(self.state)

    def stop(self):
        self.proc.terminate()
        expect(self.proc.wait(20) == 0, f"{self.name} ended with {self.proc.returncode}")

    def pods(self, cidr, n):
        """n leases in the range, as the CNI plugin would have written them."""
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            boot = f.read().strip()
        folder = os.path.join(self.state, "ipam", cidr.replace("/", "-"), "leases")
        os.makedirs(folder, exist_ok=True)
        for i in range(n):
            with open(os.path.join(folder, str(ipaddress.ip_network(cidr)[2 + i])), "w",
                      encoding="ascii") as f:
                f.write(f"leased {boot} 1 pod{i} eth0\n")
        self.proc.send_signal(signal.SIGUSR1)


def claims_of_the_agent(suite):
    """The real agent: a block of each family, its pods' addresses out of them, and back again."""
    lab, client = suite.lab, suite.client
    add_node(client, lab.node_name)
    lab.kill_agent()
    lab.start_agent(suite.mode, "--ipam=cluster-pool", "--cluster-pool-ipv4-cidr=10.200.0.0/16",
                    "--cluster-pool-ipv6-cidr=fd00:200::/104")
    wait_for("blocks of both families", lambda: len(ranges(lab.state_dir)) == 2, SLOW_S)
    mine = ranges(lab.state_dir)
    wait_for("the annotation", lambda: published(client, lab.node_name) == ",".join(mine), 10)
    found = leases(client)
    expect(sorted(found) == sorted(mine), "Leases of", sorted(found), "but ranges", mine)
    node = node_of(client, lab.node_name)["metadata"]
    for lease in found.values():
        owner = lease["metadata"]["ownerReferences"][0]
        expect(lease["spec"]["holderIdentity"] == lab.node_name and owner["uid"] == node["uid"],
               lease)
    conf = lab.cni_conf
    lab.cni_conf = lambda: {k: v for k, v in conf().items() if k != "ipam"}
    try:
        for addr, cidr in zip(lab.add_pod("pooled"), mine):
            expect(ipaddress.ip_address(addr) in ipaddress.ip_network(cidr), addr, cidr)
        lab.del_pod("pooled")
    finally:
        lab.cni_conf = conf
    lab.kill_agent()
    lab.start_agent(suite.mode)
    wait_for("no annotation", lambda: published(client, lab.node_name) is None, 10)
    client.call("DELETE", f"{NODES}/{lab.node_name}")
    for lease in found.values():
        client.call("DELETE", f"{LEASES}/{lease['metadata']['name']}")
    return " ".join(mine)


@contextlib.contextmanager
def twenty(suite):
    """Twenty nodes and exactly as many blocks; their agents start at once."""
    lab, client = suite.lab, suite.client
    names = [f"claim-{i}" for i in range(20)]
    for name in names:
        add_node(client, name)
    drivers = [Driver(lab, name, "ipam=cluster-pool", "v4=10.201.0.0/22,10.201.16.0/24",
                      "v4mask=26", "gc_delay_ms=200") for name in names]
    try:
        yield drivers
    finally:
        for driver in drivers:
            if driver.proc.poll() is None:
                driver.proc.kill()
            driver.proc.wait()
        for name in names:
            client.call("DELETE", f"{NODES}/{name}", ok=(200, 404))
        for lease in leases(client).values():
            client.call("DELETE", f"{LEASES}/{lease['metadata']['name']}", ok=(200, 404))


def twenty_agents_claim(suite):
    client = Client(suite.lab.plane)
    with twenty(suite) as drivers:
        begin = time.monotonic()
        wait_for("twenty blocks", lambda: all(len(d.ranges()) == 1 for d in drivers), SLOW_S)
        took = time.monotonic() - begin
        blocks = {d.name: d.ranges()[0] for d in drivers}
        expect(disjoint(blocks.values()), "two nodes share a block:", blocks)
        expect({b: x["spec"]["holderIdentity"] for b, x in leases(client).items()}
               == {b: n for n, b in blocks.items()}, "the Leases say something else:", blocks)
        # A Node goes: the others free its block, and a new node gets it.
        gone = drivers.pop()
        gone.stop()
        client.call("DELETE", f"{NODES}/{gone.name}")
        wait_for("the freed block", lambda: blocks[gone.name] not in leases(client), SLOW_S)
        add_node(client, "claim-new")
        drivers.append(Driver(suite.lab, "claim-new", "ipam=cluster-pool",
                              "v4=10.201.0.0/22,10.201.16.0/24", "v4mask=26"))
        wait_for("the block again", lambda: drivers[-1].ranges() == [blocks[gone.name]], SLOW_S)
        # A Node comes back under its name: its block is the new Node's.
        back = drivers[0]
        client.call("DELETE", f"{NODES}/{back.name}")
        uid = add_node(client, back.name)["metadata"]["uid"]

        def owned():
            lease = leases(client).get(blocks[back.name])
            return lease and lease["metadata"]["ownerReferences"][0]["uid"] == uid
        wait_for("the block of the new Node", owned, SLOW_S)
        expect(back.ranges() == [blocks[back.name]], back.ranges())
        # The last free block is claimed at 80 %, and an Event tells of it.
        client.call("DELETE", f"{NODES}/{drivers[1].name}")
        drivers[1].stop()
        wait_for("a free block", lambda: len(leases(client)) == 19, SLOW_S)
        full = drivers[2]
        full.pods(full.ranges()[0], 50)                            # 81 % of 61
        wait_for("a second block", lambda: len(full.ranges()) == 2, SLOW_S)
        wait_for("the Event", lambda: [e for e in client.call("GET", EVENTS)["items"]
                                       if e["reason"] == "IPAMNearlyFull"
                                       and e["involvedObject"]["name"] == full.name], SLOW_S)
        wait_for("both published", lambda: published(client, full.name)
                 == ",".join(full.ranges()), 10)
        client.call("DELETE", f"{NODES}/claim-new", ok=(200, 404))
    return f"{took:.1f} s"
