#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The list and watch machine against an API server that misbehaves in every known way."""
import base64
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import apiserver                                                        # noqa: E402
from fake_apiserver import (FakeApiServer, raw_body, raw_socket, recorded, status,  # noqa: E402
                            stream)

FIXTURES = os.path.join(HERE, "fixtures")
BUILD = os.environ.get("WAGGLE_BUILD", os.path.join(HERE, "..", "..", "build"))
DRIVER = os.path.join(BUILD, "selftests", "k8s", "kube_driver")
DEADLINE_S = 20
SCRATCH = tempfile.TemporaryDirectory(prefix="waggle-k8s-")


class Driver:
    """The C side, and what it has said so far."""

    def __init__(self, kubeconfig="-", servers="-", node="n1", limits=(), env=None):
        self.services, self.synced, self.logs, self.lines = {}, set(), [], []
        self.rss, self.error = {}, ""
        self.proc = subprocess.Popen(
            [DRIVER, kubeconfig, servers, node, *map(str, limits)], text=True,
            stdout=subprocess.PIPE, env=dict(os.environ, **(env or {})))
        self.queue = queue.Queue()
        threading.Thread(target=self.pump, daemon=True).start()

    def pump(self):
        for line in self.proc.stdout:
            self.queue.put((time.monotonic(), line.rstrip("\n")))
        self.queue.put((0, None))

    def take(self, timeout):
        at, line = self.queue.get(timeout=timeout)
        if line is None:
            raise AssertionError(f"the driver ended ({self.proc.wait()}): {self.lines[-5:]}")
        self.lines.append(line)
        verb, _, rest = line.partition(" ")
        if verb == "svc":
            name, ports, ready = rest.split(" ")
            self.services.pop(name, None)
            if ports != "gone":
                self.services[name] = (ports, int(ready))
        elif verb == "synced":
            self.synced.add(rest)
        elif verb == "log":
            self.logs.append(rest)
        elif verb == "rss":
            self.rss[len(self.rss)] = int(rest)
        elif verb == "error":
            self.error = rest
        return at

    def until(self, true, what):
        """Reads on until true() holds. Returns when the line came that made it so."""
        end, at = time.monotonic() + DEADLINE_S, time.monotonic()
        while not true():
            try:
                at = self.take(max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"never came: {what}; services {len(self.services)}, "
                                     f"logs {self.logs[-3:]}") from None
        return at

    def until_service(self, name, want):
        return self.until(lambda: self.services.get(name) == want, f"{name} as {want}")

    def until_synced(self, *kinds):
        self.until(lambda: self.synced >= set(kinds or ("services", "slices")), f"sync {kinds}")

    def until_log(self, text):
        self.until(lambda: any(text in entry for entry in self.logs), f"log {text!r}")

    def stop(self):
        """Ends it and returns its status lines: kind -> text."""
        self.proc.terminate()
        if self.proc.wait(DEADLINE_S) != 0:
            raise AssertionError(f"the driver ended with {self.proc.returncode}")
        try:
            while True:
                self.take(1)
        except AssertionError:
            pass
        return {entry.split()[1]: entry for entry in self.lines if entry.startswith("status ")}

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()


def wait_for(true, what):
    end = time.monotonic() + DEADLINE_S
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"never came: {what}")
        time.sleep(0.01)


def service(name, port=80, **spec):
    return {"metadata": {"name": name, "namespace": "t"},
            "spec": dict({"ports": [{"port": port}]}, **spec)}


