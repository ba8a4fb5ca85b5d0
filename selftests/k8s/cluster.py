# SPDX-License-Identifier: Apache-2.0
"""A control plane beside the node of netlab: an API server in memory, or kube-apiserver and etcd.

It listens in the namespace "out" only; the tests' own connections are made in there as well.
"""
import base64
import concurrent.futures
import contextlib
import http.client
import ipaddress
import json
import os
import socket
import ssl
import sys
import threading
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../lib"))

import netlab                                                           # noqa: E402
import real_apiserver                                                   # noqa: E402
from netlab import CLONE_NEWNET, LIBC, OUT4, Lab, LabError, wait_for    # noqa: E402

API_VIP, API_PORT = "10.96.0.1", 6443
SEEDERS = 4
TOKEN = "0123456789abcdef-node"
SLICE_API = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SERVICE_API = "/api/v1/namespaces/default/services"


@contextlib.contextmanager
def inside(path):
    """The calling thread in another network namespace; sockets made there stay there."""
    with open("/proc/thread-self/ns/net", "rb") as home, open(path, "rb") as away:
        if LIBC.setns(away.fileno(), CLONE_NEWNET) < 0:
            raise LabError(f"cannot enter {path}")
        try:
            yield
        finally:
            LIBC.setns(home.fileno(), CLONE_NEWNET)


class Connection(http.client.HTTPConnection):
    """HTTP or HTTPS, connected from inside a network namespace."""

    def __init__(self, netns, host, port, tls=None, timeout=30):
        super().__init__(host, port, timeout=timeout)
        self.netns, self.tls = netns, tls

    def connect(self):
        with inside(self.netns):
            super().connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            self.sock = self.tls.wrap_socket(self.sock, server_hostname=self.host)


class Client:
    """What kubectl would do, with one kept connection."""

    def __init__(self, plane):
        self.plane = plane
        self.connection = plane.connection()

    def call(self, method, path, body=None, ok=(200, 201, 202)):
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        try:
            self.connection.request(method, path, body and json.dumps(body), headers)
            answer = self.connection.getresponse()
            data = answer.read()
        except OSError:
            self.connection.close()
            raise
        if answer.status not in ok:
            raise LabError(f"{method} {path}: {answer.status} {data[:300]!r}")
        return json.loads(data or b"null")

    def put(self, obj, create=True):
        base = SERVICE_API if obj["kind"] == "Service" else SLICE_API
        name = obj["metadata"]["name"]
        if create:
            return self.call("POST", base, obj)
        return self.call("PUT", f"{base}/{name}", obj)

    def delete(self, obj):
        base = SERVICE_API if obj["kind"] == "Service" else SLICE_API
        return self.call("DELETE", f"{base}/{obj['metadata']['name']}")


class Watcher(threading.Thread):
    """A watch of our own: when did the API server tell of a change?"""

    def __init__(self, plane, path):
        super().__init__(daemon=True)
        client = Client(plane)
        listed = client.call("GET", path + "?limit=1")
        self.connection = plane.connection(timeout=None)
        self.connection.request(
            "GET", f"{path}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}",
            headers={"Authorization": f"Bearer {TOKEN}"})
        self.answer = self.connection.getresponse()
        self.seen, self.changed = {}, threading.Condition()
        self.start()

    def run(self):
        try:
            for line in self.answer:
                at = time.monotonic_ns()
                event = json.loads(line)
                meta = event["object"].get("metadata", {})
                with self.changed:
                    self.seen[event["type"], meta.get("name")] = at
                    self.changed.notify_all()
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass                                  # closed, as the server or the test ends

    def take(self, kind, name, seconds=10):
        with self.changed:
            if not self.changed.wait_for(lambda: (kind, name) in self.seen, seconds):
                raise LabError(f"no watch event {kind} {name}")
            return self.seen.pop((kind, name))

    def close(self):
        with contextlib.suppress(OSError, AttributeError):      # the server may have ended it
            self.answer.fp.raw._sock.shutdown(socket.SHUT_RDWR)
        self.join(5)


