# SPDX-License-Identifier: Apache-2.0
"""A node whose agent has an API server with a large cluster in it."""
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time

from forwarding import Link
from scale_server import JSON, THIS_NODE, ScaleServer, protobuf
from topology import BenchError, command, inside, netns
from waggle import HEALTH_PORT, cgroup2

HERE = os.path.dirname(os.path.abspath(__file__))


def add_arguments(p):
    p.add_argument("--language", choices=("protobuf", "json"), default="protobuf",
                   help="what the API server answers in")
    p.add_argument("--plain", action="store_true", help="HTTP without TLS")
    p.add_argument("--no-fifo", action="store_true", help="as ordinary tasks; only for an idle "
                   "machine")
    p.add_argument("--build", default=os.environ.get("WAGGLE_BUILD") or
                   os.path.join(HERE, "..", "..", "build"))
    p.add_argument("--agent", help="another waggle-agent than the build's")


def fifo():
    """The calling thread and what it starts are not interrupted by other work on the machine."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


class World:
    """A node, an API server on its loopback, and room for an agent."""

    def __init__(self, args, objects):
        self.args, self.objects = args, objects
        self.dir = tempfile.mkdtemp(prefix="waggle-scale-", dir="/run")
        self.bpffs = os.path.join(self.dir, "bpf")
        self.pins = os.path.join(self.bpffs, "waggle")
        self.node = Link(f"wags{os.getpid()}")
        self.cgroup = os.path.join(cgroup2(), self.node.name)
        self.agent = None
        self.fifo = (lambda: None) if args.no_fifo else fifo

    def __enter__(self):
        try:
            self.up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def up(self):
        os.mkdir(self.bpffs)
        command(["mount", "-t", "bpf", "bpf", self.bpffs])
        os.mkdir(self.cgroup)
        self.node.make_namespaces()
        self.node.make_link()
        with netns(self.node.node):
            listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        plain = self.args.plain
        self.server = ScaleServer(listener, None if plain else self.make_tls(), self.objects,
                                  protobuf.TYPE if self.args.language == "protobuf" else JSON,
                                  self.fifo)
        self.url = "%s://127.0.0.1:%d" % ("http" if plain else "https",
                                          listener.getsockname()[1])

    def __exit__(self, *_):
        self.stop()
        self.node.remove()
        subprocess.run(["umount", self.bpffs], check=False)
        subprocess.run(["rm", "-rf", self.dir], check=False)
        try:
            os.rmdir(self.cgroup)
        except OSError:
            pass

    def make_tls(self):
        key, cert = (os.path.join(self.dir, f) for f in ("key.pem", "cert.pem"))
        command(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
                 "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        return context

    def kubeconfig(self):
        path = os.path.join(self.dir, "kubeconfig")
        cluster = {"server": self.url}
        if not self.args.plain:
            cluster["certificate-authority"] = os.path.join(self.dir, "cert.pem")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "c",
                       "clusters": [{"name": "c", "cluster": cluster}],
                       "users": [{"name": "c", "user": {"token": "t"}}],
                       "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]}, f)
        return path

    def tool(self, *path):
        return os.path.join(self.args.build, *path)

    def argv(self):
        return [self.args.agent or self.tool("agent", "waggle-agent"), "--node-name", THIS_NODE,
                "--kubeconfig", self.kubeconfig(), "--pin-dir", self.pins, "--state-dir",
                os.path.join(self.dir, "state"), "--cgroup", self.cgroup, "--socket",
                os.path.join(self.dir, "hubble.sock"), "--health-addr",
                f"127.0.0.1:{HEALTH_PORT}"]

    def start(self):
        """Returns when it was started, ns of the monotonic clock."""
        argv = self.argv()
        with open(os.path.join(self.dir, "agent.log"), "w", encoding="utf-8") as log:
            at = time.monotonic_ns()
            self.agent = subprocess.Popen(inside(self.node.node, *argv), stderr=log, stdout=log,
                                          preexec_fn=self.fifo)
        return at

    def log(self):
        with open(os.path.join(self.dir, "agent.log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def until(self, what, found, seconds=60):
        deadline = time.monotonic() + seconds
        while not found():
            if self.agent.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"waited for: {what}\n{self.log()[-1500:]}")
            time.sleep(0.02)

    def synced_ns(self):
        """When the agent had programmed what it was told first; 0: not yet."""
        path = os.path.join(self.pins, "maps", "wag_meta")
        if not os.path.exists(path):
            return 0
        said = json.loads(command(["bpftool", "-j", "map", "dump", "pinned", path]))
        return int(said[0]["formatted"]["value"]["synced_ns"])

    def stop(self):
        if self.agent and self.agent.poll() is None:
            self.agent.send_signal(signal.SIGTERM)
            try:
                self.agent.wait(10)
            except subprocess.TimeoutExpired:
                self.agent.kill()
                self.agent.wait()
        self.agent = None

    def clean(self):
        self.stop()
        subprocess.run(inside(self.node.node, *self.argv(), "--cleanup"), check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.server.first_answer_ns = 0
        self.server.watches.clear()

    def memory(self):
        with open(f"/proc/{self.agent.pid}/status", encoding="ascii") as f:
            found = dict(re.findall(r"^(\w+):\s+(\d+) kB", f.read(), re.M))
        return {k: int(found[k]) / 1024 for k in ("VmRSS", "VmHWM", "RssAnon", "RssFile",
                                                  "RssShmem")}

    def cpu_ns(self):
        total = 0
        for task in os.listdir(f"/proc/{self.agent.pid}/task"):
            with open(f"/proc/{self.agent.pid}/task/{task}/schedstat", encoding="ascii") as f:
                total += int(f.read().split()[0])
        return total
