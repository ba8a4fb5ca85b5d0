# SPDX-License-Identifier: Apache-2.0
"""An API server with a large cluster in it that costs next to nothing to ask: every answer is made
before anybody asks, in one language. HTTP/1.1, over TLS if given a context."""
import json
import os
import socket
import sys
import threading
import time
import urllib.parse

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "k8s"))
import protobuf                                                         # noqa: E402

PAGE = 500
JSON = "application/json"
ENDPOINTSLICES = "/apis/discovery.k8s.io/v1/endpointslices"
NAMESPACES, PODS = "/api/v1/namespaces", "/api/v1/pods"
NETWORKPOLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
PATHS = {"/api/v1/services": ("v1", "Service"), "/api/v1/nodes": ("v1", "Node"),
         NAMESPACES: ("v1", "Namespace"), PODS: ("v1", "Pod"),
         ENDPOINTSLICES: ("discovery.k8s.io/v1", "EndpointSlice"),
         NETWORKPOLICIES: ("networking.k8s.io/v1", "NetworkPolicy")}
THIS_NODE = "node-0000"
NODES, ZONES = 1000, 3
# As many bytes as managedFields take, which no client of this kind reads.
WEIGHT = {"example.com/managed": "f" * 400}


def meta(name, labels, rv):
    return {"name": name, "namespace": f"team-{int(name.split('-')[1]) % 50}",
            "uid": f"9c9dd6d0-57e4-4a1c-9d6c-{rv:012d}", "resourceVersion": str(rv),
            "creationTimestamp": "2026-01-02T03:04:05Z", "labels": labels, "annotations": WEIGHT}


def address(i, k, per_service, v6=False):
    n = i * per_service + k + 256
    if v6:
        return f"fd00:{0x8000 + (n >> 16):x}::{n & 0xffff:x}"
    return f"10.{128 + (n >> 16)}.{n >> 8 & 255}.{n & 255}"


def vip(i, v6=False):
    return f"fd00:10:96::{i + 256:x}" if v6 else f"10.96.{(i + 256) >> 8}.{i & 255}"


def service(i, families):
    vips = [vip(i, v6) for v6 in range(families)]
    return {"kind": "Service", "apiVersion": "v1",
            "metadata": meta(f"svc-{i}", {"app": f"svc-{i}"}, i + 10),
            "spec": {"ports": [{"name": "http", "protocol": "TCP", "port": 80}],
                     "selector": {"app": f"svc-{i}"}, "clusterIP": vips[0], "type": "ClusterIP",
                     "sessionAffinity": "None", "clusterIPs": vips,
                     "ipFamilies": ["IPv4", "IPv6"][:families],
                     "ipFamilyPolicy": "PreferDualStack", "internalTrafficPolicy": "Cluster"},
            "status": {"loadBalancer": {}}}


def endpointslice(i, per_service, n, rv=0, v6=False):
    """The first n endpoints of Service i."""
    labels = {"app": f"svc-{i}", "kubernetes.io/service-name": f"svc-{i}",
              "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
    obj = {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
           "metadata": meta(f"svc-{i}-x7k2{'v' if v6 else 'p'}", labels, rv),
           "addressType": "IPv6" if v6 else "IPv4",
           "ports": [{"name": "http", "protocol": "TCP", "port": 8080}], "endpoints": []}
    for k in range(n):
        node = (i * per_service + k) * 7919 % NODES
        obj["endpoints"].append({
            "addresses": [address(i, k, per_service, v6)],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "namespace": obj["metadata"]["namespace"],
                          "name": f"svc-{i}-6d4b75cb6d-{i:05x}{k}",
                          "uid": f"5b1f2d06-44d1-4d57-8a45-{i * 100 + k:012d}"},
            "nodeName": f"node-{node:04d}.example.internal", "zone": f"zone-{node % ZONES}"})
    return obj


class Body:
    """One resource's pages, in one language."""

    def __init__(self, path, objects, language):
        version, kind = PATHS[path]
        self.pages = []
        for at in range(0, max(len(objects), 1), PAGE):
            part = objects[at:at + PAGE]
            about = {"resourceVersion": "1000000"}
            if at + PAGE < len(objects):
                about["continue"] = str(at // PAGE + 1)
            if language == protobuf.TYPE:
                body = protobuf.listing(version, kind + "List", about,
                                        [protobuf.message(kind, o) for o in part])
            else:
                body = json.dumps({"kind": kind + "List", "apiVersion": version,
                                   "metadata": about, "items": part},
                                  separators=(",", ":")).encode()
            self.pages.append(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
                              % (language.encode(), len(body)) + body)


def service_objects(services, per_service, families):
    return {"/api/v1/services": [service(i, families) for i in range(services)],
            ENDPOINTSLICES: [endpointslice(i, per_service, per_service, 100000 + i, v6)
                             for i in range(services) for v6 in range(families)],
            NAMESPACES: [{"metadata": {"name": f"team-{i}", "uid": "x", "resourceVersion": "1"}}
                         for i in range(50)]}


def local(objects):
    """The Pods of this node: what the agent asks for by a field selector."""
    return [o for o in objects if o["spec"].get("nodeName") == THIS_NODE]


class ScaleServer:
    """listener: a listening socket. tls: an ssl.SSLContext of a server, or None. objects: lists by
    path. begin() is called by the thread that serves."""

    def __init__(self, listener, tls, objects, language, begin):
        self.listener, self.tls, self.language = listener, tls, language
        self.bodies = {path: Body(path, objects.get(path, []), language) for path in PATHS}
        self.local_pods = Body(PODS, local(objects.get(PODS, [])), language)
        self.rv = 1000000
        self.watches = {}                        # path: the socket of the last one
        self.first_answer_ns = self.last_answer_ns = 0
        self.wanted = set()                      # what was asked for by Accept
        threading.Thread(target=self.accept, args=(begin,), daemon=True).start()

    def accept(self, begin):
        begin()
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = sock.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                self.answer(sock, head.decode().split("\r\n"))
        except OSError:
            pass

    def answer(self, sock, lines):
        url = urllib.parse.urlsplit(lines[0].split()[1])
        query = urllib.parse.parse_qs(url.query)
        self.wanted |= {line for line in lines if line.lower().startswith("accept:")}
        if url.path not in self.bodies:
            sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        elif query.get("watch"):
            kind = self.language + (";stream=watch" if self.language == protobuf.TYPE else "")
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n"
                         b"Transfer-Encoding: chunked\r\n\r\n" % kind.encode())
            self.watches[url.path] = sock
        else:
            page = int(query.get("continue", ["0"])[0])
            self.first_answer_ns = self.first_answer_ns or time.monotonic_ns()
            body = self.local_pods if "fieldSelector" in query else self.bodies[url.path]
            sock.sendall(body.pages[page])
            self.last_answer_ns = time.monotonic_ns()

    def change(self, kind, obj):
        """The chunk of a watch that says: ADDED, MODIFIED or DELETED."""
        self.rv += 1
        obj["metadata"]["resourceVersion"] = str(self.rv)
        if self.language == protobuf.TYPE:
            body = protobuf.event(kind, obj["apiVersion"], obj["kind"],
                                  protobuf.message(obj["kind"], obj))
        else:
            body = json.dumps({"type": kind, "object": obj},
                              separators=(",", ":")).encode() + b"\n"
        return b"%x\r\n%s\r\n" % (len(body), body)
