# SPDX-License-Identifier: Apache-2.0
"""Opens many flows between namespaces at once, each with a socket of its own: who is answered?

TCP and UDP by the kernel's sockets; SCTP by a raw socket and packets made here, so that a kernel
without SCTP does too. Servers are wagtest's echo and sctp-server.
"""
import collections
import ctypes
import errno
import os
import random
import select
import socket
import struct
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
GRACE_S = 0.03  # after the last answer wanted: one not wanted would be there too
Probe = collections.namedtuple("Probe", "netns addr port proto")  # netns: a path


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return ~crc & 0xffffffff


def sctp_init(sport, dport):
    """As wagtest's sctp has it: one chunk of type INIT with a text."""
    head, chunk = struct.pack("!HHI", sport, dport, 7), struct.pack("!BBH32s", 1, 0, 36, b"init")
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def sctp_answers(sock, family):
    """(peer's port, own port) of each INIT ACK that is there."""
    while True:
        try:
            data = sock.recv(2048)
        except BlockingIOError:
            return
        data = data[(data[0] & 15) * 4:] if family == socket.AF_INET else data
        if len(data) >= 13 and data[12] == 2:
            yield struct.unpack("!HH", data[:4])


class Batch:
    """Flows that are opened together, in a thread of their own: it goes into each namespace."""

    def __init__(self, probes):
        self.probes = probes
        self.ok = [False] * len(probes)
        self.waiting = {}  # file descriptor -> (index, socket)
        self.raw = {}      # (netns, family) -> (socket, {(port, own port): index})
        self.poll = select.poll()

    def open(self):
        here = None
        for i in sorted(range(len(self.probes)), key=lambda i: self.probes[i].netns):
            probe = self.probes[i]
            if probe.netns != here:
                self.enter(probe.netns)
                here = probe.netns
            family = socket.AF_INET6 if ":" in probe.addr else socket.AF_INET
            try:
                if probe.proto == "SCTP":
                    self.open_sctp(i, probe, family)
                else:
                    self.open_flow(i, probe, family)
            except OSError as e:
                if e.errno not in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                    raise

    @staticmethod
    def enter(netns):
        fd = os.open(netns, os.O_RDONLY)
        try:
            if LIBC.setns(fd, CLONE_NEWNET) < 0:
                raise OSError(ctypes.get_errno(), f"setns {netns}")
        finally:
            os.close(fd)

    def open_flow(self, i, probe, family):
        tcp = probe.proto == "TCP"
        sock = socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        sock.setblocking(False)
        self.waiting[sock.fileno()] = (i, sock)
        err = sock.connect_ex((probe.addr, probe.port))
        if err not in (0, errno.EINPROGRESS):
            return
        if not tcp:
            sock.send(b"probe")
        self.poll.register(sock, select.POLLOUT if tcp else select.POLLIN)

    def open_sctp(self, i, probe, family):
        key = (probe.netns, family)
        if key not in self.raw:
            sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_SCTP)
            sock.setblocking(False)
            self.raw[key] = (sock, {})
            self.poll.register(sock, select.POLLIN)
        sock, flows = self.raw[key]
        own = random.randrange(1024, 65536)
        while (probe.port, own) in flows:
            own = random.randrange(1024, 65536)
        flows[probe.port, own] = i
        sock.sendto(sctp_init(own, probe.port), (probe.addr, 0))

    def collect(self, until):
        """Notes what came by then (time.monotonic()); at least once."""
        while True:
            left = max(0.0, until - time.monotonic())
            for fd, _ in self.poll.poll(left * 1000):
                self.note(fd)
            if not left or self.all_wanted():
                return

    def all_wanted(self):
        return all(got or not want for got, want in zip(self.ok, self.wanted))

    def note(self, fd):
        if fd not in self.waiting:
            for (_, family), (sock, flows) in self.raw.items():
                if sock.fileno() == fd:
                    for ports in sctp_answers(sock, family):
                        if ports in flows:
                            self.ok[flows[ports]] = True
            return
        i, sock = self.waiting[fd]
        self.poll.unregister(fd)
        self.ok[i] = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        if self.probes[i].proto == "TCP" and self.ok[i]:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def run(self, wanted, seconds):
        self.wanted = wanted
        try:
            self.open()
            self.collect(time.monotonic() + seconds)
            self.wanted = [True] * len(self.probes)
            self.collect(time.monotonic() + GRACE_S)
        finally:
            for _, sock in self.waiting.values():
                sock.close()
            for sock, _ in self.raw.values():
                sock.close()


def ask(probes, wanted, seconds=0.3):
    """Which of the flows are answered. Not later than in so many seconds, and sooner when all that
    are wanted have been and no other came within a grace."""
    batch, failed = Batch(probes), []

    def run():
        try:
            batch.run(wanted, seconds)
        except Exception as e:
            failed.append(e)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return batch.ok
