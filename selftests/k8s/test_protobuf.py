#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which language the agent speaks with an API server, and what happens when that goes wrong."""
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import protobuf                                                         # noqa: E402
from fake_apiserver import FakeApiServer, raw_body, stream              # noqa: E402
from test_watch import (FIXTURES, endpointslice, fill, run_tests, service, start,  # noqa: E402
                        wait_for)

KINDS = ("services", "slices", "nodes", "namespaces", "pods", "policies")
STREAM = protobuf.TYPE + ";stream=watch"
BOTH = f"{protobuf.TYPE}, application/json"


def fill_all(server):
    fill(server)
    server.store.apply("nodes", {
        "metadata": {"name": "n1", "creationTimestamp": "2026-11-21T00:22:16Z"},
        "spec": {"podCIDRs": ["10.1.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}})
    server.store.apply("pods", {
        "metadata": {"name": "p", "namespace": "t"}, "spec": {"nodeName": "n1"},
        "status": {"podIPs": [{"ip": "10.1.0.9"}]}})
    server.store.apply("namespaces", {"metadata": {"name": "t", "labels": {"a": "b"}}})
    server.store.apply("networkpolicies", {"metadata": {"name": "p", "namespace": "t"}})


def live(server, d):
    """A change that only a watch can bring."""
    server.store.apply("endpointslices", endpointslice("s0-x", "s0", ["10.0.0.1", "10.0.0.2"]))
    d.until_service("t/s0", ("80", 2))
    server.store.delete("services", "t", "s1")
    d.until(lambda: "t/s1" not in d.services, "a deleted Service")


def expect_language(d, kinds, word):
    st = d.stop()
    for kind in kinds:
        assert word in st[kind].split() and " bad=0 " in st[kind], st[kind]


def test_protobuf_of_every_kind():
    with FakeApiServer() as server:
        fill_all(server)
        with start(server) as d:
            d.until_synced(*KINDS)
            d.until(lambda: "pods 1" in d.lines, "the Pod")
            live(server, d)
            asked = [(path, accept) for path, accept in server.requests
                     if "clusternetworkpolicies" not in path]  # a CRD's, and it is not there
            assert asked and all(accept == BOTH for _, accept in asked)
            expect_language(d, KINDS, "protobuf=1")


def test_json_where_the_server_knows_nothing_else():
    with FakeApiServer(speaks_protobuf=False) as server:
        fill_all(server)
        with start(server) as d:
            d.until_synced(*KINDS)
            live(server, d)
            expect_language(d, KINDS, "protobuf=0")


def test_json_after_a_refusal():
    for code in (406, 415):
        with FakeApiServer(speaks_protobuf=False, protobuf_code=code) as server:
            fill(server)
            with start(server) as d:
                d.until_synced(*KINDS)
                live(server, d)
                d.until_log(f"HTTP {code} NotAcceptable: only JSON here: going on with JSON")
                assert server.count("/services") == 3, "one refusal, one list, one watch"
                expect_language(d, ("services", "slices"), "protobuf=0")


def test_pages():
    with FakeApiServer() as server:
        fill(server, 25)
        with start(server, limits=(0, 0, 4)) as d:
            d.until_synced()
            d.until(lambda: len(d.services) == 25, "all pages")
            assert server.count("services", "continue=") == 6
            expect_language(d, ("services",), "protobuf=1")


def test_what_cannot_be_decoded_is_asked_for_in_json():
    listing = protobuf.listing("v1", "ServiceList", {"resourceVersion": "7"}, [b"\x0a\x7f"])
    for body in (b"k8s", b"", b"k8s\0" + b"\xff" * 20, listing, b'{"kind":"ServiceList"}'):
        with FakeApiServer() as server:
            fill(server)
            server.fault("/services?limit", raw_body(body, kind=protobuf.TYPE))
            with start(server) as d:
                d.until_synced()
                assert len(d.services) == 3, d.services
                d.until_log("going on with JSON" if body else "the answer is no list")
                live(server, d)
                expect_language(d, ("slices",), "protobuf=1")


def frame(kind, obj, object_kind="Service"):
    return protobuf.event(kind, "v1", object_kind, protobuf.message(object_kind, obj))


def meta(name, rv="900000"):
    return {"name": name, "namespace": "t", "resourceVersion": rv}


def test_watch_breaks_and_goes_on():
    added = {name: frame("ADDED", {"metadata": meta(name), "spec": {"ports": [{"port": 7}]}})
             for name in ("cut", "b1", "b2", "b3", "b4")}
    bad = frame("ADDED", {"metadata": meta("bad"), "spec": {"ports": [{"port": 70000}]}})
    mark = frame("BOOKMARK", {"metadata": {"resourceVersion": "900001"}})
    cases = [stream(added["cut"], cut=9, kind=STREAM), stream(added["b1"], end="cut", kind=STREAM),
             stream(added["b2"], piece=3, kind=STREAM),
             stream(mark + added["b3"], piece=5, kind=STREAM),
             stream(bad + added["b4"], kind=STREAM)]
    with FakeApiServer() as server:
        fill(server)
        for run in cases:
            server.fault("/api/v1/services?watch", run)
        with start(server) as d:
            wait_for(lambda: all(f.hits for f in server.faults), "every case")
            d.until_log("Service t/bad: spec.ports[0].port: 70000 is not in 1..65535; what was "
                        "known of it stays in force")
            server.store.rv = 1000000
            server.store.apply("services", service("after", 9))
            d.until_service("t/after", ("9", 0))
            for name in ("b1", "b2", "b3", "b4"):
                assert d.services.get(f"t/{name}") == ("7", 0), (name, d.services)
            assert "t/cut" not in d.services
            assert "protobuf=1" in d.stop()["services"]


def test_recorded_error_event_relists():
    with open(os.path.join(FIXTURES, "410-watch-rv1.pb"), "rb") as f:
        gone = f.read()
    with FakeApiServer() as server:
        fill(server)
        server.fault("/api/v1/services?watch", stream(gone, kind=STREAM))
        with start(server) as d:
            d.until_synced()
            d.until_log("too old resource version: 1 (283): listing anew")
            wait_for(lambda: server.count("/api/v1/services?limit") == 2, "a relist")
            live(server, d)


def test_huge_frame_is_refused():
    with FakeApiServer() as server:
        fill(server)
        server.fault("/api/v1/services?watch",
                     stream(struct.pack(">I", 200000) + b"x" * 1000, kind=STREAM))
        with start(server, limits=(0, 100000)) as d:
            d.until_log("watch services: one object is larger than allowed")
            live(server, d)


def test_recorded_cluster():
    """The recorded lists, and the recorded watch streams played over them."""
    with FakeApiServer() as server:
        for kind in ("services", "endpointslices", "nodes", "pods", "namespaces"):
            with open(os.path.join(FIXTURES, f"list-full-{kind}.pb"), "rb") as f:
                server.fault(f"/{kind}?limit", raw_body(f.read(), kind=protobuf.TYPE))
        for kind in ("services", "endpointslices"):
            with open(os.path.join(FIXTURES, f"watch-{kind}.pb"), "rb") as f:
                server.fault(f"/{kind}?watch", stream(f.read(), piece=1000, kind=STREAM))
        # What the next watches bring: then everything recorded has been seen.
        server.store.rv = 1000000
        server.store.apply("services", service("marker"))
        server.store.apply("endpointslices", endpointslice("m", "marker", ["10.0.0.1"]))
        with start(server) as d:
            d.until_synced("services", "slices", "nodes", "pods", "namespaces")
            d.until_service("t/marker", ("80", 1))
            assert set(d.services) == {"default/kubernetes", "t/marker"}, d.services
            expect_language(d, ("services", "slices"), "protobuf=1")


if __name__ == "__main__":
    run_tests(globals())
