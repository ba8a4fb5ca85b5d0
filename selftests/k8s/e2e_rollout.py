#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Deployment of ten pods gets new ones under load: kube-apiserver, etcd and the controllers of
kube-controller-manager (deployments, replica sets, EndpointSlices) are the real ones; the kubelet
of the one node is played here, its pods are network namespaces wired by waggle-cni.

No connection may be lost that kube-proxy would keep: new ones reach a pod that accepts them, those
that live go on until their pod itself says goodbye.
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import real_apiserver                                                       # noqa: E402
from cluster import Client, KubeLab, RealPlane                              # noqa: E402
from netlab import NODE4, LabError, wait_for                                # noqa: E402

PODS, PORT, NODE_PORT, VIP = 10, 8080, 30888, "10.96.7.7"
PRE_STOP_S = 2          # a pod that is told to end accepts for so long, as with a preStop hook
GOODBYE_S = 5           # and then waits for its connections' next request, to answer with goodbye
APPS = "/apis/apps/v1/namespaces/default/deployments"
CORE = "/api/v1/namespaces/default"
NODE = "node-1"

SERVER = """
import signal, socket, sys, threading, time
name, ending = sys.argv[1], threading.Event()
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", %d))
s.listen(512)
live = set()
def serve(c):
    live.add(c)
    try:
        while c.recv(64):
            bye = ending.is_set()
            c.sendall((name + (" bye" if bye else " ok")).encode() + b"\\n")
            if bye:
                break
    except OSError:
        pass
    c.close()
    live.discard(c)
def accept():
    while True:
        try:
            c = s.accept()[0]
        except OSError:
            return
        threading.Thread(target=serve, args=(c,), daemon=True).start()
def end(*_):
    ending.set()
signal.signal(signal.SIGTERM, end)
threading.Thread(target=accept, daemon=True).start()
print("ready", flush=True)
while not ending.is_set():
    time.sleep(0.02)
s.shutdown(socket.SHUT_RDWR)
deadline = time.monotonic() + %d
while live and time.monotonic() < deadline:
    time.sleep(0.02)
print("left", len(live), flush=True)
""" % (PORT, GOODBYE_S)

# Short connections one after the other, and some that live; tells what went wrong and how often.
CLIENT = """
import collections, os, socket, sys, threading, time
host, port, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3]
said, lock = collections.Counter(), threading.Lock()
def note(what):
    with lock:
        said[what] += 1
def ask(s):
    s.sendall(b"x")
    line = b""
    while not line.endswith(b"\\n"):
        part = s.recv(64)
        if not part:
            raise OSError("closed without goodbye")
        line += part
    return line.decode().split()
def short():
    while not os.path.exists(stop):
        try:
            with socket.create_connection((host, port), 5) as s:
                ask(s)
            note("short")
        except OSError as e:
            note(f"short: {e}")
        time.sleep(0.01)
def living():
    while not os.path.exists(stop):
        try:
            with socket.create_connection((host, port), 5) as s:
                note("living")
                while not os.path.exists(stop):
                    if ask(s)[1] == "bye":
                        break
                    note("asked")
                    time.sleep(0.05)
        except OSError as e:
            note(f"living: {e}")
threads = [threading.Thread(target=f) for f in [short] * 2 + [living] * 10]
for t in threads:
    t.start()
print("ready", flush=True)
for t in threads:
    t.join()
for what, n in sorted(said.items()):
    print(f"{n} {what}", flush=True)
"""


class Kubelet(threading.Thread):
    """Of the one node: binds, runs and ends the pods that the controllers want."""

    def __init__(self, lab):
        super().__init__(daemon=True)
        self.lab, self.client = lab, Client(lab.plane)
        self.running, self.ending, self.count = {}, {}, 0
        self.stopping, self.failure = False, None

    def run(self):
        try:
            while not self.stopping:
                for pod in self.client.call("GET", f"{CORE}/pods")["items"]:
                    self.look(pod)
                time.sleep(0.05)
        except Exception as e:
            self.failure = e

    def look(self, pod):
        name = pod["metadata"]["name"]
        if pod["metadata"].get("deletionTimestamp"):
            self.end(name)
        elif not pod["spec"].get("nodeName"):
            self.client.call("POST", f"{CORE}/pods/{name}/binding", {
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE}})
        elif name not in self.running:
            self.start_pod(name, pod["metadata"]["labels"]["version"])

    def start_pod(self, name, version):
        self.count += 1
        net = f"p{self.count}"
        v4, v6 = self.lab.add_pod(net)
        proc = self.lab.start(net, [sys.executable, "-c", SERVER, version], name=net)
        wait_for(f"{net} to serve", lambda: "ready" in self.lab.log(net))
        self.running[name] = (net, proc)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        status = {"phase": "Running", "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}],
                  "hostIP": NODE4, "startTime": now, "conditions": [
                      {"type": kind, "status": "True", "lastTransitionTime": now}
                      for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")]}
        self.patch(f"{CORE}/pods/{name}/status", {"status": status})

    def patch(self, path, body):
        conn = self.client.connection
        conn.request("PATCH", path, json.dumps(body),
                     {"Content-Type": "application/merge-patch+json",
                      "Authorization": "Bearer 0123456789abcdef-node"})
        answer = conn.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise LabError(f"PATCH {path}: {answer.status} {data[:300]!r}")

    def end(self, name):
        if name not in self.running:
            return self.gone(name)
        net, proc = self.running[name]
        since = self.ending.setdefault(name, time.monotonic())
        if time.monotonic() - since < PRE_STOP_S:
            return None
        if proc.poll() is None:
            proc.send_signal(signal.SIGTERM)
            return None
        if "left 0" not in self.lab.log(net):
            raise LabError(f"{net}: {self.lab.log(net)}")
        self.lab.del_pod(net)
        del self.running[name]
        return self.gone(name)

    def gone(self, name):
        self.client.call("DELETE", f"{CORE}/pods/{name}?gracePeriodSeconds=0", ok=(200, 404))

    def stop(self):
        self.stopping = True
        self.join(10)
        if self.failure:
            raise LabError(f"kubelet: {self.failure}")


def deployment(version):
    labels = {"app": "web", "version": version}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": PODS, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": labels}, "spec": {
                         "containers": [{"name": "web", "image": f"web:{version}"}]}}}}


