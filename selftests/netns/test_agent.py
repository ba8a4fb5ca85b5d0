# SPDX-License-Identifier: Apache-2.0
"""What the agent makes of its manifests, and what its absence does to the node: nothing."""
import json
import os
import time

from suite import (MODES, expect, expect_ok, fields, host_port, port, test, wait_for)
from netlab import service_objects, vip

FOREIGN_YAML = """\
# As people write them: comments, several documents, a List, string port names, other kinds.
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: shop}
- apiVersion: v1
  kind: Service
  metadata:
    name: cart
    namespace: shop
    labels: &labels
      app.kubernetes.io/name: cart
  spec:
    ipFamilyPolicy: PreferDualStack
    ipFamilies: [IPv4, IPv6]
    clusterIP: %(v4)s
    clusterIPs:
    - %(v4)s
    - "%(v6)s"
    selector: *labels
    ports:
    - {name: http, port: 80, targetPort: http, protocol: TCP}
    - name: dns
      port: 53
      protocol: UDP
      targetPort: 8080
---
# nothing here
---
kind: ConfigMap
apiVersion: v1
metadata: {name: unrelated}
data: {key: "value: with colon"}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata:
  name: cart-abc12
  namespace: shop
  labels:
    kubernetes.io/service-name: cart
addressType: IPv4
ports:
- {name: http, port: 8080, protocol: TCP}
- {name: dns, port: 8080, protocol: UDP}
endpoints:
- addresses: [%(pod4)s]
  conditions: {ready: true, serving: true, terminating: false}
- addresses: ["10.255.255.1"]
  conditions: {ready: false}
"""


def edit_latency(env, vips, backend):
    """Seconds from a manifest's rename to the first answer of its new backend."""
    start = time.monotonic()
    env.again(vips, [backend])
    wait_for(backend, lambda: env.lab.connect("client", vips[0], 80).get("label") == backend,
             5, 0.001)
    return time.monotonic() - start


@test()
def an_edit_is_live_within_100_ms(env):
    vips = env.service(["web-1"])
    took = sorted(edit_latency(env, vips, ("web-2", "web-1")[i & 1]) for i in range(9))
    # the middle one: a busy machine may delay a process start of the test itself
    expect(took[len(took) // 2] < 0.1, "seconds until live:", [f"{t:.3f}" for t in took])


@test()
def a_broken_manifest_keeps_what_it_held(env):
    vips = env.service(["web-1"])
    name = f"{env.services[-1]}.yaml"
    env.lab.write(name, "apiVersion: v1\nkind: Service\nmetadata:\n  name: [unclosed\n")
    wait_for("a report with file and line",
             lambda: any(name in line and ":" in line for line in
                         env.lab.log("agent").splitlines()[-30:]))
    expect_ok(env.lab.connect("client", vips[0], 80), "web-1")
    # of the right form and the wrong types
    env.lab.write(name, json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {
        "name": "x", "namespace": "default"}, "spec": {"ports": "eighty", "clusterIP": 7}}))
    others = env.service(["web-2"])
    expect_ok(env.lab.connect("client", others[0], 80), "web-2")
    expect_ok(env.lab.connect("client", vips[0], 80), "web-1")
    env.services.insert(0, name[:-5])


@test()
def other_peoples_manifests(env):
    v4, v6 = vip(0x501)
    pod4, pod6 = env.lab.pods["web-1"]
    env.services += ["cart", "cart6"]
    env.lab.write("cart.yaml", FOREIGN_YAML % {"v4": v4, "v6": v6, "pod4": pod4})
    slices = [o for o in service_objects("cart", [v6], [env.lab.pods["web-2"]],
                                         [port(80, 8080), port(53, 8080, "UDP")], ns="shop")
              if o["kind"] == "EndpointSlice"]
    for p, name in zip(slices[0]["ports"], ("http", "dns")):
        p["name"] = name
    env.lab.write("cart6.json", json.dumps(slices[0], indent=2))
    for addr, label in ((v4, "web-1"), (v6, "web-2")):
        wait_for(f"{addr} to answer",
                 lambda a=addr: env.lab.connect("client", a, 80)["is"] == "ok")
        expect_ok(env.lab.connect("client", addr, 80), label)
        expect_ok(env.lab.udp("node", addr, 53), label)
    env.lab.remove("cart6.json")
    wait_for("v6 to be refused",
             lambda: env.lab.connect("client", v6, 80).get("errno") == "ECONNREFUSED")
    expect_ok(env.lab.connect("client", v4, 80), "web-1")


