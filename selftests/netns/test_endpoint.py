# SPDX-License-Identifier: Apache-2.0
"""Pods and the agent that was away: what waits for it, what was lost, what nobody asks for."""
import ipaddress
import json
import os
import time

from suite import Failure, expect, expect_ok, host_port, test, wait_for

PENDING = 1  # WAG_POD_PENDING
FLAGS = 20   # offset of wag_pod.flags
POLICY = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
          "metadata": {"name": "quiet", "namespace": "strict"},
          "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}


def map_path(lab, name):
    return os.path.join(lab.pin_dir, "maps", name)


def bpftool(lab, *args):
    return json.loads(lab.run(["bpftool", "-j", *args]) or "null")


def key_of(addr):
    ip = ipaddress.ip_address(addr)
    if ip.version == 4:
        ip = ipaddress.ip_address(f"::ffff:{addr}")
    return [f"0x{b:02x}" for b in ip.packed]


def pod_value(lab, addr):
    """The bytes of the pod's entry; None: it has none."""
    try:
        found = bpftool(lab, "map", "lookup", "pinned", map_path(lab, "wag_pods"), "key",
                        *key_of(addr))
    except Exception:
        return None
    return bytes(int(b, 16) for b in found["value"])


def is_pending(lab, addr):
    value = pod_value(lab, addr)
    return value is not None and bool(value[FLAGS] & PENDING)


def make_pending(lab, addrs):
    """As the CNI plugin leaves a pod whose policy it could not know."""
    for addr in addrs:
        value = bytearray(pod_value(lab, addr))
        value[FLAGS] |= PENDING
        bpftool(lab, "map", "update", "pinned", map_path(lab, "wag_pods"), "key", *key_of(addr),
                "value", *(f"0x{b:02x}" for b in value))


