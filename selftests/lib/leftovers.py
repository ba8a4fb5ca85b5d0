# SPDX-License-Identifier: Apache-2.0
"""What a test run may leave on a machine, as a set of lines to compare before and after."""
import glob
import json
import os
import subprocess
import time

RUN_ID_VAR = "WAGGLE_TEST_RUN"


def _netns():
    return {f"network namespace {os.path.basename(p)}" for p in glob.glob("/run/netns/*")}


def _links():
    return {f"link {name}" for name in os.listdir("/sys/class/net")}


def _pins():
    lines = set()
    for top, dirs, files in os.walk("/sys/fs/bpf"):
        lines |= {f"pin {os.path.join(top, f)}" for f in files}
        lines |= {f"pin directory {os.path.join(top, d)}" for d in dirs}
    return lines


def _cgroups():
    lines = set()
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        lines |= {f"cgroup {p}" for p in glob.glob(top + "/wag*")}
    return lines


def _mounts():
    """Without /run/netns: the first "ip netns add" of a machine makes it one, for good."""
    with open("/proc/self/mounts", encoding="utf-8") as f:
        return {"mount " + line.split()[1] for line in f} - {"mount /run/netns"}


def _programs(bpftool):
    try:
        out = subprocess.run([bpftool, "-j", "prog", "show"], capture_output=True, timeout=30,
                             check=True).stdout
        progs = json.loads(out)
    except (OSError, subprocess.SubprocessError, ValueError):
        return set()
    return {f"BPF program {p['id']} {p['name']}" for p in progs
            if p.get("name", "").startswith("wag_")}


def processes(run_id):
    """Processes that this run started, by the variable they inherited: {pid: command line}."""
    mark = f"{RUN_ID_VAR}={run_id}".encode()
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if mark not in f.read().split(b"\0"):
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                cmdline = f.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if int(pid) != os.getpid() and cmdline:
            found[int(pid)] = cmdline
    return found


def snapshot(bpftool):
    return _netns() | _links() | _pins() | _cgroups() | _mounts() | _programs(bpftool)


def wait_clean(before, bpftool, run_id, seconds=15):
    """What is still there that was not before. Programs and namespaces leave with some delay."""
    deadline = time.monotonic() + seconds
    while True:
        left = sorted(snapshot(bpftool) - before)
        left += [f"process {pid} {cmd}" for pid, cmd in sorted(processes(run_id).items())]
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(0.25)
