# SPDX-License-Identifier: Apache-2.0
"""Bandwidth of pods: what gets through, and that no other pod pays."""
import json
import subprocess
import sys

from suite import Failure, expect, test, wait_for

RATE = 20_000_000  # bit/s
SECONDS = 2.0
SIZE = 1200
BURST = RATE // 20  # bits: 50 ms

SEND = """
import socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 9000))
pause, n, start = float(sys.argv[2]), 0, time.monotonic()
while time.monotonic() - start < float(sys.argv[3]):
    while n * pause < time.monotonic() - start:
        s.send(b"x" * %d)
        n += 1
    time.sleep(0.0005)
print(n)
""" % SIZE

RECEIVE = """
import socket, sys, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
s.bind(("::", 9000))
print("ready", flush=True)
total, s_first, last = 0, 0, 0
s.settimeout(10)
while True:
    try:
        n = len(s.recv(65536))
    except socket.timeout:
        break
    last = time.monotonic()
    s_first = s_first or last
    total += n
    s.settimeout(0.7)
print("got", total, last - s_first, flush=True)
"""


def stream(env, source, target, family):
    """(bit/s of frames that arrived, datagrams sent, bytes arrived)"""
    lab = env.lab
    receiver = lab.start(target, [sys.executable, "-c", RECEIVE], name=f"recv-{source}-{family}")
    before = len(lab.log(receiver.log_name))
    wait_for("the receiver", lambda: "ready" in lab.log(receiver.log_name)[max(0, before - 6):])
    pause = (SIZE + 42) * 8 / (3 * RATE)
    sent = int(lab.sh(source, [sys.executable, "-c", SEND, lab.pods[target][family], str(pause),
                               str(SECONDS)]))
    try:
        receiver.wait(15)
    except subprocess.TimeoutExpired as e:
        raise Failure("the receiver did not end") from e
    words = lab.log(receiver.log_name).split()
    total = int(words[-2])
    header = 62 if family else 42
    # The burst came for nothing: the rate is what came beside it.
    bits = total / SIZE * (SIZE + header) * 8 - BURST
    return bits / float(words[-1]), sent, total


def near(rate, what):
    expect(0.8 * RATE < rate < 1.2 * RATE, f"{what}: {rate / 1e6:.1f} Mbit/s of {RATE / 1e6:g}")


def bandwidth(**values):
    return {"capabilities": {"bandwidth": True}, "runtimeConfig": {"bandwidth": values}}


@test("full", "clsact", "tcx")
def bandwidth_of_a_pod(env):
    lab = env.lab
    lab.add_pod("slow", conf=bandwidth(egressRate=RATE, egressBurst=BURST, ingressRate=RATE,
                                       ingressBurst=BURST))
    try:
        for family in (0, 1):
            near(stream(env, "slow", "web-1", family)[0], f"what the pod sends, {family}")
            near(stream(env, "client", "slow", family)[0], f"what it receives, {family}")
        _, sent, total = stream(env, "client", "web-1", 0)
        expect(total > 0.95 * sent * SIZE, "a pod without a limit lost:", sent * SIZE - total)
        expect(any("EDT" in r or "andwidth" in r.lower() or "BANDWIDTH" in r
                   for r in env.drops()), "no such drop counted:", env.drops())
        # The agent's programs change; the limit stays.
        lab.restart_agent()
        near(stream(env, "slow", "web-1", 0)[0], "after the agent's restart")
    finally:
        lab.del_pod("slow")
    left = json.loads(lab.run(["bpftool", "-j", "map", "dump", "pinned",
                               f"{lab.pin_dir}/maps/wag_limit"]))
    expect(left == [], "entries stay:", left)
