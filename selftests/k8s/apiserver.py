#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A small API server in memory: the resources the agent reads and writes, with list, watch, create,
update, merge patch and delete over HTTP(S), conflicts included, in JSON and, where that is asked
for, protobuf; and the same as Python calls for tests that embed it. Its own: a List POSTed to /bulk
is applied in one go.

  ./apiserver.py --port 8001 [--load FILE.json ...] [--tls-cert F --tls-key F [--client-ca F]]
"""
import argparse
import collections
import http.server
import ipaddress
import json
import re
import socket
import ssl
import threading
import time
import urllib.parse
import uuid

import protobuf

KINDS = {
    "services": ("/api/v1", "Service", True),
    "endpointslices": ("/apis/discovery.k8s.io/v1", "EndpointSlice", True),
    "nodes": ("/api/v1", "Node", False),
    "namespaces": ("/api/v1", "Namespace", False),
    "pods": ("/api/v1", "Pod", True),
    "networkpolicies": ("/apis/networking.k8s.io/v1", "NetworkPolicy", True),
    "clusternetworkpolicies": ("/apis/policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy",
                               False),  # of a CRD: see ApiServer.undefined
    "leases": ("/apis/coordination.k8s.io/v1", "Lease", True),
    "events": ("/api/v1", "Event", True),
}


JSON = "application/json"


def status(code, reason, message):
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code}


def api_version(resource):
    return KINDS[resource][0].split("/", 2)[2]


class Gone(Exception):
    """A resourceVersion or continue token that is too old."""


class Refused(Exception):
    """What is asked for cannot be done: HTTP status, reason, words."""


def merge_patch(old, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merge_patch(new.get(key), value)
    return new


class Store:
    """The objects, and the events that made them what they are."""

    def __init__(self, history=100000):
        self.changed = threading.Condition(threading.RLock())
        self.rv = 1
        self.objects = {r: {} for r in KINDS}    # (ns, name) -> (object, encodings)
        self.events = {r: collections.deque(maxlen=history) for r in KINDS}
        self.compacted = 0                       # watches from before this one get 410
        self.next_ip = ipaddress.ip_address("10.96.1.0")
        self.next_port = 30000

    @staticmethod
    def encode(resource, obj):
        """By media type."""
        raw = {JSON: json.dumps(obj, separators=(",", ":")).encode()}
        kind = KINDS[resource][1]
        if kind in protobuf.SCHEMA:
            raw[protobuf.TYPE] = protobuf.message(kind, obj)
        return raw

    def _complete(self, resource, obj):
        """What a real server fills in."""
        obj.setdefault("kind", KINDS[resource][1])
        obj.setdefault("apiVersion", api_version(resource))
        if resource != "services":
            return
        spec = obj.setdefault("spec", {})
        kind = spec.setdefault("type", "ClusterIP")
        if kind == "ExternalName":
            return
        if not spec.get("clusterIP"):
            self.next_ip += 1
            spec["clusterIP"] = spec.get("clusterIPs", [str(self.next_ip)])[0]
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
        for port in spec.get("ports") or []:
            port.setdefault("protocol", "TCP")
            if kind in ("NodePort", "LoadBalancer") and not port.get("nodePort"):
                self.next_port += 1
                port["nodePort"] = self.next_port

    def apply(self, resource, obj):
        """Create or update. Returns the object as stored."""
        with self.changed:
            self._complete(resource, obj)
            meta = obj["metadata"]
            key = (meta.get("namespace", ""), meta["name"])
            known = key in self.objects[resource]
            if known:
                meta.setdefault("uid", self.objects[resource][key][0]["metadata"]["uid"])
            else:
                meta.setdefault("uid", str(uuid.uuid4()))
            self.rv += 1
            meta["resourceVersion"] = str(self.rv)
            raw = self.encode(resource, obj)
            old = self.objects[resource].get(key)
            self.objects[resource][key] = (obj, raw)
            self.events[resource].append(
                (self.rv, "MODIFIED" if known else "ADDED", obj, raw, old and old[0]))
            self.changed.notify_all()
            return obj

    def create(self, resource, obj):
        with self.changed:
            meta = obj["metadata"]
            if (meta.get("namespace", ""), meta["name"]) in self.objects[resource]:
                raise Refused(409, "AlreadyExists", f'{resource} "{meta["name"]}" already exists')
            meta.pop("uid", None)
            return self.apply(resource, obj)

    def replace(self, resource, obj):
        """A uid or resourceVersion in obj has to be that of the object in place."""
        with self.changed:
            meta = obj["metadata"]
            self.expect(resource, meta.get("namespace", ""), meta["name"], meta)
            return self.apply(resource, obj)

    def patch(self, resource, namespace, name, patch):
        with self.changed:
            old = self.expect(resource, namespace, name, patch.get("metadata") or {})
            return self.apply(resource, merge_patch(json.loads(json.dumps(old)), patch))

    def expect(self, resource, namespace, name, wanted):
        found = self.objects[resource].get((namespace, name))
        if not found:
            raise Refused(404, "NotFound", f'{resource} "{name}" not found')
        for field in ("uid", "resourceVersion"):
            if wanted.get(field) and wanted[field] != found[0]["metadata"][field]:
                raise Refused(409, "Conflict", f'{resource} "{name}": the {field} is another one')
        return found[0]

    def delete(self, resource, namespace, name, wanted=None):
        with self.changed:
            if wanted:
                self.expect(resource, namespace, name, wanted)
            old = self.objects[resource].pop((namespace, name), None)
            if old is None:
                return None
            self.rv += 1
            obj = dict(old[0], metadata=dict(old[0]["metadata"], resourceVersion=str(self.rv)))
            self.events[resource].append(
                (self.rv, "DELETED", obj, self.encode(resource, obj), obj))
            self.changed.notify_all()
            return obj

    def vanish(self, resource, namespace, name):
        """Delete without an event: what a client can learn from a new list only."""
        with self.changed:
            del self.objects[resource][(namespace, name)]
            self.rv += 1

    def compact(self):
        """Forget the past: every watch and token from before is answered 410."""
        with self.changed:
            self.compacted = self.rv
            for events in self.events.values():
                events.clear()
            self.changed.notify_all()


def label_test(term):
    """One term of a label selector, of the few kinds the agent uses, as a predicate on labels."""
    if " notin " in term:
        key, values = term.split(" notin ")
        values = values.strip("()").split(",")
        return lambda labels: labels.get(key) not in values
    if "=" in term:
        key, value = term.split("=", 1)
        return lambda labels: labels.get(key) == value
    if term.startswith("!"):
        return lambda labels: term[1:] not in labels
    return lambda labels: term in labels


def parse_selectors(query):
    """A predicate for labelSelector and fieldSelector spec.nodeName=N."""
    terms = re.findall(r"[^,(]+(?:\([^)]*\))?", query.get("labelSelector", [""])[0])
    tests = [label_test(term) for term in terms]
    field, node = query.get("fieldSelector", [""])[0], None
    if field.startswith("spec.nodeName="):
        node = field.split("=", 1)[1]

    def match(obj):
        labels = obj["metadata"].get("labels") or {}
        return (all(test(labels) for test in tests)
                and (node is None or obj.get("spec", {}).get("nodeName") == node))
    return match


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bookmark_s = 60.0

    def log_message(self, *args):
        pass

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, ssl.SSLError, socket.timeout, ValueError):
            pass                                  # the client went away, as clients do

    @property
    def store(self):
        return self.server.store

    def speaks(self):
        """The media type of the answer: the first one of Accept that this server has."""
        wanted = self.headers.get("Accept") or JSON
        if self.server.protobuf and wanted.startswith(protobuf.TYPE):
            return protobuf.TYPE
        return JSON

    def answer(self, code, body, headers=(), kind=JSON):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, code, reason, message, headers=()):
        body = status(code, reason, message)
        if self.speaks() == protobuf.TYPE:
            self.answer(code, protobuf.status(body), headers, protobuf.TYPE)
        else:
            self.answer(code, json.dumps(body).encode(), headers)

    def start_chunks(self, kind=JSON):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def locate(self):
        """resource, namespace, name, query; None where the path is none of ours."""
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        for resource, (group, _, namespaced) in KINDS.items():
            if not url.path.startswith(group + "/"):
                continue
            parts = url.path[len(group) + 1:].split("/")
            namespace = ""
            if namespaced and len(parts) > 2 and parts[0] == "namespaces":
                namespace, parts = parts[1], parts[2:]
            if resource in self.server.undefined:
                continue
            if parts[0] == resource and len(parts) <= 2:
                return resource, namespace, parts[1] if len(parts) > 1 else "", query
        return None

    def authorized(self):
        token = self.server.token
        if token and self.headers.get("Authorization") != f"Bearer {token}":
            self.refuse(401, "Unauthorized", "Unauthorized")
            return False
        return True

    def do_GET(self):
        if not self.authorized() or self.injected():
            return
        at = self.locate()
        if not at:
            self.refuse(404, "NotFound", "the server could not find the requested resource")
            return
        resource, namespace, name, query = at
        try:
            if name:
                self.get_one(resource, namespace, name)
            elif query.get("watch"):
                self.watch(resource, query)
            else:
                self.list(resource, namespace, query)
        except Gone as e:
            self.refuse(410, "Expired", str(e))

    def injected(self):
        return False

    def get_one(self, resource, namespace, name):
        found = self.store.objects[resource].get((namespace, name))
        if found:
            self.answer(200, found[1][JSON])
        else:
            self.refuse(404, "NotFound", f'{resource} "{name}" not found')

    def list(self, resource, namespace, query):
        match = parse_selectors(query)
        kind = self.speaks() if KINDS[resource][1] in protobuf.SCHEMA else JSON
        limit = int(query.get("limit", ["0"])[0])
        token = query.get("continue", [""])[0]
        after, rv = None, None
        with self.store.changed:
            if token:
                rv, after = json.loads(token)
                after = tuple(after)
                if rv < self.store.compacted:
                    raise Gone("The provided continue parameter is too old")
            rv = rv or self.store.rv
            keys = sorted(k for k, v in self.store.objects[resource].items()
                          if match(v[0]) and (after is None or k > after)
                          and namespace in ("", k[0]))
            page = keys[:limit] if limit else keys
            raws = [self.store.objects[resource][k][1][kind] for k in page]
        meta = {"resourceVersion": str(rv)}
        if len(page) < len(keys):
            meta["continue"] = json.dumps([rv, page[-1]])
            meta["remainingItemCount"] = len(keys) - len(page)
        name = KINDS[resource][1] + "List"
        if kind == protobuf.TYPE:
            body = protobuf.listing(api_version(resource), name, meta, raws)
        else:
            head = json.dumps({"kind": name, "apiVersion": api_version(resource),
                               "metadata": meta})[:-1].encode()
            body = head + b',"items":[' + b",".join(raws) + b"]}\n"
        self.answer(200, body, kind=kind)

    def watch(self, resource, query):
        match = parse_selectors(query)
        rv = int(query.get("resourceVersion", ["0"])[0])
        end = time.monotonic() + float(query.get("timeoutSeconds", ["300"])[0])
        bookmark_at = time.monotonic() + self.bookmark_s
        kind = self.speaks()
        self.start_chunks(kind + ";stream=watch" if kind == protobuf.TYPE else kind)
        if rv < self.store.compacted:
            gone = status(410, "Expired", f"too old resource version: {rv}")
            self.chunk(self.one_event("ERROR", "v1", "Status", {
                JSON: json.dumps(gone).encode(),
                protobuf.TYPE: protobuf.message("Status", gone)}))
            self.chunk(b"")
            return
        epoch = self.server.epoch
        while (not self.server.stopping and time.monotonic() < end
               and epoch == self.server.epoch):
            with self.store.changed:
                news = self.news(resource, rv)
                if not news:
                    self.store.changed.wait(min(0.5, max(0.01, bookmark_at - time.monotonic())))
                    news = self.news(resource, rv)
                seen = self.store.rv
            out = b"".join(filter(None, (self.event(resource, match, e) for e in news)))
            if out:
                self.chunk(out)
            rv = seen
            if time.monotonic() >= bookmark_at:
                bookmark_at = time.monotonic() + self.bookmark_s
                mark = {"kind": KINDS[resource][1], "metadata": {"resourceVersion": str(rv)}}
                self.chunk(self.one_event("BOOKMARK", api_version(resource), mark["kind"],
                                          self.store.encode(resource, mark)))
        self.chunk(b"")

    def news(self, resource, rv):
        found = []
        for event in reversed(self.store.events[resource]):
            if event[0] <= rv:
                break
            found.append(event)
        return found[::-1]

    def one_event(self, kind, version, object_kind, raw):
        """A line of JSON, or a frame."""
        if self.speaks() == protobuf.TYPE:
            return protobuf.event(kind, version, object_kind, raw[protobuf.TYPE])
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), raw[JSON])

    def event(self, resource, match, event):
        """An object that leaves or enters the selection is deleted or added."""
        _, kind, obj, raw, old = event
        now, before = match(obj), old is not None and match(old)
        if kind == "DELETED":
            kind = "DELETED" if now else None
        elif now:
            kind = "MODIFIED" if before else "ADDED"
        else:
            kind = "DELETED" if before else None
        return kind and self.one_event(kind, api_version(resource), KINDS[resource][1], raw)

    def write(self, change):
        """change(resource, namespace, name, body) -> HTTP status, object."""
        obj = self.sent = self.body()
        if not self.authorized() or self.injected():
            return
        at = self.locate()
        try:
            if not at:
                raise Refused(404, "NotFound", "the server could not find the requested resource")
            code, made = change(*at[:3], obj)
            self.answer(code, json.dumps(made).encode())
        except Refused as e:
            self.refuse(*e.args)

    def body(self):
        size = int(self.headers.get("Content-Length", 0))
        return json.loads(self.rfile.read(size)) if size else {}

    def do_POST(self):
        if self.path == "/bulk":
            if self.authorized():
                take(self.store, self.body())
                self.answer(200, b"{}")
            return

        def create(resource, namespace, name, obj):
            if namespace:
                obj["metadata"].setdefault("namespace", namespace)
            return 201, self.store.create(resource, obj)
        self.write(create)

    def do_PUT(self):
        def replace(resource, namespace, name, obj):
            if namespace:
                obj["metadata"].setdefault("namespace", namespace)
            return 200, self.store.replace(resource, obj)
        self.write(replace)

    def do_PATCH(self):
        def patch(resource, namespace, name, obj):
            if self.headers.get("Content-Type") != "application/merge-patch+json":
                raise Refused(415, "UnsupportedMediaType", "only merge patches are understood")
            return 200, self.store.patch(resource, namespace, name, obj)
        self.write(patch)

    def do_DELETE(self):
        def delete(resource, namespace, name, options):
            gone = self.store.delete(resource, namespace, name, options.get("preconditions"))
            if not gone:
                raise Refused(404, "NotFound", f'{resource} "{name}" not found')
            return 200, gone
        self.write(delete)


class ApiServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address=("127.0.0.1", 0), handler=Handler, store=None, tls=None,
                 token=None, speaks_protobuf=True):
        self.undefined = {"clusternetworkpolicies"}
        """tls: (cert, key, client CA or None). Without protobuf it answers JSON whatever is asked,
        as an old server does."""
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)
        self.store = store or Store()
        self.token = token
        self.protobuf = speaks_protobuf
        self.stopping = False
        self.epoch = 0                           # another one ends every watch
        self.tls = None
        if tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(tls[0], tls[1])
            if tls[2]:
                self.tls.load_verify_locations(tls[2])
                self.tls.verify_mode = ssl.CERT_REQUIRED

    def get_request(self):
        sock, address = super().get_request()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            sock = self.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address

    def handle_error(self, request, client_address):
        pass

    @property
    def url(self):
        host = self.server_address[0]
        return "%s://%s:%d" % ("https" if self.tls else "http",
                               f"[{host}]" if ":" in host else host, self.server_address[1])

    def end_watches(self):
        self.epoch += 1
        with self.store.changed:
            self.store.changed.notify_all()

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stopping = True
        self.shutdown()
        self.server_close()


def load(store, path):
    with open(path) as f:
        take(store, json.load(f))


def take(store, doc):
    """A recorded list, or any object or List of these kinds."""
    by_kind = {kind: resource for resource, (_, kind, _) in KINDS.items()}
    for item in doc.get("items", [doc]):
        kind = item.get("kind") or doc["kind"].removesuffix("List")
        if kind in by_kind:
            store.apply(by_kind[kind], item)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--load", action="append", default=[])
    parser.add_argument("--token")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--client-ca")
    args = parser.parse_args()
    tls = (args.tls_cert, args.tls_key, args.client_ca) if args.tls_cert else None
    with ApiServer((args.host, args.port), tls=tls, token=args.token) as server:
        for path in args.load:
            load(server.store, path)
        print(server.url, flush=True)
        try:
            server.thread.join()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
