# SPDX-License-Identifier: Apache-2.0
"""The end of a backend: who talked to it goes on with another, or drains."""
import sys

from suite import FAMILIES, expect, expect_ok, host_port, port, test, wait_for
from netlab import vip

# One connected UDP socket: says who answers, and what its calls fail with; then connects again.
CONNECTED = """
import errno, socket, sys, time
def connected():
    family = socket.AF_INET6 if ":" in sys.argv[1] or sys.argv[3] == "mapped" else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.connect((("::ffff:" if sys.argv[3] == "mapped" else "") + sys.argv[1], int(sys.argv[2])))
    s.settimeout(0.3)
    return s
s, said = connected(), None
while True:
    try:
        s.send(b"x" * 64)
        now = s.recv(2048).split()[0].decode()
        if s.getpeername()[0].replace("::ffff:", "") != sys.argv[1]:
            now += " is " + s.getpeername()[0]
    except socket.timeout:
        now = "silence"
    except OSError as e:
        now = errno.errorcode[e.errno]
        s.close()
        s = connected()
    if now != said:
        print(now, flush=True)
    said = now
    time.sleep(0.01)
"""

MANY = """
import socket, sys, time
held = []
for _ in range(int(sys.argv[3])):
    held.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    held[-1].connect((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
time.sleep(600)
"""

# A connected TCP socket that asks all the time: says who answered and when the connection ends.
HELD = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
f = s.makefile("rwb", buffering=0)
print(f.readline().split()[0].decode(), flush=True)
while True:
    f.write(b"x" * 8)
    if not s.recv(8):
        break
    time.sleep(0.02)
