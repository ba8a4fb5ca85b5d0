# SPDX-License-Identifier: Apache-2.0
"""A node with pods as network namespaces: makes them, runs the agent there, removes everything.

    outside (10.90.0.254) --- eth0 node (10.90.0.1) --- pods (10.244.0.0/24), wired by waggle-cni
       |
    far (10.91.0.2), behind a link of MTU 1300

Every process of the node is put below the node's own cgroup before it starts, as the socket path
needs; network namespaces are entered with setns, so that /sys/fs/bpf stays the machine's.
"""
import atexit
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SRC = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
NODE4, NODE6 = "10.90.0.1", "fd90::1"
OUT4, OUT6 = "10.90.0.254", "fd90::fe"
FAR4, FAR6 = "10.91.0.2", "fd91::2"
POD_RANGES = [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:10:244::/64"}]]


class LabError(Exception):
    """Something did not come up or a command failed; the message says what."""


def wait_for(what, check, seconds=5.0, period=0.02):
    """Polls check until it is true; its value. LabError after the deadline."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() >= end:
            raise LabError(f"{what}: not within {seconds:g} s")
        time.sleep(period)


def fields(line):
    """The key=value words of one line of wagtest; its first word under "is"."""
    words = line.split()
    found = {"is": words[0] if words else ""}
    for word in words[1:]:
        key, eq, value = word.partition("=")
        if eq:
            found[key] = value
    return found


def host_port(addr, port):
    return f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}"


def cgroup2_mount():
    with open("/proc/self/mounts", encoding="utf-8") as f:
        for line in f:
            _, where, kind, *_ = line.split()
            if kind == "cgroup2":
                return where
    raise LabError("no cgroup2 hierarchy is mounted")


class Lab:
    """Use with `with`: whatever was made is gone afterwards, also after a failure or a signal."""

    count = 0

    def __init__(self, build=None):
        Lab.count += 1
        self.build = build or os.environ.get("WAGGLE_BUILD") or os.path.join(SRC, "build")
        self.name = f"wag{os.getpid()}x{Lab.count}"
        self.tmp = tempfile.mkdtemp(prefix=f"{self.name}-")
        self.manifests = self.path("manifests")
        self.pin_dir = self.path("bpf", "waggle")
        self.state_dir = self.path("state")
        self.socket = self.path("hubble.sock")
        self.nets, self.procs, self.pods = [], [], {}
        self.logs = {}
        self.cgroup = os.path.join(cgroup2_mount(), self.name)
        self.agent = None
        self.agent_args = []
        self.node_name = "node-1"
        self.agent_binary = self.binary("waggle-agent")
        self.closed = False

    def path(self, *parts):
        return os.path.join(self.tmp, *parts)

    def binary(self, name):
        where = {"waggle-agent": "agent", "waggle-cni": "cni", "waggle": "cli",
                 "flow-observe": "hubble-like", "wagtest": "selftests/lib"}[name]
        return os.path.join(self.build, where, name)

    # ---- life ----

    def __enter__(self):
        atexit.register(self.close)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self._open()
        except BaseException:
            self.show_logs()
            self.close()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind not in (None, SystemExit, KeyboardInterrupt):
            self.show_logs()
        self.close()

    def _open(self):
        for sub in ("manifests", "state", "bpf", "log", "staging"):
            os.mkdir(self.path(sub))
        self.run(["mount", "-t", "bpf", "bpf", self.path("bpf")])
        os.mkdir(self.cgroup)
        os.mkdir(os.path.join(self.cgroup, "node"))
        self._build()

    def _build(self):
        """The namespaces of this lab, and what they know of each other."""
        for net in ("node", "out", "far"):
            self.add_net(net)
        self._wire("node", "out", (NODE4, OUT4), (NODE6, OUT6))
        self._wire("far", "out", (FAR4, "10.91.0.1"), (FAR6, "fd91::1"), mtu=1300, b_if="far0")
        for net, gw4, gw6 in (("node", OUT4, OUT6), ("far", "10.91.0.1", "fd91::1")):
            self.ip(net, f"route add default via {gw4}", f"-6 route add default via {gw6}")
        self.sysctl("out", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
                    # each ICMP error counts in the tests
                    "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        self.sysctl("node", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        self.ip("out", f"route add 10.244.0.0/24 via {NODE4}",
                f"-6 route add fd00:10:244::/64 via {NODE6}",
                f"route add 10.96.0.0/16 via {NODE4}", f"-6 route add fd00:10:96::/64 via {NODE6}")

    def close(self):
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        for proc in self.procs:
            if proc.poll() is None:
                proc.kill()
        for proc in self.procs:
            proc.wait()
        for net in reversed(self.nets):
            subprocess.run(["ip", "netns", "del", self.ns(net)], check=False, capture_output=True)
        subprocess.run(["umount", self.path("bpf")], check=False, capture_output=True)
        for sub in ("node", ""):
            try:
                wait_for("an empty cgroup", lambda s=sub: self._rmdir(os.path.join(self.cgroup, s)))
            except LabError as e:
                print(f"# {e}", file=sys.stderr)
        shutil.rmtree(self.tmp, ignore_errors=True)

    @staticmethod
    def _rmdir(path):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def show_logs(self, tail=60):
        for name, path in self.logs.items():
            try:
                with open(path, encoding="utf-8", errors="replace") as f:
                    lines = f.read().splitlines()[-tail:]
            except OSError:
                continue
            for line in lines:
                print(f"    | {name}: {line}", flush=True)

    # ---- namespaces ----

    def ns(self, net):
        return f"{self.name}-{net}"

    def add_net(self, net):
        self.run(["ip", "netns", "add", self.ns(net)])
        self.nets.append(net)
        self.ip(net, "link set lo up")
        self.sysctl(net, "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")

    def ip(self, net, *commands):
        for command in commands:
            self.run(["ip", "-n", self.ns(net), *command.split()])

    def sysctl(self, net, *settings):
        self.sh(net, ["sysctl", "-qw", *settings])

    def _wire(self, a, b, v4, v6, mtu=1500, b_if="eth0"):
        self.run(["ip", "link", "add", "eth0", "mtu", str(mtu), "netns", self.ns(a), "type",
                  "veth", "peer", "name", b_if, "mtu", str(mtu), "netns", self.ns(b)])
        for net, dev, n in ((a, "eth0", 0), (b, b_if, 1)):
            self.ip(net, f"addr add {v4[n]}/24 dev {dev}", f"addr add {v6[n]}/64 dev {dev} nodad",
                    f"link set {dev} up")

    # ---- processes ----

    def _enter(self, net, in_cgroup):
        ns = f"/run/netns/{self.ns(net)}" if net else None
        procs = os.path.join(self.cgroup, "node", "cgroup.procs") if in_cgroup else None

        def enter():
            if procs:
                with open(procs, "w", encoding="utf-8") as f:
                    f.write("0")
            if ns:
                fd = os.open(ns, os.O_RDONLY)
                if LIBC.setns(fd, CLONE_NEWNET) < 0:
                    os._exit(126)
                os.close(fd)
        return enter

    def in_node(self, net):
        """Do processes of this namespace belong to the node?"""
        return net is not None and net not in ("out", "far")

    def run(self, argv, **kw):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30, **kw)
        if done.returncode:
            raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def sh(self, net, argv, check=True, timeout=30, **kw):
        """Runs a command in a namespace; its standard output."""
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout,
                              preexec_fn=self._enter(net, self.in_node(net)), **kw)
        if check and done.returncode:
            raise LabError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def start(self, net, argv, name=None, **kw):
        """Starts a process in a namespace, its output into a log of that name."""
        name = name or f"{net}-{len(self.procs)}"
        self.logs[name] = self.path("log", name)
        with open(self.logs[name], "ab") as log:
            proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    preexec_fn=self._enter(net, self.in_node(net)), **kw)
        proc.log_name = name
        self.procs.append(proc)
        return proc

    def log(self, name):
        with open(self.logs[name], encoding="utf-8", errors="replace") as f:
            return f.read()

    def stop(self, proc, seconds=10):
        """Ends a process kindly; the last line it wrote."""
        if proc.poll() is None:
            proc.send_signal(signal.SIGTERM)
            try:
                proc.wait(seconds)
            except subprocess.TimeoutExpired:
                proc.kill()
                proc.wait()
        lines = self.log(proc.log_name).splitlines()
        return lines[-1] if lines else ""

    def background(self, net, mode, *args, name=None, ready=5):
        """Starts wagtest and waits until it says ready."""
        proc = self.start(net, [self.binary("wagtest"), mode, *map(str, args)], name=name)
        wait_for(f"wagtest {mode} in {net}",
                 lambda: "ready" in self.log(proc.log_name) or proc.poll() is not None, ready)
        if proc.poll() is not None:
            raise LabError(f"wagtest {mode} in {net}: {self.log(proc.log_name).strip()}")
        return proc

    def wagtest(self, net, mode, *args, timeout=30):
        """Runs wagtest; the fields of each line it printed."""
        out = self.sh(net, [self.binary("wagtest"), mode, *map(str, args)], check=False,
                      timeout=timeout)
        return [fields(line) for line in out.splitlines()]

    def connect(self, net, addr, port, *args, timeout_ms=2000):
        lines = self.wagtest(net, "connect", "--dst", host_port(addr, port), "--timeout",
                             timeout_ms, *args)
        return lines[0] if lines else {"is": "nothing"}

    def udp(self, net, addr, port, *args, timeout_ms=2000):
        lines = self.wagtest(net, "udp", "--dst", host_port(addr, port), "--timeout", timeout_ms,
                             *args)
        lines = [f for f in lines if f["is"] != "peer"]
        return lines[0] if lines else {"is": "nothing"}

    # ---- agent ----

    def agent_argv(self, *extra):
        return [self.agent_binary, "--node-name", self.node_name, "--manifests",
                self.manifests, "--pin-dir", self.pin_dir, "--state-dir", self.state_dir,
                "--cgroup", os.path.join(self.cgroup, "node"), "--devices", "eth0",
                "--socket", self.socket, "--health-addr", "127.0.0.1:9879", *extra]

    def start_agent(self, *extra, seconds=20, wait=True):
        self.agent_args = list(extra)
        self.agent = self.start("node", self.agent_argv(*extra), name="agent")
        if wait:
            self.wait_ready(seconds)
        return self.agent

    def start_agent_alone(self, *extra):
        """One whose API server does not answer, once it is in charge; it is to be ended."""
        config = self.path("nobody.kubeconfig")
        with open(config, "w", encoding="utf-8") as f:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "c",
                       "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                       "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                       "users": [{"name": "u", "user": {"token": "t"}}]}, f)
        argv = self.agent_argv(*extra)
        at = argv.index("--manifests")
        argv[at:at + 2] = ["--kubeconfig", config]
        agent = self.start("node", argv, name="agent-alone")
        wait_for("programs in place", lambda: agent.poll() is not None or
                 "programs in place" in self.log("agent-alone"))
        if agent.poll() is not None:
            raise LabError(f"the agent ended: {self.log('agent-alone')[-800:]}")
        return agent

    def wait_ready(self, seconds=20):
        def ready():
            if self.agent.poll() is not None:
                raise LabError(f"the agent ended with {self.agent.returncode}")
            return self.http("/readyz")[0] == 200
        wait_for("a ready agent", ready, seconds, 0.05)

    def kill_agent(self):
        self.agent.kill()
        self.agent.wait()

    def restart_agent(self):
        self.kill_agent()
        self.start_agent(*self.agent_args)

    def http(self, path):
        """(status, body) of the agent's health server; status 0: no answer."""
        out = self.sh("node", ["curl", "-s", "-m", "5", "-w", "\n%{http_code}",
                               f"http://127.0.0.1:9879{path}"], check=False)
        body, _, code = out.rpartition("\n")
        return int(code or 0), body

    def cli(self, *args):
        return self.sh("node", [self.binary("waggle"), "--pin-dir", self.pin_dir, *args])

    def observe(self, *args):
        return self.sh("node", [self.binary("flow-observe"), "--server", f"unix://{self.socket}",
                                *args])

    # ---- pods ----

    def cni_conf(self):
        return {"cniVersion": "1.0.0", "name": "waggle", "type": "waggle-cni", "mtu": 1500,
                "pinDir": self.pin_dir, "stateDir": self.state_dir,
                "ipam": {"ranges": POD_RANGES}}

    def cni(self, command, pod, ns="default", check=True, conf=None):
        env = {**os.environ, "CNI_COMMAND": command, "CNI_CONTAINERID": f"{self.name}-{pod}",
               "CNI_NETNS": f"/run/netns/{self.ns(pod)}", "CNI_IFNAME": "eth0",
               "CNI_PATH": os.path.dirname(self.binary("waggle-cni")),
               "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={ns};K8S_POD_NAME={pod}"}
        return self.sh("node", [self.binary("waggle-cni")], env=env, check=check,
                       input=json.dumps({**self.cni_conf(), **(conf or {})}))

    def add_pod(self, pod, ns="default", conf=None):
        """Makes a namespace and has waggle-cni wire it; its addresses as (v4, v6)."""
        self.add_net(pod)
        result = json.loads(self.cni("ADD", pod, ns, conf=conf))
        ips = [ip["address"].split("/")[0] for ip in result["ips"]]
        self.pods[pod] = (next(a for a in ips if ":" not in a), next(a for a in ips if ":" in a))
        return self.pods[pod]

    def del_pod(self, pod, ns="default"):
        self.cni("DEL", pod, ns)
        self.run(["ip", "netns", "del", self.ns(pod)])
        self.nets.remove(pod)
        del self.pods[pod]

    def add_web(self, pod, ports="8080,8081", sctp=None, ns="default"):
        """A pod that answers with its own name, on TCP and UDP, both families."""
        self.add_pod(pod, ns)
        self.background(pod, "echo", "--label", pod, "--port", ports, name=f"echo-{pod}")
        if sctp:
            self.background(pod, "sctp-server", "--label", pod, "--port", sctp,
                            name=f"sctp-{pod}")

    # ---- manifests ----

    def write(self, name, text):
        """Puts a manifest in place in one step."""
        staged = self.path("staging", name)
        with open(staged, "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(staged, os.path.join(self.manifests, name))

    def remove(self, name):
        os.unlink(os.path.join(self.manifests, name))

    def service(self, name, vips, backends, ports=None, kind="ClusterIP"):
        """Writes NAME.yaml: a Service and a slice a family. backends: pod names or addresses."""
        objects = service_objects(name, vips, [self.pods.get(b, b) for b in backends],
                                  ports or [port(80, 8080), port(80, 8080, "UDP")], kind)
        self.write(f"{name}.yaml", "---\n".join(json.dumps(o, indent=1) + "\n" for o in objects))


def port(number, target, proto="TCP", node_port=None):
    return {"name": f"{proto.lower()}-{number}", "port": number, "targetPort": target,
            "protocol": proto, **({"nodePort": node_port} if node_port else {})}


def service_objects(name, vips, backends, ports, kind="ClusterIP", ns="default"):
    families = ["IPv6" if ":" in v else "IPv4" for v in vips]
    objects = [{"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": ns},
                "spec": {"type": kind, "clusterIP": vips[0], "clusterIPs": list(vips),
                         "ipFamilies": families, "ports": ports}}]
    flat = [a for b in backends for a in ((b,) if isinstance(b, str) else b)]
    for family in families:
        addrs = [a for a in flat if (":" in a) == (family == "IPv6")]
        objects.append({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-{family.lower()}", "namespace": ns,
                         "labels": {"kubernetes.io/service-name": name}},
            "addressType": family,
            "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addrs],
            "ports": [{"name": p["name"], "port": p["targetPort"], "protocol": p["protocol"]}
                      for p in ports]})
    return objects


def vip(n):
    """The nth pair of cluster addresses."""
    return f"10.96.{n >> 8}.{n & 255}", f"fd00:10:96::{n:x}"


def flow_lines(text, pattern):
    return [line for line in text.splitlines() if re.search(pattern, line)]