def endpointslice(name, svc, addresses):
    return {"metadata": {"name": name, "namespace": "t",
                         "labels": {"kubernetes.io/service-name": svc}},
            "addressType": "IPv4", "ports": [{"port": 8080}],
            "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses]}


def fill(server, n=3):
    for i in range(n):
        server.store.apply("services", service(f"s{i}"))
        server.store.apply("endpointslices", endpointslice(f"s{i}-x", f"s{i}", ["10.0.0.1"]))


def in_cluster(token):
    """A service account folder; the CA is not needed for http."""
    folder = tempfile.mkdtemp(dir=SCRATCH.name)
    with open(os.path.join(folder, "token"), "w") as f:
        f.write(token + "\n")
    with open(os.path.join(folder, "ca.crt"), "w") as f:
        f.write("")
    return folder


def start(server, **kwargs):
    return Driver(servers=server.url, env={"SA_DIR": in_cluster("tok")}, **kwargs)


def test_create_scale_delete():
    with FakeApiServer() as server, start(server) as d:
        d.until_synced("services", "slices", "nodes", "namespaces", "pods", "policies")
        took = []
        for i in range(20):
            at = time.monotonic()
            server.store.apply("services", service("w", 1000 + i))
            took.append(d.until_service("t/w", (str(1000 + i), 1 if i else 0)) - at)
            if i == 0:
                server.store.apply("endpointslices", endpointslice("w-1", "w", ["10.0.0.1"]))
                d.until_service("t/w", ("1000", 1))
        server.store.apply("endpointslices", endpointslice("w-1", "w", ["10.0.0.1", "10.0.0.2"]))
        d.until_service("t/w", ("1019", 2))
        server.store.delete("services", "t", "w")
        d.until(lambda: "t/w" not in d.services, "the deletion")
        if sorted(took)[len(took) // 2] > 0.05:
            raise AssertionError(f"{sorted(took)} s from the change to the model")
        server.store.apply("pods", {"metadata": {"name": "mine", "namespace": "t"},
                                    "spec": {"nodeName": "n1"}})
        server.store.apply("pods", {"metadata": {"name": "other", "namespace": "t"},
                                    "spec": {"nodeName": "n2"}})
        d.until(lambda: "pods 1" in d.lines, "this node's pod")


def test_all_pods_when_policies_want_them():
    with FakeApiServer() as server, start(server) as d:
        for name, node in (("mine", "n1"), ("other", "n2")):
            server.store.apply("pods", {"metadata": {"name": name, "namespace": "t"},
                                        "spec": {"nodeName": node}})
        d.until(lambda: "pods 1" in d.lines, "this node's pod")
        d.proc.send_signal(signal.SIGUSR1)
        d.until(lambda: "pods 2" in d.lines, "everybody's pods")
        server.store.apply("pods", {"metadata": {"name": "third", "namespace": "t"},
                                    "spec": {"nodeName": "n3"}})
        d.until(lambda: "pods 3" in d.lines, "one that comes later")
        server.store.delete("pods", "t", "other")
        d.until(lambda: d.lines.count("pods 2") == 2, "and one that goes")


def test_a_kind_that_is_defined_later_and_goes():
    """ClusterNetworkPolicy: nobody says a word of its absence, and nothing waits for it."""
    with FakeApiServer() as server, start(server) as d:
        d.until_synced("cluster-policies")
        server.store.apply("clusternetworkpolicies", {
            "metadata": {"name": "p"}, "spec": {"tier": "Admin", "priority": 1,
                                                "subject": {"namespaces": {}}}})
        server.undefined.clear()
        d.until(lambda: "cluster-policies 1" in d.lines, "the policy")
        server.undefined.add("clusternetworkpolicies")
        server.end_watches()
        d.until(lambda: "cluster-policies 0" in d.lines, "none any more")
        assert not any("clusternetworkpolicies" in entry for entry in d.logs), d.logs


def test_label_takes_service_away():
    with FakeApiServer() as server, start(server) as d:
        fill(server)
        d.until_service("t/s1", ("80", 1))
        other = service("s1")
        other["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "x"}
        server.store.apply("services", other)
        d.until(lambda: "t/s1" not in d.services, "the Service of another proxy gone")
        server.store.apply("services", service("s1"))
        d.until_service("t/s1", ("80", 1))


def test_pages():
    with FakeApiServer() as server:
        fill(server, 25)
        with start(server, limits=(0, 0, 4)) as d:
            d.until(lambda: len(d.services) == 25, "all pages")
            d.until_synced()
            assert server.count("services", "continue=") == 6


def test_expired_continue_restarts_list():
    with FakeApiServer() as server:
        fill(server, 10)
        server.fault("/services?limit=4&continue",
                     recorded(os.path.join(FIXTURES, "410-list-continue-expired.txt")))
        with start(server, limits=(0, 0, 4)) as d:
            d.until_synced()
            d.until(lambda: len(d.services) == 10, "the whole list")


def test_410_relists_and_deletes_only_then():
    with FakeApiServer() as server:
        fill(server)
        server.fault("/api/v1/services?watch",
                     recorded(os.path.join(FIXTURES, "410-watch-rv1.txt")))
        with start(server) as d:
            d.until_synced()
            wait_for(lambda: server.count("/api/v1/services?limit") == 2, "a relist")
            d.until_service("t/s2", ("80", 1))
    hold = threading.Event()
    with FakeApiServer() as server:
        fill(server)
        server.fault("/api/v1/services?watch", status(410, "Expired", "too old"))
        with start(server) as d:
            held = server.fault("/api/v1/services?limit=500&", lambda h: (
                hold.wait(), apiserver.Handler.do_GET(h)), times=0)
            d.until_synced()
            # The watch after the next break is too old; the relist it causes is held back.
            held.times = 1
            server.store.vanish("services", "t", "s1")
            server.store.compact()
            server.end_watches()
            wait_for(lambda: held.hits == 1, "a relist after the break")
            server.store.apply("endpointslices", endpointslice("s0-x", "s0", ["10.0.0.8"] * 2))
            d.until_service("t/s0", ("80", 2))
            assert "t/s1" in d.services, "deleted before the new list was complete"
            hold.set()
            d.until(lambda: "t/s1" not in d.services, "what no event told of gone")
            assert "t/s0" in d.services and "t/s2" in d.services


def test_410_after_an_outage_does_not_wait():
    told = []

    def too_old(handler):
        told.append(time.monotonic())
        status(410, "Expired", "too old")(handler)
    with FakeApiServer() as server:
        fill(server)
        server.fault("/api/v1/services?watch", raw_socket(b""), times=4)
        server.fault("/api/v1/services?watch", too_old)
        with start(server, limits=(0, 0, 0, 200, 4000)) as d:
            d.until_synced()
            wait_for(lambda: server.count("/api/v1/services?limit") == 2, "a list anew")
            took = time.monotonic() - told[0]
            assert took < 0.5, f"back-off before the list: {took:.1f} s"


def test_410_for_ever_is_no_tight_loop():
    with FakeApiServer() as server:
        fill(server)
        server.fault("/api/v1/services?watch", status(410, "Expired", "too old"), times=1000)
        with start(server, limits=(0, 0, 0, 200, 4000)) as d:
            d.until_synced()
            time.sleep(2)                         # what is counted is what it does meanwhile
            lists = server.count("/api/v1/services?limit")
            assert 3 <= lists <= 8, f"{lists} lists in 2 s"


def test_errors_then_recovery():
    cases = [recorded(os.path.join(FIXTURES, "504-list-rv-future.txt")), status(500, "Sick", "x"),
             status(429, "TooManyRequests", "later", [("Retry-After", "1")]),
             raw_socket(b"garbage\0\xff\n\n"), raw_socket(b""), raw_body(b"\xff\xfe{}{]"),
             raw_body(b'{"kind":"ServiceList","items":[{"metadata":'), raw_body(b"[]"),
             raw_body(b'{"items":[{]}],"metadata":{"resourceVersion":"1"}}'),
             raw_body(b'{"items":{},"metadata":[]}'), raw_body(b"[" * 100000),
             raw_socket(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"items\":[")]
    with FakeApiServer() as server:
        fill(server)
        for run in cases:
            server.fault("/api/v1/services?limit", run)
        with start(server) as d:
            d.until_synced("slices", "nodes")
            d.until_synced()
            assert len(d.services) == 3, d.services
            d.until_log("429 TooManyRequests: later")
            d.until_log("services: fine again")


def test_watch_breaks_and_goes_on():
    event = b'{"type":"ADDED","object":{"metadata":{"name":"%s","namespace":"t",' \
            b'"resourceVersion":"900000"},"spec":{"ports":[{"port":7}]}}}\n'
    cases = [stream(event % b"cut", cut=30), stream(event % b"b1", end="cut"),
             stream(event % b"b2", piece=7), stream(b"not json\n" + event % b"never"),
             stream(b'{"type":"ADDED"}\n'), stream(b"\0" * 100 + b"\n"),
             stream(b'{"type":"BOOKMARK","object":{"metadata":null}}\n' + event % b"b3"),
             stream(b'{"type":"ADDED","object":{"metadata":{"name":"bad","namespace":"t"},'
                    b'"spec":{"ports":7}}}\n' + event % b"b4"), status(503, "Down", "down")]
    with FakeApiServer() as server:
        fill(server)
        # Only now and then is there something real: every case is a reconnect of its own.
        for run in cases:
            server.fault("/api/v1/services?watch", run)
        with start(server) as d:
            wait_for(lambda: all(f.hits for f in server.faults), "every case")
            d.until_log("Service t/bad: spec.ports: must be a list")
            d.until_log("503 Down")
            server.store.rv = 1000000
            server.store.apply("services", service("after", 9))
            d.until_service("t/after", ("9", 0))
            assert "t/never" not in d.services and "t/cut" not in d.services
            assert server.count("/api/v1/services?watch", "resourceVersion=900000") >= 1


def test_refusals_name_their_remedy():
    with FakeApiServer() as server:
        fill(server)
        server.fault("/api/v1/services?limit",
                     recorded(os.path.join(FIXTURES, "403-forbidden-user.txt")))
        server.fault("/api/v1/services?limit",
                     recorded(os.path.join(FIXTURES, "401-bad-token.txt")))
        server.fault("/api/v1/pods", status(403, "Forbidden", "no pods"), times=10 ** 6)
        server.fault("/api/v1/nodes", status(404, "NotFound", "no nodes"), times=10 ** 6)
        server.fault("/apis/networking.k8s.io/v1/networkpolicies",
                     status(403, "Forbidden", "no policies"), times=10 ** 6)
        with start(server) as d:
            d.until_synced()
            d.until_log('cannot list services: HTTP 403 Forbidden: services is forbidden: User '
                        '"observer"')
            d.until_log("ClusterRole")
            d.until_log("HTTP 401 Unauthorized: Unauthorized; the credentials were refused")
            assert "pods" not in d.synced
            # who may not see policies has none; it is said once
            d.until_synced("policies")
            wait_for(lambda: server.count("/networkpolicies", "limit") >= 3, "it asks again")
            st = d.stop()
            assert sum("networkpolicies: HTTP 403" in entry for entry in d.logs) == 1, d.logs
            assert "HTTP 403" in st["pods"] and st["services"].endswith(" "), st


def test_silent_watch_is_reopened():
    with FakeApiServer() as server:
        fill(server)
        server.fault("/api/v1/services?watch", stream(b"", end="hang"), times=3)
        with start(server, limits=(300,)) as d:
            d.until_log("watch services: no byte for 300 ms")
            wait_for(lambda: server.faults[0].hits == 3, "three hangs")
            server.store.apply("services", service("new", 5))
            d.until_service("t/new", ("5", 0))
            assert server.count("/api/v1/services?limit") >= 2, "silence must end in a list"


def test_huge_line_is_refused():
    big = b'{"type":"ADDED","object":{"metadata":{"name":"x","namespace":"t","labels":{"a":"' \
          + b"x" * 300000 + b'"}}}}\n'
    with FakeApiServer() as server:
        fill(server)
        server.fault("/api/v1/services?watch", stream(big))
        with start(server, limits=(0, 100000)) as d:
            d.until_log("watch services: one object is larger than allowed")
            server.store.apply("services", service("new", 5))
            d.until_service("t/new", ("5", 0))


def test_next_server_when_one_is_down():
    with FakeApiServer() as dead:
        dead_url = dead.url
    with FakeApiServer() as server:
        fill(server)
        with Driver(servers=f"{dead_url},{server.url}",
                    env={"SA_DIR": in_cluster("tok")}) as d:
            d.until_synced()
            d.until_log(f"going on with API server {server.url}")


def test_token_is_sent():
    with FakeApiServer(token="tok") as server:
        fill(server)
        with start(server) as d:
            d.until_synced()


def openssl(*args, cwd):
    subprocess.run(["openssl", *args], cwd=cwd, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def make_certs(folder):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test-ca", "-days", "2", cwd=folder)
    for name, san in (("server", "DNS:kubernetes"), ("client", "DNS:client")):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}", cwd=folder)
        with open(os.path.join(folder, "ext"), "w") as f:
            f.write(f"subjectAltName={san}\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", f"{name}.crt", "-days", "2", "-extfile", "ext",
                cwd=folder)


def kubeconfig(folder, url, inline, sni="kubernetes", ca="ca.crt"):
    def data(name):
        with open(os.path.join(folder, name), "rb") as f:
            return base64.b64encode(f.read()).decode()
    cluster = {"server": url, "tls-server-name": sni}
    user = {}
    for where, key, name in ((cluster, "certificate-authority", ca),
                             (user, "client-certificate", "client.crt"),
                             (user, "client-key", "client.key")):
        where[key + ("-data" if inline else "")] = data(name) if inline else name
    path = os.path.join(folder, f"kubeconfig-{inline}")
    with open(path, "w") as f:
        json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "c",
                   "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                   "clusters": [{"name": "k", "cluster": cluster}],
                   "users": [{"name": "u", "user": user}]}, f)
    return path


def test_tls_with_client_certificate():
    with tempfile.TemporaryDirectory(prefix="waggle-tls-") as folder:
        make_certs(folder)
        tls = tuple(os.path.join(folder, f) for f in ("server.crt", "server.key", "ca.crt"))
        for inline in (False, True):
            with FakeApiServer(tls=tls) as server:
                fill(server)
                with Driver(kubeconfig(folder, server.url, inline)) as d:
                    d.until_synced()
                    assert len(d.services) == 3
        with FakeApiServer(tls=tls) as server:
            fill(server)
            with Driver(kubeconfig(folder, server.url, True, sni="other")) as d:
                d.until_log("other")                  # the name is not in the certificate
                assert not d.synced
            with Driver(kubeconfig(folder, server.url, True, ca="client.crt")) as d:
                d.until_log("certificate")
                assert not d.synced


def test_recorded_cluster():
    """The recorded lists, and the recorded watch streams played over them."""
    with FakeApiServer() as server:
        for kind in ("services", "endpointslices", "nodes", "pods", "namespaces"):
            with open(os.path.join(FIXTURES, f"list-full-{kind}.json"), "rb") as f:
                server.fault(f"/{kind}?limit", raw_body(f.read()))
        for kind in ("services", "endpointslices"):
            with open(os.path.join(FIXTURES, f"watch-{kind}.jsonl"), "rb") as f:
                server.fault(f"/{kind}?watch", stream(f.read(), piece=1000))
        # What the next watches bring: then everything recorded has been seen.
        server.store.rv = 1000000
        server.store.apply("services", service("marker"))
        server.store.apply("endpointslices", endpointslice("m", "marker", ["10.0.0.1"]))
        with start(server) as d:
            d.until_synced("services", "slices", "nodes", "pods", "namespaces")
            d.until_service("t/marker", ("80", 1))
            assert set(d.services) == {"default/kubernetes", "t/marker"}, d.services
            st = d.stop()
            assert "events=29 bad=0" in st["services"] and "events=164 bad=0" in st["slices"], st


def test_ten_thousand():
    n = int(os.environ.get("WAGGLE_KUBE_SERVICES", "10000"))
    with FakeApiServer() as server:
        for i in range(n):
            server.store.apply("services", service(f"s{i}", 80))
            server.store.apply("endpointslices", endpointslice(
                f"s{i}-abcde", f"s{i}", [f"10.{i >> 12}.{i >> 4 & 255}.{(i & 15) * 8 + k}"
                                         for k in range(4)]))
        at = time.monotonic()
        with start(server) as d:
            d.until_synced()
            took = time.monotonic() - at
            server.store.apply("services", service("s5", 81))
            at = time.monotonic()
            reached = d.until_service("t/s5", ("81", 4)) - at
            d.stop()
            sanitized = any("asan" in part for part in BUILD.split("/"))
            print(f"# {n} Services x 4: in sync after {took:.2f} s, one change in "
                  f"{reached * 1000:.1f} ms, RSS {max(d.rss.values()) / 1024:.1f} MB at most, "
                  f"{list(d.rss.values())[-1] / 1024:.1f} MB at rest", flush=True)
            if not sanitized and list(d.rss.values())[-1] > 40 * 1024:
                raise AssertionError("more than 40 MB")


def run_tests(tests):
    """Every test of a module's globals, or those named on the command line."""
    failed = 0
    wanted = sys.argv[1:]
    for name, test in list(tests.items()):
        if not name.startswith("test_") or (wanted and name not in wanted):
            continue
        try:
            test()
            print(f"ok k8s: {name[5:].replace('_', ' ')}", flush=True)
        except (AssertionError, OSError, subprocess.SubprocessError) as e:
            failed += 1
            print(f"FAIL k8s: {name[5:].replace('_', ' ')}: {e!r}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_tests(globals())
