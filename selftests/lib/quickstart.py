# SPDX-License-Identifier: Apache-2.0
"""The scenario of ./quickstart: quickstart.py run|keep|down BUILD_DIR.

    outside (172.31.0.254) --- eth0 node (172.31.0.1) --- pods, wired by waggle-cni

Every name is fixed (waggle-qs-*, /run/waggle-quickstart), so that --down finds what --keep left.
"""
import collections
import ctypes
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

SRC = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLE = os.path.join(SRC, "docs", "examples", "quickstart")
PREFIX = "waggle-qs-"
RUN_DIR = "/run/waggle-quickstart"
BPFFS = "/sys/fs/bpf"
PIN_DIR = BPFFS + "/waggle-quickstart"
STATE_DIR = RUN_DIR + "/state"
MANIFESTS = RUN_DIR + "/manifests"
SOCKET = RUN_DIR + "/hubble.sock"
HEALTH = "127.0.0.1:9879"
NODE4, NODE6 = "172.31.0.1", "fd31::1"
OUT4, OUT6 = "172.31.0.254", "fd31::fe"
WEB = ("10.96.0.10", "fd00:10:96::a")
NAMES = ("10.96.0.53", "fd00:10:96::35")
EMPTY = ("10.96.0.99", "fd00:10:96::63")
BACKENDS = ["web-1", "web-2", "web-3"]
CNI_CONF = {"cniVersion": "1.0.0", "name": "waggle", "type": "waggle-cni", "mtu": 1500,
            "pinDir": PIN_DIR, "stateDir": STATE_DIR,
            "ipam": {"ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:10:244::/64"}]]}}
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A step did not do what it should; the message says what was seen."""


def wait_for(what, check, seconds=10.0):
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def run(argv, **kw):
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, **kw)
    if done.returncode:
        text = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}")
        raise Failed(f"{' '.join(argv)}: {text}")
    return done.stdout


# ---- entering a namespace and the node's cgroup ----

def cgroup2_mount():
    with open("/proc/self/mounts", encoding="utf-8") as f:
        for line in f:
            _, where, kind, *_ = line.split()
            if kind == "cgroup2":
                return where
    raise Failed("no cgroup2 hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup)")


def cgroup_path():
    return os.path.join(cgroup2_mount(), "waggle-quickstart")


def enter(net):
    """Network namespace and, for the node and its pods, the cgroup whose sockets are served.

    setns and not "ip netns exec": that would hide /sys/fs/bpf behind a new /sys.
    """
    if net != "outside":
        with open(os.path.join(cgroup_path(), "cgroup.procs"), "w", encoding="utf-8") as f:
            f.write("0")
    fd = os.open(f"/run/netns/{PREFIX}{net}", os.O_RDONLY)
    if LIBC.setns(fd, CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)


def run_in(net, argv, **kw):
    return run(argv, preexec_fn=lambda: enter(net), **kw)


def start_in(net, name, argv):
    """A process that outlives this script with --keep; its pid is written down."""
    with open(f"{RUN_DIR}/log/{name}", "ab") as log:
        proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                start_new_session=True, preexec_fn=lambda: enter(net))
    with open(f"{RUN_DIR}/pids", "a", encoding="utf-8") as f:
        f.write(f"{proc.pid} {start_time(proc.pid)}\n")
    return proc


def start_time(pid):
    """Tells a process from a later one of the same number; "" if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def open_socket(net, addr, port, kind=socket.SOCK_STREAM, timeout=3.0):
    """A connected socket of that namespace: a child enters it, connects, and hands it over."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            enter(net)
            family = socket.AF_INET6 if ":" in addr else socket.AF_INET
            s = socket.socket(family, kind)
            s.settimeout(timeout)
            s.connect((addr, port))
            socket.send_fds(theirs, [b"+"], [s.fileno()])
        except socket.timeout:
            code = errno.ETIMEDOUT
        except OSError as e:
            code = e.errno or errno.EIO
        os._exit(min(code, 255))
    theirs.close()
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        ours.close()
        raise OSError(code, os.strerror(code))
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    s = socket.socket(fileno=fds[0])
    s.settimeout(timeout)
    return s


def ask(sock, word="hello"):
    """Sends a line; the name of the pod that answers."""
    sock.sendall(f"{word}\n".encode())
    answer = b""
    while not answer.endswith(b"\n"):
        chunk = sock.recv(4096)
        if not chunk:
            raise Failed("the connection was closed")
        answer += chunk
    pod, _, echoed = answer.decode().rstrip("\n").partition(" ")
    if echoed != word:
        raise Failed(f"wrong answer: {answer!r}")
    return pod


def who(net, addr, port, kind=socket.SOCK_STREAM):
    with open_socket(net, addr, port, kind) as s:
        return ask(s)


# ---- what exists ----

class Quickstart:
    def __init__(self, build):
        self.build = build
        self.pods = {}
        self.failed = 0
        self.mounted_bpffs = False

    def binary(self, name):
        return os.path.join(self.build, {"waggle-agent": "agent", "waggle-cni": "cni",
                                         "waggle": "cli", "flow-observe": "hubble-like"}[name],
                            name)

    def waggle(self, *args):
        return run_in("node", [self.binary("waggle"), "--pin-dir", PIN_DIR, *args])

    # ---- up ----

    def make_node(self):
        for path in ("log", "state", "manifests", "staging"):
            os.makedirs(f"{RUN_DIR}/{path}")
        if not os.path.ismount(BPFFS):
            run(["mount", "-t", "bpf", "bpf", BPFFS])
            with open(f"{RUN_DIR}/mounted-bpffs", "w", encoding="utf-8"):
                pass
        os.mkdir(cgroup_path())
        for net in ("node", "outside"):
            self.add_net(net)
        run(["ip", "link", "add", "eth0", "netns", PREFIX + "node", "type", "veth", "peer", "name",
             "eth0", "netns", PREFIX + "outside"])
        for net, v4, v6 in (("node", NODE4, NODE6), ("outside", OUT4, OUT6)):
            for cmd in (f"addr add {v4}/24 dev eth0", f"addr add {v6}/64 dev eth0 nodad",
                        "link set eth0 up"):
                run(["ip", "-n", PREFIX + net, *cmd.split()])
        for cmd in (f"route add default via {OUT4}", f"-6 route add default via {OUT6}"):
            run(["ip", "-n", PREFIX + "node", *cmd.split()])

    @staticmethod
    def add_net(net):
        run(["ip", "netns", "add", PREFIX + net])
        run(["ip", "-n", PREFIX + net, "link", "set", "lo", "up"])

    def start_agent(self):
        shutil.copy(os.path.join(EXAMPLE, "services.yaml"), MANIFESTS)
        agent = start_in("node", "agent", [
            self.binary("waggle-agent"), "--node-name", "quickstart", "--manifests", MANIFESTS,
            "--pin-dir", PIN_DIR, "--state-dir", STATE_DIR, "--cgroup", cgroup_path(),
            "--devices", "eth0", "--socket", SOCKET, "--health-addr", HEALTH])

        answer = b"no answer"

        def ready():
            nonlocal answer
            if agent.poll() is not None:
                raise Failed(f"the agent ended with exit status {agent.returncode}")
            try:
                with open_socket("node", "127.0.0.1", 9879) as s, s.makefile("rb") as f:
                    s.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                    status, _, rest = f.read().partition(b"\r\n")
            except OSError as e:
                answer = e.strerror.encode() if e.strerror else b"no answer"
                return False
            answer = rest.rpartition(b"\r\n\r\n")[2]
            return b" 200 " in status
        try:
            wait_for("a ready agent", ready, 20)
        except Failed as e:
            raise Failed(f"{e}; it says: {answer.decode(errors='replace').strip()}") from e

    def cni(self, command, pod):
        env = {**os.environ, "CNI_COMMAND": command, "CNI_CONTAINERID": f"quickstart-{pod}",
               "CNI_NETNS": f"/run/netns/{PREFIX}{pod}", "CNI_IFNAME": "eth0",
               "CNI_PATH": os.path.join(self.build, "cni"),
               "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}"}
        return run_in("node", [self.binary("waggle-cni")], env=env, input=json.dumps(CNI_CONF))

    def add_pods(self):
        for pod in [*BACKENDS, "client"]:
            self.add_net(pod)
            ips = [ip["address"].split("/")[0] for ip in json.loads(self.cni("ADD", pod))["ips"]]
            self.pods[pod] = ips
            if pod != "client":
                start_in(pod, pod, [sys.executable, os.path.join(EXAMPLE, "pod.py"), pod])
        for pod in BACKENDS:
            wait_for(f"pod {pod}", lambda p=pod: "ready" in read_log(p).splitlines())
        self.write_slices(BACKENDS)
        wait_for("the Service", lambda: self.listed(BACKENDS))

    def write_slices(self, pods):
        """What the EndpointSlice controller of a cluster does, in one step for the agent."""
        objects = []
        for service, name, port, proto in (("web", "http", 8080, "TCP"),
                                           ("names", "dns", 8053, "UDP")):
            for family in ("IPv4", "IPv6"):
                objects.append({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": {"name": f"{service}-{family.lower()}", "namespace": "default",
                                 "labels": {"kubernetes.io/service-name": service}},
                    "addressType": family,
                    "endpoints": [{"addresses": [ip], "conditions": {"ready": True},
                                   "nodeName": "quickstart",
                                   "targetRef": {"kind": "Pod", "namespace": "default",
                                                 "name": pod}}
                                  for pod in pods for ip in self.pods[pod]
                                  if (":" in ip) == (family == "IPv6")],
                    "ports": [{"name": name, "port": port, "protocol": proto}]})
        staged = f"{RUN_DIR}/staging/endpointslices.json"
        with open(staged, "w", encoding="utf-8") as f:
            json.dump({"apiVersion": "v1", "kind": "List", "items": objects}, f, indent=1)
        os.rename(staged, f"{MANIFESTS}/endpointslices.json")

    def listed(self, pods):
        """Are exactly these pods the backends of every frontend of web?"""
        services = json.loads(self.waggle("-o", "json", "service", "list"))
        web = [s for s in services if s["name"] == "web"]
        want = {ip for pod in pods for ip in self.pods[pod]}
        have = {b["address"].rpartition(":")[0].strip("[]") for s in web for b in s["backends"]}
        return len(web) == 4 and have == want

    # ---- steps ----

    def step(self, name, fn):
        try:
            detail = fn()
        except (Failed, OSError, subprocess.SubprocessError, ValueError, KeyError) as e:
            self.failed += 1
            print(f"[FAIL] {name}: {e}", flush=True)
            return False
        print(f"[ok] {name}" + (f": {detail}" if detail else ""), flush=True)
        return True

    def cluster_ip(self, addr):
        return f"{addr} port 80 answered by {who('client', addr, 80)}"

    def udp(self):
        return ", ".join(f"{a} port 53 answered by {who('client', a, 53, socket.SOCK_DGRAM)}"
                         for a in NAMES)

    def from_node(self):
        return f"{WEB[0]} port 80 answered by {who('node', WEB[0], 80)}"

    def node_port(self):
        return ", ".join(f"{a} port 30080 answered by {who('outside', a, 30080)}"
                         for a in (NODE4, NODE6))

    def spread(self):
        counts = collections.Counter(who("client", WEB[0], 80) for _ in range(90))
        text = ", ".join(f"{pod} {counts[pod]}" for pod in BACKENDS)
        if any(counts[pod] < 10 for pod in BACKENDS):
            raise Failed(f"uneven: {text}")
        return f"90 connections: {text}"

    def backend_removed(self):
        with open_socket("client", WEB[0], 80) as alive, \
                open_socket("outside", NODE4, 30080) as outer:
            gone, outer_pod = ask(alive), ask(outer)
            stay = [pod for pod in BACKENDS if pod not in (gone, outer_pod)]
            self.write_slices(stay)
            wait_for("the change", lambda: self.listed(stay), 2)
            for word in ("one", "two", "three"):
                if (ask(alive, word), ask(outer, word)) != (gone, outer_pod):
                    raise Failed("a live connection was moved to another backend")
            new = {who("client", WEB[0], 80) for _ in range(30)}
        self.write_slices(BACKENDS)
        wait_for("the backend's return", lambda: self.listed(BACKENDS), 2)
        if not new <= set(stay):
            raise Failed(f"new connections still reach {', '.join(sorted(new - set(stay)))}")
        removed = " and ".join(sorted({gone, outer_pod}))
        return f"{removed} removed: live connections go on, 30 new ones reached {', '.join(new)}"

    def refused(self):
        """Every refusal is ECONNREFUSED and quick.

        From outside one retransmission (1 s) is allowed: over veth the answer comes back while
        connect() still holds the socket, and then the kernel only notes it (as with REJECT).
        """
        seen = collections.defaultdict(float)
        for net, addr, port in (("client", EMPTY[0], 80), ("client", EMPTY[1], 80),
                                ("node", EMPTY[0], 80), ("node", EMPTY[1], 80),
                                ("outside", NODE4, 30099), ("outside", NODE6, 30099)):
            start = time.monotonic()
            try:
                open_socket(net, addr, port).close()
            except OSError as e:
                took = (time.monotonic() - start) * 1000
                if e.errno != errno.ECONNREFUSED or took > (1500 if net == "outside" else 500):
                    raise Failed(f"{addr} port {port} from {net}: {e.strerror} after "
                                 f"{took:.0f} ms") from e
                seen[net] = max(seen[net], took)
            else:
                raise Failed(f"{addr} port {port} accepted a connection from {net}")
        return "connection refused from " + ", ".join(
            f"{'a pod' if net == 'client' else net} within {took:.0f} ms"
            for net, took in seen.items())

    def lb_list(self):
        text = self.waggle("bpf", "lb", "list")
        for line in text.splitlines():
            print(f"    {line}")
        for addr in (*WEB, *NAMES, *EMPTY):
            if addr not in text:
                raise Failed(f"{addr} is missing")
        return ""

    def status(self):
        return " ".join(self.waggle("status").splitlines()[1].split())

    def dropped(self):
        argv = [self.binary("flow-observe"), "--server", f"unix://{SOCKET}", "--verdict",
                "DROPPED", "--last", "20"]

        def lines():
            found = [line for line in run_in("node", argv).splitlines()
                     if "DROPPED" in line and "backend not found" in line.lower()]
            return found
        found = wait_for("a dropped flow with its reason", lines, 5)
        for line in found[-3:]:
            print(f"    {line}")
        return f"{len(found)} drops, each with its reason"

    def show(self):
        """Every step; True if all were good."""
        if not (self.step("a node: network namespace, eth0 to the outside, both families",
                          self.make_node) and
                self.step("the agent runs on docs/examples/quickstart", self.start_agent) and
                self.step("four pods wired by waggle-cni", self.add_pods)):
            return False
        self.step("waggle status", self.status)
        self.step("ClusterIP over IPv4", lambda: self.cluster_ip(WEB[0]))
        self.step("ClusterIP over IPv6", lambda: self.cluster_ip(WEB[1]))
        self.step("ClusterIP from the node itself", self.from_node)
        self.step("UDP, both families", self.udp)
        self.step("NodePort from outside, both families", self.node_port)
        self.step("spread over the backends", self.spread)
        self.step("a backend removed while connections live", self.backend_removed)
        self.step("a Service without backends", self.refused)
        self.step("waggle bpf lb list", self.lb_list)
        self.step("the drop is visible: flow-observe --verdict DROPPED", self.dropped)
        return self.failed == 0

    # ---- down ----

    def down(self):
        stop_processes()
        for pod in [*BACKENDS, "client"]:
            if os.path.exists(f"/run/netns/{PREFIX}{pod}") and \
                    os.path.exists(f"/run/netns/{PREFIX}node"):
                try:
                    self.cni("DEL", pod)
                except (Failed, OSError, subprocess.SubprocessError):
                    pass  # its namespace goes next, and the state dir with it
        for name in sorted(os.listdir("/run/netns") if os.path.isdir("/run/netns") else []):
            if name.startswith(PREFIX):
                run(["ip", "netns", "del", name])
        remove_pins(PIN_DIR)
        if os.path.exists(f"{RUN_DIR}/mounted-bpffs"):
            subprocess.run(["umount", BPFFS], check=False, capture_output=True)
        wait_for("an empty cgroup", lambda: remove_dir(cgroup_path()))
        shutil.rmtree(RUN_DIR, ignore_errors=True)


def read_log(name):
    try:
        with open(f"{RUN_DIR}/log/{name}", encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def show_logs():
    for name in ("agent", *BACKENDS):
        for line in read_log(name).splitlines()[-30:]:
            print(f"    {name}: {line}")


def stop_processes():
    try:
        with open(f"{RUN_DIR}/pids", encoding="utf-8") as f:
            known = [line.split() for line in f if len(line.split()) == 2]
    except OSError:
        return
    pids = [int(pid) for pid, started in known if start_time(pid) == started]
    for sig, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        for pid in pids:
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                pass
        try:
            wait_for("the end of the processes", lambda: not any(alive(p) for p in pids), seconds)
            return
        except Failed:
            continue


def alive(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    return bool(start_time(pid))


def remove_pins(top):
    """Unpinning detaches what no one else holds."""
    for folder, dirs, files in os.walk(top, topdown=False):
        for name in files:
            os.unlink(os.path.join(folder, name))
        for name in dirs:
            os.rmdir(os.path.join(folder, name))
    if os.path.isdir(top):
        os.rmdir(top)


def remove_dir(path):
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def print_commands(build):
    node = f"sudo nsenter --net=/run/netns/{PREFIX}node"
    waggle = f"{node} {build}/cli/waggle --pin-dir {PIN_DIR}"
    client = f"sudo nsenter --net=/run/netns/{PREFIX}client"
    print(f"""
It is still up. Try:
  {client} curl -s http://{WEB[0]}/
  {client} curl -sg http://[{WEB[1]}]/
  {waggle} status
  {waggle} service list
  {waggle} bpf ct list
  {node} {build}/hubble-like/flow-observe --server unix://{SOCKET} --follow
Edit {MANIFESTS}/services.yaml and it is live at once.
Remove it: sudo ./quickstart --down""")


def main():
    mode, build = sys.argv[1], sys.argv[2]
    quickstart = Quickstart(build)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    if os.path.exists(RUN_DIR) or os.path.exists(PIN_DIR):
        quickstart.down()
        print("[ok] removed what an earlier run left")
    elif mode == "down":
        print("nothing to remove")
    if mode == "down":
        return 0
    good = kept = False
    try:
        good = quickstart.show()
        if not good:
            show_logs()
        kept = good and mode == "keep"
    finally:
        if not kept:
            quickstart.down()
    if kept:
        print_commands(build)
    else:
        print("[ok] everything removed")
    print("quickstart: every step worked" if good else
          f"quickstart: {max(quickstart.failed, 1)} steps FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
