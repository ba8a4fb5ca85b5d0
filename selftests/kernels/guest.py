# SPDX-License-Identifier: Apache-2.0
"""Boots one kernel in QEMU on an initramfs made here, and returns what its console said."""
import glob
import lzma
import os
import re
import select
import subprocess
import time

import fetch

ESCAPES = re.compile(r"\x1b(c|\[[0-9;?]*[A-Za-z])")
# load_order() adds what each of them needs.
MODULES = ["veth", "sch_ingress", "sch_fq", "cls_bpf", "dummy", "vxlan", "geneve"]


class Initramfs:
    """A newc cpio archive, written without staging files."""

    def __init__(self):
        self.parts = []
        self.names = set()
        self.ino = 1

    def _add(self, name, mode, data=b"", rdev=(0, 0)):
        self.ino += 1
        raw = name.encode() + b"\0"
        fields = [self.ino, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(raw), 0]
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + raw
        self.parts.append(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

    def directory(self, path):
        parts = path.strip("/").split("/")
        for i in range(1, len(parts) + 1):
            name = "/".join(parts[:i])
            if name and name not in self.names:
                self.names.add(name)
                self._add(name, 0o040755)

    def file(self, path, data, mode=0o755):
        self.directory(os.path.dirname(path))
        name = path.strip("/")
        if name not in self.names:
            self.names.add(name)
            self._add(name, 0o100000 | mode, data)

    def device(self, path, major, minor):
        self.directory(os.path.dirname(path))
        self._add(path.strip("/"), 0o020600, rdev=(major, minor))

    def program(self, path, source):
        """A program and the shared libraries it is linked with, where its loader looks."""
        self.file(path, open(source, "rb").read())
        listed = subprocess.run(["ldd", source], capture_output=True, text=True, check=False)
        for lib in re.findall(r"(/\S+) \(0x", listed.stdout):
            self.file(lib, open(lib, "rb").read())

    def bytes(self):
        self.directory("dev")
        tail = Initramfs()
        tail._add("TRAILER!!!", 0)
        return b"".join(self.parts + tail.parts)


def module_files(kernel_dir):
    paths = glob.glob(f"{kernel_dir}/**/*.ko*", recursive=True)
    return {re.sub(r"\.ko.*", "", os.path.basename(p)).replace("-", "_"): p for p in paths}


def module_bytes(path):
    raw = open(path, "rb").read()
    return lzma.decompress(raw) if path.endswith(".xz") else raw


def load_order(kernel_dir, wanted):
    """(name, bytes) of the wanted modules and of what they depend on, each after its needs."""
    files, order = module_files(kernel_dir), {}

    def add(name):
        if name in order or name not in files:
            return
        raw = module_bytes(files[name])
        needs = re.search(rb"\0depends=([^\0]*)", raw)
        for need in needs[1].decode().split(",") if needs else []:
            add(need.replace("-", "_"))
        order[name] = raw

    for name in wanted:
        add(name)
    return list(order.items())


INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /tmp /run /var/lib /etc
/bin/busybox --install -s /bin
export PATH=/test:/bin:/sbin:/usr/sbin LD_LIBRARY_PATH=/usr/local/lib
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
for m in /mod/*; do insmod $m || echo "FAIL insmod $m"; done
ip link set lo up
echo
sh /test/main
echo "guest: done"
poweroff -f
"""


def build(kernel_dir, programs, files, main):
    """programs: {guest name: host path}; files: {guest path: bytes}; main: the shell script."""
    fs = Initramfs()
    fs.device("dev/console", 5, 1)
    fs.file("bin/busybox", open("/bin/busybox", "rb").read())
    fs.file("init", INIT.encode())
    fs.file("test/main", main.encode())
    for n, (name, raw) in enumerate(load_order(kernel_dir, MODULES)):
        fs.file(f"mod/{n:02d}-{name}.ko", raw, 0o644)
    for name, path in programs.items():
        fs.program(f"test/{name}", path)
    for path, raw in files.items():
        fs.file(path, raw)
    return fs.bytes()


def boot(kernel_dir, initramfs, deadline_s, on_line=None):
    """Returns (lines, why): every console line, and None or why the guest did not finish."""
    # Without cx16: one 6.12 guest died in kmalloc right behind a cmpxchg16b under software
    # emulation. Seen once; the cause is not known.
    cmd = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,-cx16", "-m", "1G", "-smp", "1",
           "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio", "-net", "none",
           "-kernel", fetch.image(kernel_dir), "-initrd", initramfs,
           "-append", "console=ttyS0 quiet panic=-1 loglevel=4 mitigations=off rdinit=/init"]
    lines, buf, end = [], b"", time.monotonic() + deadline_s
    with subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as qemu:
        try:
            while time.monotonic() < end:
                if not select.select([qemu.stdout], [], [], 1)[0]:
                    continue
                chunk = os.read(qemu.stdout.fileno(), 65536)
                if not chunk:
                    break
                buf += chunk
                *whole, buf = buf.split(b"\n")
                for raw in whole:
                    # the firmware leaves its terminal codes in front of the first lines
                    line = ESCAPES.sub("", raw.decode(errors="replace")).rstrip("\r")
                    lines.append(line)
                    if on_line:
                        on_line(line)
            late = time.monotonic() >= end
        finally:
            qemu.kill()
    if late:
        return lines, f"no end within {deadline_s} s"
    return lines, None if "guest: done" in lines else "the guest died"
