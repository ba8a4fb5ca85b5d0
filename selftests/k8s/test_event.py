#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Events the agent makes: what they say, and that nothing makes a flood of them.

  test_event.py [TEST ...]
"""
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from fake_apiserver import FakeApiServer, raw_socket, status            # noqa: E402
from test_watch import run_tests, start, wait_for                       # noqa: E402

BURST = 32
DEFAULT, T = "POST /api/v1/namespaces/default/events", "POST /api/v1/namespaces/t/events"


def expect(true, *what):
    if not true:
        raise AssertionError(" ".join(str(w) for w in what))


def events(server):
    return [obj for obj, _ in list(server.store.objects["events"].values())]


def begin(server, d):
    """Three hundred Events at once: two hundred about one object."""
    d.until_synced("policies")
    d.proc.send_signal(signal.SIGUSR2)


def test_an_event_says_what_kubectl_shows():
    with FakeApiServer() as server, start(server) as d:
        begin(server, d)
        wait_for(lambda: len(events(server)) >= 3, "Events")
        loud, _, other = events(server)[:3]
        expect(loud["involvedObject"] == {"apiVersion": "networking.k8s.io/v1", "kind":
                                          "NetworkPolicy", "namespace": "t", "name": "loud",
                                          "uid": "uid-of-loud"}, loud)
        expect(loud["metadata"]["namespace"] == "t" and loud["type"] == "Warning", loud)
        expect(loud["metadata"]["name"].startswith("loud."), loud)
        expect(loud["reason"] == "Loud" and loud["message"] == "for the 1th time", loud)
        expect(loud["reportingComponent"] == loud["source"]["component"] == "waggle-agent", loud)
        expect(loud["reportingInstance"] == loud["source"]["host"] == "n1", loud)
        expect(other["involvedObject"] == {"apiVersion": "policy.networking.k8s.io/v1alpha2",
                                           "kind": "ClusterNetworkPolicy", "name": "other-1"},
               other)
        expect(other["metadata"]["namespace"] == "default", other)
        expect(other["message"] == "? is cut", other)


def test_no_flood():
    with FakeApiServer() as server, start(server) as d:
        begin(server, d)
        wait_for(lambda: len(events(server)) >= BURST, "the burst")
        d.until_log("too many of them wait already")
        loud = [e["message"] for e in events(server) if e["reason"] == "Loud"]
        expect(loud == ["for the 1th time", "for the 200th time"], loud)
        wait_for(lambda: len(events(server)) > BURST, "the next, when its time has come")
        posts = server.count("POST", "/events")
        expect(posts <= BURST + 2, f"{posts} requests")
        expect(sum("too many of them" in line for line in d.logs) == 1, d.logs)


def test_a_server_that_cannot_now_is_asked_again():
    with FakeApiServer() as server, start(server) as d:
        faults = [server.fault(T, fault) for fault in (
            status(500, "Sick", "x"), status(429, "TooManyRequests", "later"), raw_socket(b""))]
        begin(server, d)
        wait_for(lambda: len(events(server)) >= 3, "Events")
        expect(all(f.hits == 1 for f in faults), [f.hits for f in faults])
        messages = [e["message"] for e in events(server)][:2]
        expect(messages == ["for the 1th time", "for the 200th time"], messages)
        d.until_log("an Event could not be made: POST /api/v1/namespaces/t/events: HTTP 500")


def test_a_lost_answer_makes_no_second_event():
    with FakeApiServer() as server, start(server) as d:
        def create_and_hang_up(handler):
            server.store.create("events", handler.sent)
            handler.close_connection = True
        server.fault(T, create_and_hang_up)
        begin(server, d)
        wait_for(lambda: len(events(server)) >= 4, "Events")
        loud = [e["message"] for e in events(server) if e["reason"] == "Loud"]
        expect(loud == ["for the 1th time", "for the 200th time"], loud)


def test_what_is_refused_costs_no_other():
    with FakeApiServer() as server, start(server) as d:
        server.fault(T, status(403, "Forbidden", "no events here"), times=1000)
        begin(server, d)
        d.until_log("HTTP 403 Forbidden: no events here")
        wait_for(lambda: len(events(server)) >= 10, "the others")
        expect(server.count(T) == 2, f"{server.count(T)} requests")


if __name__ == "__main__":
    run_tests(globals())
