# SPDX-License-Identifier: Apache-2.0
"""Waggle as a contender: the real agent on a folder of manifests, pods wired by the real CNI."""
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import time

import rules
from contenders import Contender
from topology import MORE_CLIENTS, BenchError, command, inside, netns, ns_path

TABLE = 1 << 20
LIVE = TABLE * 9 // 10
HEALTH_PORT = 9879
MORE_ADDRESSES = 1024


def cgroup2():
    with open("/proc/self/mounts", encoding="utf-8") as f:
        for line in f:
            fields = line.split()
            if fields[2] == "cgroup2":
                return fields[1]
    raise BenchError("no cgroup2 is mounted")


def cni_add(build, node, pins, state, netns_name, namespace, pod, subnet="10.244.1.0/24"):
    """The plugin's result."""
    conf = {"cniVersion": "1.0.0", "name": "waggle", "type": "waggle-cni", "mtu": 1500,
            "pinDir": pins, "stateDir": state, "ipam": {"ranges": [[{"subnet": subnet}]]}}
    env = {"PATH": os.environ["PATH"], "CNI_COMMAND": "ADD", "CNI_CONTAINERID": netns_name,
           "CNI_NETNS": ns_path(netns_name), "CNI_IFNAME": "eth0",
           "CNI_PATH": os.path.join(build, "cni"),
           "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod}"}
    return json.loads(command(inside(node, os.path.join(build, "cni", "waggle-cni")),
                              json.dumps(conf), env))


def pod_key(address):
    """Of wag_pods, as bpftool wants it; address: text, or a number."""
    raw = address.to_bytes(4, "big") if isinstance(address, int) else socket.inet_aton(address)
    return [f"0x{b:02x}" for b in bytes(10) + b"\xff\xff" + raw]