@test()
def default_sizes_hold_a_large_cluster(env):
    """10,000 Services and 100,000 endpoints, all of them in two families."""
    maps = {m["name"]: m for m in json.loads(env.lab.cli("bpf", "map", "list", "-o", "json"))}
    for name, least in (("wag_svc", 20000), ("wag_svc_state", 20000), ("wag_slot", 200000),
                        ("wag_backend", 200000)):
        expect(maps[name]["maxEntries"] >= least, name, maps[name])


@test()
def agent_restart_disturbs_nobody(env):
    vips = env.service(["web-1"])
    lab = env.lab
    held = [lab.background(net, "hold", "--dst", ",".join(host_port(a, 80) for a in vips),
                           "--conns", 10, "--ms", 120000) for net in ("client", "node")]
    for _ in range(3):
        lab.kill_agent()
        for addr in vips:
            expect_ok(lab.connect("client", addr, 80), "web-1")
        lab.start_agent(*lab.agent_args)
    tallies = [fields(lab.stop(h)) for h in held]
    for tally in tallies:
        expect(tally["ok"] == "10" and tally["reset"] == tally["closed"] == "0",
               "connections did not survive:", tally)
    # it adopted: what changes now still takes effect
    env.again(vips, ["web-2"])
    wait_for("web-2", lambda: lab.connect("client", vips[0], 80).get("label") == "web-2")


@test()
def what_left_while_the_agent_was_away_is_swept(env):
    vips = env.service(["web-1"])
    name = env.services[-1]
    env.lab.kill_agent()
    env.lab.remove(f"{name}.yaml")
    expect_ok(env.lab.connect("client", vips[0], 80), "web-1")
    env.lab.start_agent(*env.lab.agent_args)
    wait_for("the Service to be gone",
             lambda: vips[0] not in env.lab.cli("bpf", "lb", "list", "-o", "json"))


@test()
def a_pod_comes_and_goes_without_the_agent(env):
    vips = env.service(["web-1"])
    lab = env.lab
    lab.kill_agent()
    try:
        lab.add_pod("late")
        for addr in vips:
            expect_ok(lab.connect("late", addr, 80), "web-1")
            expect_ok(lab.udp("late", addr, 80), "web-1")
        lab.del_pod("late")
    finally:
        lab.start_agent(*lab.agent_args)


@test()
def health_and_metrics(env):
    vips = env.service(["web-1"])
    expect_ok(env.lab.connect("client", vips[0], 80), "web-1")
    for path in ("/healthz", "/readyz"):
        status, body = env.lab.http(path)
        expect(status == 200, path, status, body)
    status, body = env.lab.http("/metrics")
    expect(status == 200 and "# TYPE" in body and "waggle" in body, "metrics:", body[:200])


@test()
def cli_names_the_service(env):
    vips = env.service(["web-1"])
    name = env.services[-1]
    expect(name in env.lab.cli("service", "list"), "not in waggle service list")
    text = env.lab.cli("bpf", "lb", "list")
    expect(all(v in text for v in vips), "not in waggle bpf lb list:", text)
    env.lab.kill_agent()
    try:
        expect(vips[0] in env.lab.cli("bpf", "lb", "list"), "nothing without the agent")
    finally:
        env.lab.start_agent(*env.lab.agent_args)


@test("off")
def a_full_table_keeps_the_living(env):
    """A flood of half-open connections into a small table evicts no living connection."""
    lab = env.lab
    args = list(lab.agent_args)
    lab.kill_agent()
    lab.start_agent(*args, "--ct-max=4096")
    try:
        vips = env.service(["web-1"])
        web = lab.pods["web-2"][0]
        held = lab.background("client", "hold", "--dst", host_port(vips[0], 80), "--conns", 200,
                              "--ms", 60000, "--period", 200)
        flood = lab.background("other", "synflood", "--src", lab.pods["other"][0], "--dst",
                               ",".join(host_port(web, p) for p in range(8080, 8096)),
                               "--rate", 5000, "--ms", 3000)
        calls = lab.wagtest("client", "flood", "--dst", host_port(vips[0], 80), "--rate", 50,
                            "--ms", 3000)[-1]
        flood.wait(20)
        tally = fields(lab.stop(held))
        expect(tally["ok"] == "200" and tally["reset"] == tally["closed"] == "0",
               "living connections lost:", tally)
        expect(calls["ok"] == calls["tried"], "new connections refused:", calls)
    finally:
        lab.kill_agent()
        lab.start_agent(*args)