class Plane:
    """What both control planes share: certificates, kubeconfigs, addresses."""

    def __init__(self, lab):
        self.lab = lab
        self.dir = lab.path("pki")
        os.mkdir(self.dir)
        self.make_certificates()
        self.tls = ssl.create_default_context(cafile=self.file("ca.crt"))
        self.url = f"https://{OUT4}:{API_PORT}"

    def file(self, name):
        return os.path.join(self.dir, name)

    def openssl(self, *args):
        self.lab.run(["openssl", *args], cwd=self.dir)

    def make_certificates(self):
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        self.openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
                     "-subj", "/CN=waggle-test-ca")
        with open(self.file("san"), "w", encoding="utf-8") as f:
            f.write(f"subjectAltName=DNS:kubernetes.default.svc,IP:{OUT4},IP:{API_VIP}\n")
        for name, subject, more in (
                ("server", "/CN=kube-apiserver", ("-extfile", "san")),
                ("agent", "/O=system:masters/CN=waggle-agent", ())):
            self.openssl("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr",
                         "-subj", subject)
            self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                         "-CAcreateserial", "-out", f"{name}.crt", "-days", "2", *more)
        self.openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key")

    def kubeconfig(self, name, server, user):
        path = self.file(name)
        with open(self.file("ca.crt"), "rb") as f:
            ca = base64.b64encode(f.read()).decode()
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "test",
                       "clusters": [{"name": "test", "cluster": {
                           "server": server, "certificate-authority-data": ca}}],
                       "users": [{"name": "test", "user": user}],
                       "contexts": [{"name": "test",
                                     "context": {"cluster": "test", "user": "test"}}]}, f)
        return path

    def connection(self, timeout=30):
        return Connection(f"/run/netns/{self.lab.ns('out')}", OUT4, API_PORT, self.tls, timeout)

    def answers(self):
        try:
            return Client(self).call("GET", self.ready_path) is not None
        except (OSError, LabError, http.client.HTTPException, ValueError):
            return False

    def wait_up(self, seconds):
        def up():
            if self.proc.poll() is not None:
                raise LabError(f"the API server ended with {self.proc.returncode}")
            return self.answers()
        wait_for("an API server that answers", up, seconds, 0.1)


class MemoryPlane(Plane):
    """selftests/k8s/apiserver.py: always there."""
    kind = "memory"
    ready_path = "/api/v1/namespaces?limit=1"
    user = {"token": TOKEN}

    def start(self):
        self.proc = self.lab.start("out", [
            sys.executable, os.path.join(HERE, "apiserver.py"), "--host", OUT4, "--port",
            str(API_PORT), "--tls-cert", self.file("server.crt"), "--tls-key",
            self.file("server.key"), "--token", TOKEN], name="apiserver")
        self.wait_up(20)
        client = Client(self)
        client.put(service("kubernetes", [API_VIP], 443, "https"))
        client.put(slice_of("kubernetes", [OUT4], API_PORT, "https"))

    def seed(self, objects):
        client = Client(self)
        for i in range(0, len(objects), 500):
            client.call("POST", "/bulk", {"kind": "List", "items": objects[i:i + 500]})