def touch_record(lab, pod):
    """Writes the pod's record again, as ADD does at its end."""
    folder = os.path.join(lab.state_dir, "endpoints")
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if not name.endswith(".json"):
            continue
        with open(path, encoding="utf-8") as f:
            text = f.read()
        if json.loads(text)["pod"] != pod:
            continue
        with open(os.path.join(folder, ".again.tmp"), "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(os.path.join(folder, ".again.tmp"), path)
        return
    raise Failure(f"no record of {pod}")


def namespaces(lab):
    """wag_policy_ns as {name: flags}."""
    found = {}
    for entry in bpftool(lab, "map", "dump", "pinned", map_path(lab, "wag_policy_ns")):
        key = bytes(int(b, 16) for b in entry["key"])
        found[key.split(b"\0")[0].decode()] = int(entry["value"][0], 16)
    return found


def cluster_flag(lab):
    """wag_runtime.policies"""
    found = bpftool(lab, "map", "lookup", "pinned", map_path(lab, "wag_runtime"), "key",
                    "0", "0", "0", "0")
    return int(found["value"][8], 16)


def empty_bpffs(lab):
    """As a reboot leaves it, or somebody's rm."""
    lab.run(["find", lab.pin_dir, "-depth", "-delete"])


@test("full", "clsact")
def a_waiting_pod_goes_on_when_its_record_is_complete(env):
    lab = env.lab
    addrs = lab.add_pod("waits")
    took = []
    try:
        for _ in range(7):
            # The agent may just be looking at what happened before: then it takes the flag away.
            wait_for("the flag to stay", lambda: make_pending(lab, addrs) or
                     is_pending(lab, addrs[0]), 2)
            before = lab.http("/metrics")[1]
            touch_record(lab, "waits")
            start = time.monotonic()
            wait_for("no pending pod", lambda: not any(is_pending(lab, a) for a in addrs), 2, 0)
            took.append(time.monotonic() - start)
            expect("waggle_endpoints_released_total" in before, before)
    finally:
        lab.del_pod("waits")
    # the look itself starts two processes
    expect(sorted(took)[len(took) // 2] < 0.1, "seconds until it went on:", took)


@test("full")
def policies_are_told_to_the_plugin(env):
    lab = env.lab
    lab.write("plain.yaml", json.dumps({"apiVersion": "v1", "kind": "Namespace",
                                        "metadata": {"name": "plain"}}))
    wait_for("the namespace", lambda: namespaces(lab).get("plain") == 0)
    expect(cluster_flag(lab) == 0, "no policy, yet policies is set")
    lab.write("policy.yaml", json.dumps(POLICY))
    try:
        wait_for("the policy's namespace", lambda: namespaces(lab).get("strict") == 1)
        wait_for("the cluster's flag", lambda: cluster_flag(lab) == 1)
        expect(namespaces(lab)["plain"] == 0, namespaces(lab))
        lab.kill_agent()
        expect(namespaces(lab).get("strict") == 1 and cluster_flag(lab) == 1,
               "the table must outlive the agent")
        lab.remove("plain.yaml")
        lab.start_agent(*lab.agent_args)
        wait_for("what left meanwhile to be swept", lambda: "plain" not in namespaces(lab))
        expect(namespaces(lab).get("strict") == 1, namespaces(lab))
    finally:
        lab.remove("policy.yaml")
    wait_for("no policy", lambda: cluster_flag(lab) == 0 and "strict" not in namespaces(lab))


@test("full", "clsact")
def who_waited_for_the_agent_goes_on_when_it_starts(env):
    lab = env.lab
    lab.write("policy.yaml", json.dumps(POLICY))
    addrs = lab.add_pod("waits", ns="strict")
    try:
        wait_for("the policy", lambda: namespaces(lab).get("strict") == 1)
        wait_for("no pending pod", lambda: not any(is_pending(lab, a) for a in addrs))
        lab.kill_agent()
        make_pending(lab, addrs)
        touch_record(lab, "waits")
        expect(all(is_pending(lab, a) for a in addrs), "nobody is there to let it go")
        lab.start_agent(*lab.agent_args)
        wait_for("no pending pod", lambda: not any(is_pending(lab, a) for a in addrs))
        expect_ok(lab.connect("waits", lab.pods["web-1"][0], 8080), "web-1")
    finally:
        lab.del_pod("waits", ns="strict")
        lab.remove("policy.yaml")


@test("full", "off", "clsact")
def pods_outlive_an_emptied_bpffs(env):
    lab = env.lab
    vips = env.service(["web-1"])
    held = lab.background("client", "hold", "--dst", host_port(lab.pods["web-2"][0], 8080),
                          "--conns", 3, "--ms", 120000)
    lab.kill_agent()
    empty_bpffs(lab)
    lab.start_agent(*lab.agent_args)
    expect(all(pod_value(lab, a) for addrs in lab.pods.values() for a in addrs),
           "a pod has no entry")
    for pod in ("client", "other"):
        for addr in vips:
            expect_ok(lab.connect(pod, addr, 80), "web-1")
            expect_ok(lab.udp(pod, addr, 80), "web-1")
    healed = [line for line in lab.http("/metrics")[1].splitlines()
              if line.startswith("waggle_endpoints_healed_total")]
    expect(healed and int(healed[0].split()[1]) == len(lab.pods), healed, len(lab.pods))
    tally = lab.stop(held)
    expect("reset=0" in tally and "closed=0" in tally, tally)
    lab.add_pod("after")
    try:
        expect_ok(lab.connect("after", vips[0], 80), "web-1")
    finally:
        lab.del_pod("after")


@test("full", "clsact")
def pods_outlive_a_cleanup(env):
    lab = env.lab
    vips = env.service(["web-1"])
    lab.kill_agent()
    lab.sh("node", [*lab.agent_argv(*lab.agent_args), "--cleanup"])
    expect(not os.path.exists(map_path(lab, "wag_pods")), "the cleanup left maps")
    lab.start_agent(*lab.agent_args)
    for addr in vips:
        expect_ok(lab.connect("client", addr, 80), "web-1")


@test("full", "clsact")
def a_pod_that_vanished_without_del_is_forgotten(env):
    lab = env.lab
    addrs = lab.add_pod("lost")
    folder = os.path.join(lab.state_dir, "endpoints")
    record = next(n for n in os.listdir(folder) if n.endswith(".json") and
                  json.load(open(os.path.join(folder, n), encoding="utf-8"))["pod"] == "lost")
    lab.run(["ip", "netns", "del", lab.ns("lost")])
    lab.nets.remove("lost")
    del lab.pods["lost"]
    # while there is a record, it is the plugin's to remove
    expect(pod_value(lab, addrs[0]), "the entry went while its record was there")
    os.unlink(os.path.join(folder, record))
    wait_for("the entries to go", lambda: not any(pod_value(lab, a) for a in addrs), 20, 0.2)
    expect("has vanished without a DEL" in lab.log("agent"), "it was not told")
    lab.cni("DEL", "lost")


@test("full", "clsact")
def a_reboot_leaves_nothing_to_heal(env):
    lab = env.lab
    vips = env.service(["web-1"])
    lab.add_pod("before")
    lab.kill_agent()
    # the pod's namespace and every program are gone, its record and lease are of another boot
    lab.run(["ip", "netns", "del", lab.ns("before")])
    lab.nets.remove("before")
    addrs = lab.pods.pop("before")
    folder = os.path.join(lab.state_dir, "endpoints")
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if not name.endswith(".json"):
            continue
        with open(path, encoding="utf-8") as f:
            record = json.load(f)
        if record["pod"] == "before":
            with open(path, "w", encoding="utf-8") as f:
                json.dump({**record, "boot_id": "another"}, f)
    empty_bpffs(lab)
    lab.start_agent(*lab.agent_args)
    expect(pod_value(lab, addrs[0]) is None, "a pod of an earlier boot was registered")
    lab.add_pod("before")
    try:
        expect_ok(lab.connect("before", vips[0], 80), "web-1")
    finally:
        lab.del_pod("before")
