#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs one container of a pod as a runtime would, from a description in JSON:

  container.py '{"host": PID, "root": DIR, "argv": [...], "env": {...}, "caps": [...] or null,
                 "mounts": [{"from": DIR, "to": DIR, "ro": false}]}'

host is a process whose mount, cgroup and PID namespaces are the host's; root and from are paths
there. The network namespace and the cgroup are the caller's.
"""
import ctypes
import json
import os
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 1, 32, 4096, 16384, 1 << 19
CLONE_NEWNS = 0x20000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
CAPS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_MODULE": 16,
        "SYS_CHROOT": 18, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_RESOURCE": 24, "PERFMON": 38,
        "BPF": 39}
LAST_CAP = 40


def check(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind, flags, data=None):
    check(LIBC.mount(*(a.encode() if a else None for a in (source, target, kind)),
                     ctypes.c_ulong(flags), data.encode() if data else None), f"mount {target}")


def bind(source, target, read_only):
    if not os.path.isdir(target):
        os.makedirs(target)
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        mount(None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY)


def enter(pid):
    for kind in ("mnt", "cgroup", "pid"):
        with open(f"/proc/{pid}/ns/{kind}", "rb") as f:
            fds.append(os.dup(f.fileno()))
    for fd in reversed(fds):
        check(LIBC.setns(fd, 0), "setns")


def root_of(spec):
    """The container's file system: its own /proc with read-only sysctls, and what is mounted."""
    root = spec["root"]
    check(LIBC.unshare(CLONE_NEWNS), "unshare")
    mount(None, "/", None, MS_REC | MS_SLAVE)
    mount(root, root, None, MS_BIND)
    mount("proc", f"{root}/proc", "proc", 0)
    bind(f"{root}/proc/sys", f"{root}/proc/sys", True)
    mount("sysfs", f"{root}/sys", "sysfs", MS_RDONLY)
    for m in spec["mounts"]:
        bind(m["from"], root + m["to"], m.get("ro"))
    mount(None, root, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    os.chroot(root)
    os.chdir("/")


def main():
    spec = json.loads(sys.argv[1])
    enter(spec["host"])
    pid = os.fork()         # the PID namespace is that of children
    if pid:
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    LIBC.prctl(1, 9, 0, 0, 0)       # PR_SET_PDEATHSIG: it ends with its runtime
    root_of(spec)
    if spec["caps"] is not None:
        kept = {CAPS[c] for c in spec["caps"]}
        for cap in set(range(LAST_CAP + 1)) - kept:
            check(LIBC.prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "capbset")
        check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    os.execve(spec["argv"][0], spec["argv"], spec["env"])
    return 127


fds = []
if __name__ == "__main__":
    sys.exit(main())
