# SPDX-License-Identifier: Apache-2.0
"""The node's ranges from its Node, and what `waggle ipam` says of addresses and puts right."""
import contextlib
import glob
import json
import os
import subprocess

from netlab import POD_RANGES
from suite import expect, test, wait_for

BLOCK = "10.244.9.0/24"


def waggle(lab, *args):
    """(exit status, standard output, standard error)."""
    done = subprocess.run([lab.binary("waggle"), "--pin-dir", lab.pin_dir, "--state-dir",
                           lab.state_dir, "ipam", *args], capture_output=True, text=True,
                          check=False, timeout=30, preexec_fn=lab._enter("node", True))
    return done.returncode, done.stdout, done.stderr


def show(lab):
    status, out, err = waggle(lab, "show", "-o", "json")
    expect(status == 0, "ipam show:", err)
    return json.loads(out)


def check(lab, *args):
    """(exit status, [(kind, address, pod, fixed)])."""
    status, out, err = waggle(lab, "check", "-o", "json", *args)
    expect(out, "ipam check:", err)
    return status, sorted((p["kind"], p["address"], p["pod"], p["fixed"])
                          for p in json.loads(out)["problems"])


def lease_file(lab, addr):
    found = glob.glob(os.path.join(lab.state_dir, "ipam", "*", "leases", addr))
    expect(len(found) == 1, f"the lease of {addr}:", found)
    return found[0]


def record_of(lab, pod):
    for path in glob.glob(os.path.join(lab.state_dir, "endpoints", "*.json")):
        with open(path, encoding="utf-8") as f:
            if json.load(f)["pod"] == pod:
                return path
    raise AssertionError(f"no record of {pod}")


def rewrite(path, change):
    with open(path, encoding="ascii") as f:
        words = f.read().split()
    with open(path, "w", encoding="ascii") as f:
        f.write(" ".join(change(words)) + "\n")