class Rollout:
    def __init__(self, lab):
        self.lab = lab

    def set_up(self):
        lab = self.lab
        lab.start_plane()
        config = lab.plane.kubeconfig("kcm.kubeconfig", lab.plane.url, lab.plane.user)
        lab.start("out", [real_apiserver.path("kube-controller-manager"), "--kubeconfig", config,
                          "--controllers=deployment-controller,replicaset-controller,"
                          "endpointslice-controller", "--leader-elect=false", "--secure-port=0",
                          "--kube-api-qps=200", "--kube-api-burst=400"], name="controllers")
        lab.source = ["--kubeconfig", config]
        lab.start_agent("--socket-lb=full")
        self.client = Client(lab.plane)
        self.client.call("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node",
                                                   "metadata": {"name": NODE}})
        self.client.call("POST", f"{CORE}/services", {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "clusterIP": VIP, "selector": {"app": "web"},
                     "ports": [{"port": 80, "targetPort": PORT, "nodePort": NODE_PORT}]}})
        self.client.call("POST", APPS, deployment("v1"))
        self.kubelet = Kubelet(lab)
        self.kubelet.start()
        lab.add_pod("client")
        self.wait_rolled_out("v1")

    def status(self):
        if self.kubelet.failure:
            raise LabError(f"kubelet: {self.kubelet.failure}")
        return self.client.call("GET", f"{APPS}/web")

    def wait_rolled_out(self, version, seconds=180):
        def done():
            found = self.status()
            status = found.get("status", {})
            return (status.get("observedGeneration") == found["metadata"]["generation"] and
                    all(status.get(key, 0) == PODS for key in
                        ("replicas", "updatedReplicas", "availableReplicas")))
        wait_for(f"{PODS} pods {version}", done, seconds, 0.2)
        wait_for("no other pods", lambda: len(self.kubelet.running) == PODS, 60, 0.2)

    def load(self, stop):
        """From a pod to the ClusterIP, from outside to the NodePort, from the node to both."""
        loads = []
        for net, host, port in (("client", VIP, 80), ("out", NODE4, NODE_PORT), ("node", VIP, 80),
                                ("node", NODE4, NODE_PORT)):
            name = f"load-{net}-{port}"
            proc = self.lab.start(net, [sys.executable, "-c", CLIENT, host, str(port), stop],
                                  name=name)
            loads.append((name, proc))
        for name, _ in loads:
            wait_for(name, lambda n=name: "ready" in self.lab.log(n))
        return loads

    def run(self):
        stop = self.lab.path("stop")
        loads = self.load(stop)
        time.sleep(1)  # of load before anything changes
        self.client.call("PUT", f"{APPS}/web", deployment("v2"))
        begin = time.monotonic()
        self.wait_rolled_out("v2")
        took = time.monotonic() - begin
        with open(stop, "w", encoding="ascii"):
            pass
        totals = {}
        for name, proc in loads:
            proc.wait(30)
            for line in self.lab.log(name).splitlines():
                count, _, what = line.partition(" ")
                if what:
                    totals.setdefault(what if ":" not in what else f"{name} {what}", []).append(
                        int(count))
        wrong = {what: sum(n) for what, n in totals.items() if ":" in what}
        if wrong:
            raise LabError(f"lost: {wrong}")
        if min(sum(totals[w]) for w in ("short", "living", "asked")) < 40:
            raise LabError(f"too little load: {totals}")
        self.kubelet.stop()
        return (f"{sum(totals['short'])} short connections, {sum(totals['living'])} living ones "
                f"with {sum(totals['asked'])} requests in {took:.0f} s")


def main():
    name = "k8s/real/rolling_update_under_load"
    why = real_apiserver.why_not(real_apiserver.WITH_CONTROLLERS)
    if why:
        print(f"skipped: {name}: {why}", flush=True)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        real_apiserver.build(real_apiserver.WITH_CONTROLLERS)
        with KubeLab(RealPlane) as lab:
            rollout = Rollout(lab)
            try:
                rollout.set_up()
                print(f"ok {name} ({rollout.run()})", flush=True)
            except BaseException:
                lab.show_logs(20)
                raise
    except (LabError, OSError, subprocess.TimeoutExpired) as e:
        print(f"FAIL {name}: {' '.join(str(e).split())}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