def attached(lab):
    """{device: how}: "clsact", "tcx" or both, of every device of the node we are attached to."""
    found = {}
    for line in lab.sh("node", ["tc", "qdisc", "show"]).splitlines():
        if line.startswith("qdisc clsact"):
            found[line.split()[4]] = ["clsact"]
    for pin in os.listdir(os.path.join(lab.pin_dir, "links")):
        if pin.endswith("_ingress"):
            found.setdefault(pin.rsplit("_", 2)[0], []).append("tcx")
    return {("pod" if dev.startswith("wag") else dev): how for dev, how in found.items()}


@test("full")
def every_interface_follows_the_mode(env):
    """The device lo is ours only without the socket path; nothing of the mode before stays."""
    vips = env.service(["web-1"])
    try:
        for args, want in (
                (["--attach=tcx"], {"pod": ["tcx"], "eth0": ["tcx"]}),
                (["--attach=clsact", "--socket-lb=off"],
                 {"pod": ["clsact"], "eth0": ["clsact"], "lo": ["clsact"]}),
                (["--attach=auto", "--socket-lb=off"],
                 {"pod": ["clsact"], "eth0": ["tcx"], "lo": ["tcx"]}),
                (["--attach=auto"], {"pod": ["clsact"], "eth0": ["tcx"]})):
            env.lab.kill_agent()
            env.lab.start_agent(*args)
            found = attached(env.lab)
            if "--attach=auto" in args:  # one after the other they get their links (test_settle.py)
                found["pod"] = [how for how in found["pod"] if how == "clsact"]
            expect(found == want, args, found, want)
            expect_ok(env.lab.connect("client", vips[0], 80), "web-1")
    finally:
        env.lab.kill_agent()
        env.lab.start_agent(*MODES[env.mode])


@test("full")
def a_tunnel_without_ethernet_is_left_alone(env):
    """The programs read an Ethernet header; on a device without one no packet would look right."""
    env.lab.kill_agent()
    try:
        env.lab.ip("node", "tuntap add dev tun0 mode tun", "link set tun0 up",
                   "addr add 10.99.0.1/24 dev tun0")
        # --devices: the last one wins
        env.lab.start_agent("--devices=eth0,tun0")
        expect("no Ethernet header: tun0" in env.lab.log("agent"), env.lab.log("agent")[-400:])
        expect(not env.lab.sh("node", ["tc", "filter", "show", "dev", "tun0", "ingress"]).strip(),
               "a program is on tun0")
    finally:
        env.lab.ip("node", "link del tun0")
        env.lab.kill_agent()
        env.lab.start_agent(*MODES[env.mode])


@test("full")
def a_taken_health_port_is_told_before_anything_changes(env):
    other = {"pin": env.lab.path("bpf", "other"), "state": env.lab.path("other-state")}
    argv = env.lab.agent_argv()
    for flag, value in (("--pin-dir", other["pin"]), ("--state-dir", other["state"])):
        argv[argv.index(flag) + 1] = value
    second = env.lab.start("node", argv, name="second")
    wait_for("the second agent to give up", lambda: second.poll() is not None)
    expect(second.returncode != 0, "exit status", second.returncode)
    expect("--health-addr 127.0.0.1:9879: in use" in env.lab.log("second"), env.lab.log("second"))
    expect(not os.path.exists(other["pin"]), "something was pinned")
    # the same pin dir: told as such
    twin = env.lab.start("node", env.lab.agent_argv(), name="twin")
    wait_for("the twin to give up", lambda: twin.poll() is not None)
    expect("another waggle-agent runs on" in env.lab.log("twin"), env.lab.log("twin"))
    expect(env.lab.http("/healthz") == (200, "ok\n"), env.lab.http("/healthz"))