class Waggle(Contender):
    kind = "waggle"
    socket_lb = "full"
    entries_per_flow = 1  # the pod's packets carry the backend already
    agent = None
    more_args = []

    def __init__(self, ctx, services):
        super().__init__(ctx, services)
        self.dir = os.path.join(ctx.dir, self.node.name)
        self.pins = os.path.join(ctx.bpffs, self.node.name)
        self.cgroup = os.path.join(cgroup2(), self.node.name)
        self.manifests = os.path.join(self.dir, "manifests")
        self.state = os.path.join(self.dir, "state")

    @property
    def target(self):
        return rules.vip(self.services - 1), rules.PORT

    @property
    def frame_target(self):
        return self.node.addresses[-1], rules.TARGET_PORT

    def up(self):
        self.node.make_namespaces()
        for path in (self.dir, self.manifests, self.state, self.cgroup):
            os.mkdir(path)
        self.start_agent()
        for i in range(len(self.node.pods)):
            self.add_pod(i)
        self.add_more_clients()

    def start_agent(self):
        args = [os.path.join(self.ctx.build, "agent", "waggle-agent"), "--node-name",
                self.node.name, "--manifests", self.manifests, "--pin-dir", self.pins,
                "--state-dir", self.state, "--cgroup", self.cgroup, "--socket",
                os.path.join(self.dir, "hubble.sock"), "--socket-lb", self.socket_lb,
                "--health-addr", f"127.0.0.1:{HEALTH_PORT}", "--ct-max", str(TABLE),
                *self.more_args]
        with open(os.path.join(self.dir, "agent.log"), "w", encoding="utf-8") as log:
            self.agent = subprocess.Popen(inside(self.node.node, *args), stderr=log, stdout=log)
        self.until("the agent is ready", lambda: self.get("/readyz")[0] == 200, 30)

    def log_tail(self, most=800):
        with open(os.path.join(self.dir, "agent.log"), encoding="utf-8", errors="replace") as f:
            return f.read()[-most:]

    def until(self, what, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition():
            if self.agent.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{self.label}: waited for: {what}\n{self.log_tail()}")
            time.sleep(0.02)

    def get(self, path):
        """(status, body) of the agent's health port, which only its namespace can reach."""
        try:
            with netns(self.node.node):
                s = socket.create_connection(("127.0.0.1", HEALTH_PORT), 5)
            conn = http.client.HTTPConnection("127.0.0.1")
            conn.sock = s
            conn.request("GET", path)
            answer = conn.getresponse()
            body = answer.read().decode()
            conn.close()
            return answer.status, body
        except OSError:
            return 0, ""

    def metric(self, name):
        found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics")[1], re.M)
        return float(found.group(1)) if found else None

    def add_pod(self, i):
        result = cni_add(self.ctx.build, self.node.node, self.pins, self.state,
                         self.node.pods[i], "bench", self.node.pods[i])
        self.node.addresses.append(result["ips"][0]["address"].split("/")[0])
        if i == 0:
            self.node.client_if = next(x["name"] for x in result["interfaces"]
                                       if not x.get("sandbox"))

    def add_more_clients(self):
        """The client pod has more addresses: its packets are not taken for forged."""
        path = f"{self.pins}/maps/wag_pods"
        first = json.loads(command(["bpftool", "-j", "map", "lookup", "pinned", path, "key",
                                    *pod_key(self.node.addresses[0])]))["value"]
        base = int.from_bytes(socket.inet_aton(MORE_CLIENTS), "big")
        batch = "".join(f"map update pinned {path} key {' '.join(pod_key(base + i))} value "
                        f"{' '.join(first)}\n" for i in range(MORE_ADDRESSES))
        command(["bpftool", "batch", "file", "-"], batch)

    def program(self):
        text = rules.manifest(self.services, self.node.addresses[1:])
        before = self.metric("waggle_sync_duration_seconds_sum") or 0
        path = os.path.join(self.dir, "services.json")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(path, os.path.join(self.manifests, "services.json"))
        # The frontend of the last Service is in the map, and every Service is in force.
        self.until(f"{self.services} Services are programmed", self.programmed, 60)
        after = self.metric("waggle_sync_duration_seconds_sum")
        if after is not None:
            self.program_ms = (after - before) * 1e3

    def programmed(self):
        return self.metric("waggle_services") == self.services and self.has_last_frontend()

    def has_last_frontend(self):
        key = struct.pack("=10xH4s", 0xffff, socket.inet_aton(rules.vip(self.services - 1)))
        key += struct.pack("!HBBI", rules.PORT, socket.IPPROTO_TCP, 0, 0)
        return subprocess.run(["bpftool", "map", "lookup", "pinned", f"{self.pins}/maps/wag_svc",
                               "key", *map(str, key)], capture_output=True,
                              check=False).returncode == 0

    def memory(self):
        """The agent's resident memory, and what the kernel charges for every pinned map."""
        with open(f"/proc/{self.agent.pid}/status", encoding="ascii") as f:
            rss_kb = int(re.search(r"^VmRSS:\s+(\d+)", f.read(), re.M).group(1))
        maps = os.path.join(self.pins, "maps")
        charged = sum(json.loads(command(["bpftool", "-j", "map", "show", "pinned",
                                          os.path.join(maps, name)]))["bytes_memlock"]
                      for name in os.listdir(maps))
        return {"rss_mb": rss_kb / 1024, "map_mb": charged / (1 << 20)}

    def fill(self):
        self.frames.open(1 << 16, LIVE // self.entries_per_flow)

    def down(self):
        if self.frames:
            self.frames.close()
        if self.agent and self.agent.poll() is None:
            self.agent.send_signal(signal.SIGTERM)
            try:
                self.agent.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.agent.kill()
                self.agent.wait()
        subprocess.run(["rm", "-rf", self.pins], check=False)
        self.node.remove()
        for _ in range(50):
            try:
                os.rmdir(self.cgroup)
            except FileNotFoundError:
                pass
            except OSError:
                time.sleep(0.1)
                continue
            break


class WagglePacket(Waggle):
    """Without the socket hooks the packets carry the Service's address."""
    kind = "waggle-packet"
    socket_lb = "off"
    entries_per_flow = 2  # a flow entry and a frontend entry

    @property
    def frame_target(self):
        return self.target


KINDS = {c.kind: c for c in (Waggle, WagglePacket)}