class RealPlane(Plane):
    """kube-apiserver and etcd."""
    kind = "real"
    authorization = "AlwaysAllow"
    more_flags = ()
    ready_path = "/api/v1/namespaces/default/services/kubernetes"

    @property
    def user(self):
        return {"client-certificate": self.file("agent.crt"),
                "client-key": self.file("agent.key")}

    def start(self):
        with open(self.file("tokens.csv"), "w", encoding="utf-8") as f:
            f.write(f'{TOKEN},waggle-agent,1,"system:masters"\n')
        peer = "http://127.0.0.1:2380"
        self.etcd = self.lab.start("out", [
            real_apiserver.path("etcd"), "--data-dir", self.lab.path("etcd"),
            "--unsafe-no-fsync", "--name", "default",
            "--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls",
            "http://127.0.0.1:2379", "--listen-peer-urls", peer, "--initial-advertise-peer-urls",
            peer, "--initial-cluster", f"default={peer}"], name="etcd")
        self.start_api()

    def start_api(self):
        self.proc = self.lab.start("out", [
            real_apiserver.path("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379",
            f"--bind-address={OUT4}", f"--advertise-address={OUT4}", f"--secure-port={API_PORT}",
            "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
            f"--tls-cert-file={self.file('server.crt')}",
            f"--tls-private-key-file={self.file('server.key')}",
            f"--client-ca-file={self.file('ca.crt')}",
            f"--token-auth-file={self.file('tokens.csv')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.file('sa.key')}",
            f"--service-account-signing-key-file={self.file('sa.key')}",
            "--storage-media-type=application/json",
            f"--authorization-mode={self.authorization}",
            "--disable-admission-plugins=ServiceAccount", "--max-requests-inflight=1000",
            f"--cert-dir={self.dir}", *self.more_flags], name="kube-apiserver")
        self.wait_up(120)

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def etcd_call(self, path, body, connection=None):
        connection = connection or Connection(f"/run/netns/{self.lab.ns('out')}", "127.0.0.1", 2379)
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise LabError(f"etcd {path}: {answer.status} {data[:300]!r}")
        return json.loads(data)

    @staticmethod
    def key(obj):
        part = "services/specs" if obj["kind"] == "Service" else "endpointslices"
        return base64.b64encode(
            f"/registry/{part}/default/{obj['metadata']['name']}".encode()).decode()

    def seed(self, objects):
        """Straight into etcd, so that ten thousand take seconds; the API server tells of each."""
        self.allocate([o["spec"]["clusterIP"] for o in objects if o["kind"] == "Service"])
        # One write each: a watch that resumes counts on a resourceVersion of one change.
        with concurrent.futures.ThreadPoolExecutor(SEEDERS) as pool:
            list(pool.map(self.store, [objects[i::SEEDERS] for i in range(SEEDERS)]))

    def store(self, objects):
        connection = Connection(f"/run/netns/{self.lab.ns('out')}", "127.0.0.1", 2379)
        for obj in objects:
            meta = {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z",
                    **obj["metadata"]}
            value = json.dumps({**obj, "metadata": meta}).encode()
            self.etcd_call("/v3/kv/put", {"key": self.key(obj),
                                          "value": base64.b64encode(value).decode()}, connection)
        connection.close()

    def allocate(self, addresses):
        """Marks them as taken, or the API server would repair one after the other."""
        key = base64.b64encode(b"/registry/ranges/serviceips").decode()
        found = self.etcd_call("/v3/kv/range", {"key": key})["kvs"][0]
        taken = json.loads(base64.b64decode(found["value"]))
        first = ipaddress.ip_network(taken["range"])[1]
        bits = int.from_bytes(base64.b64decode(taken.get("data", "")), "big")
        for address in addresses:
            bits |= 1 << (int(ipaddress.ip_address(address)) - int(first))
        size = (bits.bit_length() + 7) // 8
        taken["data"] = base64.b64encode(bits.to_bytes(size, "big")).decode()
        value = base64.b64encode(json.dumps(taken).encode()).decode()
        self.etcd_call("/v3/kv/put", {"key": key, "value": value})

    def erase(self, obj):
        self.etcd_call("/v3/kv/deleterange", {"key": self.key(obj)})

    def compact(self):
        now = self.etcd_call("/v3/kv/range", {"key": "AA=="})["header"]["revision"]
        self.etcd_call("/v3/kv/compaction", {"revision": now})


def service(name, vips, number=80, port_name="web", target=8080):
    families = ["IPv6" if ":" in v else "IPv4" for v in vips]
    return {"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"type": "ClusterIP", "clusterIP": vips[0], "clusterIPs": list(vips),
                     "ipFamilies": families, "sessionAffinity": "None",
                     "ipFamilyPolicy": "RequireDualStack" if len(vips) > 1 else "SingleStack",
                     "internalTrafficPolicy": "Cluster",
                     "ports": [{"name": port_name, "port": number, "targetPort": target,
                                "protocol": "TCP"}]}}


def slice_of(name, addresses, number=8080, port_name="web"):
    family = "IPv6" if ":" in addresses[0] else "IPv4"
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-{family.lower()}", "namespace": "default",
                         "labels": {"kubernetes.io/service-name": name}},
            "addressType": family,
            "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
            "ports": [{"name": port_name, "port": number, "protocol": "TCP"}]}


class KubeLab(Lab):
    """A node whose agent takes its Services from an API server."""

    def __init__(self, plane_class, build=None):
        super().__init__(build)
        self.plane_class, self.plane = plane_class, None
        self.source = []
        self.in_cluster = False

    def binary(self, name):
        if name == "svc_watch":
            return os.path.join(self.build, "selftests/k8s", name)
        return super().binary(name)

    def start_plane(self):
        self.plane = self.plane_class(self)
        self.plane.start()

    def agent_argv(self, *extra):
        argv = super().agent_argv(*extra)
        at = argv.index("--manifests")
        argv[at:at + 2] = self.source
        return self.with_service_account(argv) if self.in_cluster else argv

    def with_service_account(self, argv):
        """As in a pod on the host's network: its folder at the usual place, seen by it alone."""
        where = "/run/secrets/kubernetes.io/serviceaccount"
        script = (f"mount -t tmpfs tmpfs /run && mkdir -p {where} && "
                  f"cp '{self.plane.file('ca.crt')}' {where}/ca.crt && "
                  f"printf %s {TOKEN} > {where}/token && exec \"$@\"")
        return ["unshare", "-m", "env", f"KUBERNETES_SERVICE_HOST={API_VIP}",
                "KUBERNETES_SERVICE_PORT=443", "sh", "-ec", script, "sh", *argv]


def rss_kib(pid):
    """VmRSS, and how much of it is mapped BPF maps, in KiB."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        total = next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))
    mapped, of_map = 0, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as f:
        for line in f:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                of_map = "bpf-map" in line
            elif of_map and words[0] == "Rss:":
                mapped += int(words[1])
    return total, mapped


__all__ = ["API_VIP", "Client", "KubeLab", "MemoryPlane", "RealPlane", "Watcher", "netlab",
           "rss_kib", "service", "slice_of"]
