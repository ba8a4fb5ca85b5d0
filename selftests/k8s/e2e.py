#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The agent on a node of network namespaces, with its Services from an API server: the one in
memory always, kube-apiserver and etcd where they are (docs/testing.md).

e2e.py [--plane memory,real] [--test PART] [--build DIR] [--services N] [--socket-lb M]
"""
import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import e2e_ipam                                                         # noqa: E402
import e2e_policy                                                       # noqa: E402
import real_apiserver                                                   # noqa: E402
from cluster import (API_VIP, SLICE_API, SERVICE_API, Client, KubeLab, MemoryPlane,  # noqa: E402
                     RealPlane, Watcher, rss_kib, service, slice_of)
from netlab import LabError, fields, host_port, vip, wait_for           # noqa: E402

LIVE_MS = 50        # from the watch event to the map: the middle one and nine of ten
OUTAGE_S = 60       # an API server that has just started is slow; back-off grows meanwhile
RSS_MAX_MIB = 40
ENDPOINTS = 4
MIB = 1024


def expect(condition, *what):
    if not condition:
        raise LabError(" ".join(str(w) for w in what))


def in_ms(ns):
    return ns / 1e6


class Maps:
    """svc_watch in the background: when does the map say so?"""

    def __init__(self, lab):
        self.proc = subprocess.Popen([lab.binary("svc_watch"), lab.pin_dir, "until"], text=True,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1)
        lab.procs.append(self.proc)

    def ask(self, addr, count, seconds=10):
        self.proc.stdin.write(f"{addr} 80 tcp {count} {int(seconds * 1000)}\n")

    def answer(self):
        """Nanoseconds of the monotonic clock."""
        first, count = self.proc.stdout.readline().split()
        expect(first != "late", f"not in the map in time; it says {count} backends")
        return int(first)

    def until(self, addr, count, seconds=10):
        self.ask(addr, count, seconds)
        return self.answer()


class Suite:
    """One control plane, one node; the tests run in the order they are written."""

    def __init__(self, lab, count, socket_lb):
        self.lab, self.count = lab, count
        self.mode = f"--socket-lb={socket_lb}"
        self.next_vip = 0x100

    def set_up(self):
        lab = self.lab
        lab.start_plane()
        # As kubelet would have it: the address that only the agent itself can make answer.
        config = lab.plane.kubeconfig("vip.kubeconfig", f"https://{API_VIP}:443", lab.plane.user)
        lab.source = ["--kubeconfig", config, "--api-server", lab.plane.url]
        self.connect()
        self.maps = Maps(lab)

    def connect(self):
        plane = self.lab.plane
        self.client = Client(plane)
        self.watchers = {"Service": Watcher(plane, SERVICE_API),
                         "EndpointSlice": Watcher(plane, SLICE_API)}

    def tear_down(self):
        for watcher in self.watchers.values():
            watcher.close()

    def tests(self):
        yield self.cold_start
        yield self.pods_reach_the_api_server
        yield self.in_cluster
        yield self.services_of_both_families
        yield self.changes_are_live
        yield self.refused_policies
        yield self.taken_health_check_port
        yield self.claims_of_the_agent
        yield self.twenty_agents_claim
        yield self.many_services
        yield self.changes_are_live_among_many
        yield self.memory_of_many
        if self.lab.plane.kind == "real":
            yield self.api_server_restart
            yield self.changes_during_an_outage
            yield self.agent_restart_without_api_server
        yield self.cold_start_with_many

    def refused_policies(self):
        return e2e_policy.refused_policies(self)

    def taken_health_check_port(self):
        return e2e_policy.taken_health_check_port(self)

    def claims_of_the_agent(self):
        return e2e_ipam.claims_of_the_agent(self)

    def twenty_agents_claim(self):
        return e2e_ipam.twenty_agents_claim(self)

    # ---- starting ----

    def cold_start(self):
        """Empty bpffs, and nobody serves the API's own Service address."""
        lab = self.lab
        expect(not os.path.exists(lab.pin_dir), "the bpffs is not empty")
        start = time.monotonic()
        lab.start_agent(self.mode)
        took = time.monotonic() - start
        self.maps.proc.stdin.write(f"{API_VIP} 443 tcp 1 5000\n")
        self.maps.answer()
        metrics = lab.http("/metrics")[1]
        for kind in ("services", "endpointslices"):
            expect(f'waggle_watch_protobuf{{kind="{kind}"}} 1' in metrics, kind, "not by protobuf")
        for pod in ("web-1", "web-2"):
            lab.add_web(pod, "8080")
        lab.add_pod("client")
        return f"ready after {took * 1000:.0f} ms"

    def get_version(self, net):
        """The API server's answer through its ClusterIP, its certificate checked."""
        out = self.lab.sh(net, ["curl", "-sS", "-m", "10", "--cacert",
                                self.lab.plane.file("ca.crt"), "-H",
                                "Authorization: Bearer 0123456789abcdef-node",
                                f"https://{API_VIP}{SERVICE_API}/kubernetes"])
        expect(json.loads(out)["spec"]["clusterIP"] == API_VIP, "another answer:", out[:300])

    def pods_reach_the_api_server(self):
        for net in ("client", "node"):
            self.get_version(net)
        if self.lab.plane.kind != "real" or not shutil.which("kubectl"):
            return "curl"
        config = self.lab.plane.kubeconfig("kubectl.kubeconfig", f"https://{API_VIP}:443",
                                           self.lab.plane.user)
        out = self.lab.sh("client", ["kubectl", "--kubeconfig", config, "get", "services", "-A"],
                          env={**os.environ, "HOME": self.lab.tmp, "KUBECTL_DISABLE_CACHE": "1"})
        expect(API_VIP in out, "kubectl get services:", out)
        return "curl and kubectl"

    def in_cluster(self):
        """From the service account alone, the API's address overridden as on a fresh cluster."""
        lab = self.lab
        lab.kill_agent()
        source = lab.source
        lab.source, lab.in_cluster = ["--api-server", lab.plane.url], True
        try:
            lab.start_agent(self.mode)
            self.get_version("client")
        finally:
            lab.source, lab.in_cluster = source, False
            lab.restart_agent()

    # ---- traffic ----

    def new_vips(self):
        self.next_vip += 1
        return vip(self.next_vip)

    def make(self, name, pods):
        vips = self.new_vips()
        self.client.put(service(name, vips))
        for family in (0, 1):
            self.client.put(slice_of(name, [self.lab.pods[p][family] for p in pods]))
        for addr in vips:
            self.maps.until(addr, len(pods))
        return vips

    def services_of_both_families(self):
        self.vips = self.make("web", ["web-1", "web-2"])
        for net in ("client", "node", "out"):
            for addr in self.vips:
                seen = {self.lab.connect(net, addr, 80).get("label") for _ in range(16)}
                expect(seen == {"web-1", "web-2"}, f"{net} to {addr}: answered by", seen)

    # ---- how soon ----

    def step(self, frontend, count, kind, obj, verb):
        """One change: nanoseconds from its watch event and from its call to the map."""
        self.maps.ask(frontend, count)
        called = time.monotonic_ns()
        if verb == "DELETED":
            self.client.delete(obj)
        else:
            self.client.put(obj, verb == "ADDED")
        answered = time.monotonic_ns()
        seen = self.watchers[kind].take(verb, obj["metadata"]["name"])
        live = self.maps.answer()
        # Either of the two may have been late to us; the earlier one is the stricter measure.
        return max(0, live - min(seen, answered)), live - called

    def one_life(self, name):
        """A Service made, given endpoints, scaled up and down, emptied and deleted."""
        addr, _ = self.new_vips()
        svc = service(name, [addr])
        slices = [slice_of(name, [f"10.250.0.{i + 1}" for i in range(n)]) for n in (1, 4, 2)]
        plan = [(0, "Service", svc, "ADDED"), (1, "EndpointSlice", slices[0], "ADDED"),
                (4, "EndpointSlice", slices[1], "MODIFIED"),
                (2, "EndpointSlice", slices[2], "MODIFIED"),
                (0, "EndpointSlice", slices[0], "DELETED"), (-1, "Service", svc, "DELETED")]
        return [self.step(addr, count, kind, obj, verb) for count, kind, obj, verb in plan]

    def lives(self, prefix):
        rounds = 8 if os.environ.get("WAGGLE_QUICK") else 25
        steps = [s for i in range(rounds) for s in self.one_life(f"{prefix}-{i}")]
        events = sorted(in_ms(s[0]) for s in steps)
        calls = [in_ms(s[1]) for s in steps]
        p90 = events[len(events) * 9 // 10]
        text = (f"{len(steps)} changes, watch event to map: median {statistics.median(events):.1f} "
                f"ms, p90 {p90:.1f}, worst {events[-1]:.1f}; call to map: median "
                f"{statistics.median(calls):.1f}, worst {max(calls):.1f}")
        expect(p90 <= LIVE_MS, f"more than {LIVE_MS} ms:", text)
        return text

    def changes_are_live(self):
        return self.lives("few")

    def changes_are_live_among_many(self):
        return self.lives("many")

    # ---- many ----

    def bulk(self):
        for i in range(self.count):
            name = f"bulk-{i}"
            yield service(name, [vip(0x1000 + i)[0]])
            yield slice_of(name, [f"10.{200 + (i >> 14)}.{i >> 6 & 255}.{(i & 63) * 4 + k}"
                                  for k in range(ENDPOINTS)])

    def many_services(self):
        objects = list(self.bulk())
        start = time.monotonic()
        self.lab.plane.seed(objects)
        stored = time.monotonic()
        live = max(self.maps.until(vip(0x1000 + i)[0], ENDPOINTS, OUTAGE_S)
                   for i in range(self.count)) / 1e9
        self.reconnect()                          # our own watches may have been too slow for it
        return (f"{self.count} of {ENDPOINTS} endpoints stored in {stored - start:.1f} s, all "
                f"live {live - stored:.1f} s later")

    def rss(self):
        """At rest: what a list needed for a moment goes back when it is quiet."""
        def small():
            return rss_kib(self.lab.agent.pid)[0] <= RSS_MAX_MIB * MIB
        peak = rss_kib(self.lab.agent.pid)[0]
        with contextlib.suppress(LabError):
            wait_for("rest", small, 10)
        total, mapped = rss_kib(self.lab.agent.pid)
        text = (f"{total / MIB:.1f} MiB, {mapped / MIB:.1f} of them mapped BPF maps; "
                f"{peak / MIB:.1f} MiB just before")
        expect(total <= RSS_MAX_MIB * MIB, f"more than {RSS_MAX_MIB} MiB:", text)
        return text

    def memory_of_many(self):
        return self.rss()

    def cold_start_with_many(self):
        """Nothing pinned, and everything to be listed, page by page."""
        lab = self.lab
        lab.kill_agent()
        lab.sh("node", lab.agent_argv("--cleanup"))
        start = time.monotonic()
        lab.start_agent(self.mode, seconds=60)
        ready = time.monotonic()
        self.maps.until(vip(0x1000 + self.count - 1)[0], ENDPOINTS)
        # The pods went with the pins, as they do with a reboot: others take their place.
        lab.add_web("web-3", "8080")
        lab.add_pod("late")
        for family, addr in enumerate(self.vips):
            self.client.put(slice_of("web", [lab.pods["web-3"][family]]), create=False)
            self.maps.until(addr, 1)
        for net in ("late", "node"):
            self.expect_web(net)
        return f"ready after {ready - start:.2f} s; {self.rss()}"

    def expect_web(self, net):
        for addr in self.vips:
            got = self.lab.connect(net, addr, 80)
            expect(got["is"] == "ok", f"{net} to {addr}:", got)

    # ---- outages ----

    def guard(self):
        """Watches the maps: a backend that comes or goes for a moment is seen."""
        frontends = [f"{self.vips[0]} 80 tcp 2", f"{self.vips[1]} 80 tcp 2",
                     f"{API_VIP} 443 tcp 1"]
        frontends += [f"{vip(0x1000 + i)[0]} 80 tcp {ENDPOINTS}"
                      for i in range(0, self.count, self.count // 40 + 1)]
        with open(self.lab.path("guarded"), "w", encoding="utf-8") as f:
            f.write("\n".join(frontends) + "\n")
        argv = [self.lab.binary("svc_watch"), self.lab.pin_dir, "guard"]
        proc = self.lab.start(None, ["sh", "-c", 'exec "$@" < "$0"', self.lab.path("guarded"),
                                     *argv])
        wait_for("svc_watch", lambda: "ready" in self.lab.log(proc.log_name))
        return proc

    def unflapped(self, guard):
        last = self.lab.stop(guard)
        expect(last.startswith("changes 0 "), self.lab.log(guard.log_name)[-500:])

    def load(self):
        return self.lab.background("client", "hold", "--dst",
                                   ",".join(host_port(a, 80) for a in self.vips), "--conns", 20,
                                   "--ms", 120000)

    def unbroken(self, load):
        tally = fields(self.lab.stop(load))
        expect(tally.get("ok") == "20" and tally["reset"] == tally["closed"] == "0",
               "connections did not survive:", tally)

    def reconnect(self):
        """The test's own connections, made anew."""
        self.tear_down()
        self.connect()

    def api_server_restart(self):
        lab = self.lab
        guard, load = self.guard(), self.load()
        lab.plane.kill()
        self.expect_web("client")
        time.sleep(1.5)                           # an outage, not a blink
        lab.plane.start_api()
        back = time.monotonic()
        self.reconnect()
        addr, _ = self.new_vips()
        svc = service("after-restart", [addr])
        self.client.put(svc)
        self.maps.until(addr, 0, OUTAGE_S)
        took = time.monotonic() - back
        self.client.delete(svc)
        self.maps.until(addr, -1, OUTAGE_S)
        self.unflapped(guard)
        self.unbroken(load)
        self.expect_web("client")
        return f"heard again {took:.1f} s after the API server answered"

    def changes_during_an_outage(self):
        """What changed meanwhile is learnt, also when etcd forgot how (410, a list anew)."""
        lab = self.lab
        addrs = [self.new_vips()[0] for _ in range(2)]
        svcs = [service(f"meanwhile-{i}", [a]) for i, a in enumerate(addrs)]
        self.client.put(svcs[0])
        self.maps.until(addrs[0], 0)
        guard = self.guard()
        lab.plane.kill()
        lab.plane.erase(svcs[0])
        lab.plane.seed([svcs[1]])
        lab.plane.compact()
        lab.plane.start_api()
        self.reconnect()
        self.maps.until(addrs[1], 0, OUTAGE_S)
        self.maps.until(addrs[0], -1, OUTAGE_S)
        self.client.delete(svcs[1])
        self.maps.until(addrs[1], -1, OUTAGE_S)
        self.unflapped(guard)

    def agent_restart_without_api_server(self):
        lab = self.lab
        guard, load = self.guard(), self.load()
        lab.plane.kill()
        lab.kill_agent()
        lab.start_agent(self.mode, wait=False)
        wait_for("a living agent", lambda: lab.http("/healthz")[0] == 200, 20)
        status, body = lab.http("/readyz")
        expect(status == 503, "ready without its API server:", body)
        self.expect_web("client")
        lab.plane.start_api()
        lab.wait_ready(OUTAGE_S)
        self.reconnect()
        self.unflapped(guard)
        self.unbroken(load)


def run_test(test):
    """(what it measured, why it failed)"""
    try:
        return test(), None
    except (LabError, OSError) as e:
        return None, str(e)
    except Exception as e:
        traceback.print_exc()
        return None, f"{type(e).__name__}: {e}"


def run_plane(plane, opts):
    with KubeLab(plane, opts.build) as lab:
        suite = Suite(lab, opts.services, opts.socket_lb)
        suite.set_up()
        for test in suite.tests():
            if test != suite.cold_start and opts.test not in test.__name__:
                continue
            start = time.monotonic()
            measured, why = run_test(test)
            name = f"k8s/{plane.kind}/{test.__name__}"
            if why:
                # What comes after would fail for the same reason.
                print(f"FAIL {name}: {' '.join(why.split())}", flush=True)
                lab.show_logs(30)
                return 1
            print(f"ok {name}" + (f" ({measured})" if measured else ""), flush=True)
            print(f"# {time.monotonic() - start:.1f} s", flush=True)
        suite.tear_down()
    return 0


def main():
    parser = argparse.ArgumentParser(prog="selftests/k8s/e2e.py", description=__doc__)
    parser.add_argument("--plane", default="memory,real")
    parser.add_argument("--test", default="", help="only tests with this in their name")
    parser.add_argument("--build", default=None)
    parser.add_argument("--services", type=int, default=10000)
    parser.add_argument("--socket-lb", default="full")
    opts = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = 0
    for plane in (MemoryPlane, RealPlane):
        if plane.kind not in opts.plane.split(","):
            continue
        try:
            if plane is RealPlane:
                why_not = real_apiserver.why_not()
                if why_not:
                    print(f"skipped: k8s/real: {why_not}", flush=True)
                    continue
                real_apiserver.build()
            failed += run_plane(plane, opts)
        except (LabError, OSError, subprocess.TimeoutExpired) as e:
            failed += 1
            print(f"FAIL k8s/{plane.kind}: {' '.join(str(e).split())}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