print("closed", flush=True)
"""


def client(env, net, addr, number, kind="plain"):
    return env.lab.start(net, [sys.executable, "-c", CONNECTED, addr, str(number), kind])


def said(env, proc):
    return env.lab.log(proc.log_name).split()


def metric(env, name):
    lines = [line for line in env.lab.http("/metrics")[1].splitlines() if line.startswith(name)]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else 0.0


def moves(env, net, kinds=("plain",)):
    """Clients of both families follow their Service from web-1 to web-2; what each one said."""
    vips = env.service(["web-1"])
    procs = [client(env, net, addr, 80, kind) for addr in vips for kind in kinds
             if kind == "plain" or ":" not in addr]
    try:
        for proc in procs:
            wait_for("web-1", lambda p=proc: said(env, p) == ["web-1"])
        env.again(vips, ["web-2"])
        for proc in procs:
            wait_for("web-2", lambda p=proc: said(env, p)[-1] == "web-2")
        return [said(env, proc) for proc in procs]
    finally:
        for proc in procs:
            env.lab.stop(proc)


@test("full", "clsact")
def a_connected_udp_socket_is_told_that_its_backend_left(env):
    for net in ("client", "node"):
        for words in moves(env, net, ("plain", "mapped")):
            told = [w for w in words if w != "silence"]
            # the first when it waits for an answer, the second when it sends
            expect(told[0] == "web-1" and told[-1] == "web-2" and len(told) == 3 and
                   told[1] in ("ECONNABORTED", "EDESTADDRREQ"), net, words)


@test("off")
def a_connected_udp_socket_moves_on_the_packet_path(env):
    """Nothing is closed: the next datagram is translated to the new backend."""
    for net in ("client", "node"):
        for words in moves(env, net):
            expect([w for w in words if w != "silence"] == ["web-1", "web-2"], net, words)


@test("full", "off")
def a_client_outside_follows_a_node_port(env):
    np = 30717
    ports = [port(80, 8080, "UDP", np)]
    vips = env.service(["web-1"], ports, "NodePort")
    procs = [client(env, "out", env.node_addr(f), np) for f in FAMILIES]
    try:
        for proc in procs:
            wait_for("web-1", lambda p=proc: said(env, p)[-1:] == ["web-1"])
        env.again(vips, ["web-2"], ports, "NodePort")
        for proc in procs:
            wait_for("web-2", lambda p=proc: said(env, p)[-1] == "web-2")
    finally:
        for proc in procs:
            env.lab.stop(proc)


@test("full")
def many_sockets_of_one_pod_are_closed(env):
    n = 600  # more than one slice closes
    vips = env.service(["web-1"])
    holder = env.lab.start("client", [sys.executable, "-c", MANY, vips[0], "80", str(n)])
    try:
        wait_for("the sockets", lambda: said(env, holder) == ["ready"])
        closed = metric(env, "waggle_stale_sockets_closed_total")
        env.again(vips, ["web-2"])
        wait_for("all to be closed", lambda: metric(
            env, "waggle_stale_sockets_closed_total") == closed + n)
    finally:
        env.lab.stop(holder)


@test("full")
def only_sockets_of_the_backend_that_left_are_closed(env):
    lab = env.lab
    vips = env.service(["web-1"])
    other = vip(0x701)
    env.services.insert(0, "stays")
    lab.service("stays", other, ["web-1"], [port(80, 8080, "UDP")])
    wait_for("the other Service", lambda: env.lab.udp("client", other[0], 80)["is"] == "ok")
    leaves = client(env, "client", vips[0], 80)
    # by another Service, to the backend itself, and to somebody else
    stay = [client(env, "client", other[0], 80),
            client(env, "client", lab.pods["web-1"][0], 8080),
            client(env, "client", lab.pods["web-3"][0], 8080),
            client(env, "other", other[1], 80)]
    try:
        for proc in (leaves, *stay):
            wait_for("an answer", lambda p=proc: said(env, p))
        first = [said(env, proc) for proc in stay]
        closed = metric(env, "waggle_stale_sockets_closed_total")
        env.again(vips, ["web-2"])
        wait_for("web-2", lambda: said(env, leaves)[-1] == "web-2")
        expect(metric(env, "waggle_stale_sockets_closed_total") == closed + 1, "one was closed")
        expect(metric(env, "waggle_stale_sockets_failed_total") == 0, "failures")
        expect([said(env, proc) for proc in stay] == first, [said(env, proc) for proc in stay])
    finally:
        for proc in (leaves, *stay):
            lab.stop(proc)


@test("full", "off")
def tcp_to_a_backend_that_left_drains(env):
    vips = env.service(["web-1"])
    held = [env.lab.start(net, [sys.executable, "-c", HELD, addr, "80"])
            for net in ("client", "node") for addr in vips]
    try:
        for proc in held:
            wait_for("web-1", lambda p=proc: said(env, p) == ["web-1"])
        env.again(vips, ["web-2"])
        for f in FAMILIES:
            wait_for("web-2", lambda a=vips[f]: env.lab.connect("client", a, 80).get("label") ==
                     "web-2")
        # whoever was there first goes on: many more answers pass
        calls = env.lab.wagtest("client", "flood", "--dst", host_port(vips[0], 80), "--rate", 50,
                                "--ms", 500)[-1]
        expect(calls["ok"] == calls["tried"], calls)
        expect(all(said(env, proc) == ["web-1"] and proc.poll() is None for proc in held),
               [said(env, proc) for proc in held])
    finally:
        for proc in held:
            env.lab.stop(proc)


@test("full", "off")
def a_service_that_comes_later_gets_the_client_that_waited(env):
    """What a socket sent before there was a Service leaves no trace that would hold it."""
    vips = vip(0x702)
    procs = [client(env, net, addr, 80) for net in ("client", "node") for addr in vips]
    try:
        for proc in procs:
            wait_for("silence or a refusal", lambda p=proc: said(env, p))
        env.services.append("late")
        env.lab.service("late", vips, ["web-1"])
        for proc in procs:
            wait_for("web-1", lambda p=proc: said(env, p)[-1] == "web-1", 10)
    finally:
        for proc in procs:
            env.lab.stop(proc)


@test("full")
def a_backend_that_left_while_the_agent_was_away(env):
    lab = env.lab
    vips = env.service(["web-1"])
    procs = [client(env, net, addr, 80) for net in ("client", "node") for addr in vips]
    try:
        for proc in procs:
            wait_for("web-1", lambda p=proc: said(env, p) == ["web-1"])
        lab.kill_agent()
        env.again(vips, ["web-2"])
        expect(all(said(env, proc) == ["web-1"] for proc in procs), "moved without the agent")
        lab.start_agent(*lab.agent_args)
        for proc in procs:
            wait_for("web-2", lambda p=proc: said(env, p)[-1] == "web-2")
    finally:
        for proc in procs:
            lab.stop(proc)