@contextlib.contextmanager
def node_manifest(lab, cidrs):
    """The agent's own Node, as kubelet and controller manager would have made it."""
    lab.write("node.json", json.dumps({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": lab.node_name},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}}))
    try:
        yield
    finally:
        lab.remove("node.json")


def metric(lab, name):
    for line in lab.http("/metrics")[1].splitlines():
        if line.startswith(name + " "):
            return float(line.rsplit(" ", 1)[1])
    return None


@test("full")
def ranges_from_the_node(env):
    """Without ranges of its own the plugin gives addresses of the Node's spec.podCIDRs."""
    lab = env.lab
    with node_manifest(lab, [BLOCK, "fd00:10:244:9::/64"]):
        wait_for("the node's ranges", lambda: [r["range"] for r in show(lab)["ranges"]
                                               if r["state"] == "in use"]
                 == [BLOCK, "fd00:10:244:9::/64"])
        conf = lab.cni_conf
        lab.cni_conf = lambda: {k: v for k, v in conf().items() if k != "ipam"}
        try:
            v4, v6 = lab.add_pod("ranged")
            expect(v4.startswith("10.244.9.") and v6.startswith("fd00:10:244:9:"), v4, v6)
            wait_for("the address counted", lambda: metric(
                lab, 'waggle_ipam_addresses{family="ipv4",state="used"}') == 1)
            expect(metric(lab, 'waggle_ipam_capacity{family="ipv4"}') == 253, "of a /24")
            expect(metric(lab, 'waggle_ipam_addresses{family="ipv4",state="free"}') == 252, "free")
            expect(metric(lab, 'waggle_ipam_blocks{family="ipv6"}') == 1, "blocks")
            lease = next(x for x in show(lab)["leases"] if x["address"] == v4)
            expect(lease["state"] == "used" and lease["pod"] == "ranged"
                   and lease["namespace"] == "default" and lease["interface"] == "eth0"
                   and lease["container"] == f"{lab.name}-ranged" and lease["since"], lease)
        finally:
            lab.del_pod("ranged")
            lab.cni_conf = conf
        wait_for("the address in quarantine", lambda: metric(
            lab, 'waggle_ipam_addresses{family="ipv4",state="quarantined"}') == 1)
        lease = next(x for x in show(lab)["leases"] if x["address"] == v4)
        expect(lease["state"] == "quarantined" and lease["pod"] == "", lease)
    status, found = check(lab)
    expect(status == 0 and not found, "after all:", found)


@test("full")
def ipam_show(env):
    lab = env.lab
    ranges = {r["range"]: r for r in show(lab)["ranges"]}
    for family in POD_RANGES:
        one = ranges[family[0]["subnet"]]
        expect(one["used"] == len(lab.pods) and one["state"] != "draining", one)
    status, out, err = waggle(lab, "show", "-v")
    lines = out.splitlines()
    expect(status == 0 and lines[0].split()[0] == "RANGE" and "ADDRESS" in out, out, err)
    for pod, addrs in lab.pods.items():
        for addr in addrs:
            expect(any(line.split()[:3] == [addr, "used", f"default/{pod}"] for line in lines),
                   f"{addr} of {pod}:", out)
    status, out, _ = waggle(lab, "show", "-o", "yaml")
    expect(status == 0 and "leases:" in out, out)


@test("full")
def ipam_check_and_fix(env):
    """Each thing that can go wrong is found, named and, where it can be, put right."""
    lab = env.lab
    v4, v6 = lab.add_pod("odd")
    status, found = check(lab)
    expect(status == 0 and not found, "before:", found)
    status, out, _ = waggle(lab, "check")
    expect(status == 0 and out.startswith("no problem: "), out)
    # A pod whose lease is gone: leased again, to it.
    lease = lease_file(lab, v4)
    os.unlink(lease)
    want = [("endpoint-without-lease", v4, "odd", False)]
    expect(check(lab) == (1, want), check(lab))
    status, out, _ = waggle(lab, "check")
    expect(status == 1 and "a pod has it, but no lease" in out and "default/odd" in out, out)
    expect(check(lab, "--fix") == (0, [want[0][:3] + (True,)]), "not repaired")
    expect(check(lab) == (0, []), check(lab))
    with open(lease, encoding="ascii") as f:
        expect(f.read().split()[0::3] == ["leased", f"{lab.name}-odd"], "another lease")
    # The lease says another container: nobody knows whose it is.
    rewrite(lease, lambda w: w[:3] + ["another", "eth0"])
    kinds = [k for k, *_ in check(lab)[1]]
    expect(kinds == ["duplicate", "lease-without-endpoint"], kinds)
    rewrite(lease, lambda w: w[:3] + [f"{lab.name}-odd", "eth0"])
    expect(check(lab) == (0, []), check(lab))
    # Given by an earlier boot: free, but nobody has said so.
    rewrite(lease, lambda w: w[:1] + ["00000000-0000-0000-0000-000000000000"] + w[2:])
    kinds = [k for k, *_ in check(lab)[1]]
    expect(kinds == ["endpoint-without-lease", "old-boot"], kinds)
    expect(check(lab, "--fix")[0] == 0 and check(lab) == (0, []), check(lab))
    # A pod without a record: its leases are nobody's, and the datapath serves them.
    record = record_of(lab, "odd")
    os.rename(record, record + ".away")
    want = sorted(("lease-without-endpoint", a, "", False) for a in (v4, v6))
    expect(check(lab) == (1, want), check(lab))
    os.rename(record + ".away", record)
    expect(check(lab) == (0, []), check(lab))
    for addr in (v4, v6):
        os.unlink(lease_file(lab, addr))
    os.rename(record, record + ".away")
    want = sorted(("served-without-lease", a, "", False) for a in (v4, v6))
    expect(check(lab) == (1, want), check(lab))
    expect(check(lab, "--fix") == (1, want), "this cannot be repaired here")
    os.rename(record + ".away", record)
    expect(check(lab, "--fix")[0] == 0, check(lab))
    lab.del_pod("odd")
    expect(check(lab) == (0, []), check(lab))


@test("full")
def ipam_check_of_a_killed_add(env):
    """What an ADD that was killed has leased is found, released, and waits before it is reused."""
    lab = env.lab
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        boot = f.read().strip()
    leases = os.path.join(lab.state_dir, "ipam", "10.244.0.0-24", "leases")
    with open(os.path.join(leases, "10.244.0.200"), "w", encoding="ascii") as f:
        f.write(f"leased {boot} 1 killed eth0\n")
    want = [("lease-without-endpoint", "10.244.0.200", "", False)]
    expect(check(lab) == (1, want), check(lab))
    expect(check(lab, "--fix") == (0, [want[0][:3] + (True,)]), check(lab))
    lease = next(x for x in show(lab)["leases"] if x["address"] == "10.244.0.200")
    expect(lease["state"] == "quarantined", lease)
    expect(check(lab) == (0, []), check(lab))


@test("full")
def ipam_release(env):
    lab = env.lab
    v4, _ = lab.add_pod("held")
    cases = (
        (["10.244.0.250"], 1, "10.244.0.250 has no lease: 'waggle ipam show -v' lists"),
        (["10.244.0"], 2, "'10.244.0' is no address like 10.0.3.7"),
        ([v4], 1, f"{v4} belongs to a pod: default/held"),
    )
    for args, code, says in cases:
        status, out, err = waggle(lab, "release", *args)
        expect(status == code and says in err and not out, args, out, err)
    expect("give --force" in waggle(lab, "release", v4)[2], "the way out")
    status, out, err = waggle(lab, "release", v4, "--force")
    expect(status == 0 and f"{v4} is released" in out, out, err)
    status, _, err = waggle(lab, "release", v4)
    expect(status == 1 and "is released already" in err, err)
    expect(check(lab)[1] == [("endpoint-without-lease", v4, "held", False)], check(lab))
    expect(check(lab, "--fix")[0] == 0, check(lab))
    lab.del_pod("held")
    expect(check(lab) == (0, []), check(lab))


@test("full")
def ipam_without_an_agent(env):
    lab = env.lab
    lab.kill_agent()
    try:
        expect(check(lab) == (0, []), check(lab))
        expect(show(lab)["leases"], "no leases")
    finally:
        lab.start_agent(*lab.agent_args)
