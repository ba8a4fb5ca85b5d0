# SPDX-License-Identifier: Apache-2.0
"""NodePorts whose backend is on another machine, turned round by XDP on the node's device."""
import os

from netlab import FAR4, FAR6
from suite import (FAMILIES, MODES, NODE4, NODE6, echo_server, expect, expect_ok, port, test,
                   wait_for)

NODE_PORT = 30777
BYTES = 4 << 20

# Sends, and reads it back: many packets of one flow, whose every byte is compared.
SEND = """
import os, socket, sys, threading, time
end = time.monotonic() + 5
while True:
    try:
        s = socket.create_connection((sys.argv[1], %d), 5)
        break
    except ConnectionRefusedError: # the Service is not known yet
        if time.monotonic() > end:
            raise
        time.sleep(0.05)
s.settimeout(10)
data = os.urandom(%d)
threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)), daemon=True).start()
back = b""
while part := s.recv(1 << 16):
    back += part
print("same" if back == data else f"{len(back)} bytes came back")
""" % (NODE_PORT, BYTES)

def turned(lab):
    """Packets that XDP sent on."""
    for line in lab.http("/metrics")[1].splitlines():
        if line.startswith("waggle_forward_count_total") and 'point="xdp"' in line:
            return int(float(line.split()[-1]))
    return 0


def pins(lab):
    return sorted(p.rsplit("_", 1)[1] for p in os.listdir(os.path.join(lab.pin_dir, "links"))
                  if "_xdp_" in p)


def as_a_wire(lab):
    """The neighbour's end behaves like one: whole checksums, frames taken from XDP (a veth wakes up
    for those only with a program of its own)."""
    lab.sh("out", ["ethtool", "-K", "eth0", "tx", "off"])
    lab.ip("out", "link set dev eth0 xdp obj "
           + os.path.join(lab.build, "selftests", "lib", "xdp_pass.bpf.o") + " sec xdp")


@test("full")
def node_ports_of_other_nodes_are_turned_round(env):
    lab = env.lab
    as_a_wire(lab)
    server = lab.start("far", ["python3", "-c", echo_server(9798)], name="xdp-server")
    wait_for("the server", lambda: "ready" in lab.log("xdp-server"))
    try:
        for mode, want in (("native", ["native"]), ("generic", ["generic"]),
                           ("best-effort", ["native"]), ("disabled", [])):
            lab.kill_agent()
            lab.start_agent(*MODES[env.mode], f"--lb-acceleration={mode}")
            expect(pins(lab) == want, mode, pins(lab))
            env.service([(FAR4, FAR6)], [port(80, 9798, node_port=NODE_PORT)], kind="NodePort",
                        live=False, name="xdp")
            for family in FAMILIES:
                addr = (NODE4, NODE6)[family]
                before = turned(lab)
                said = lab.sh("out", ["python3", "-c", SEND, addr]).strip()
                expect(said == "same", mode, addr, said)
                sent = turned(lab) - before
                expect(sent > 500 if want else sent == 0, mode, addr, sent, "packets by XDP")
            expect_ok(lab.connect("out", lab.pods["web-1"][0], 8080), "web-1")
    finally:
        lab.stop(server)
        lab.ip("out", "link set dev eth0 xdp off")
        lab.sh("out", ["ethtool", "-K", "eth0", "tx", "on"])
        lab.kill_agent()
        lab.start_agent(*MODES[env.mode])


@test("full")
def another_xdp_program_is_named(env):
    """It stays, and the agent says what to do."""
    lab = env.lab
    lab.kill_agent()
    lab.ip("node", "link set dev eth0 xdp obj "
           + os.path.join(lab.build, "selftests", "lib", "xdp_pass.bpf.o") + " sec xdp")
    try:
        proc = lab.start("node", lab.agent_argv(*MODES[env.mode], "--lb-acceleration=native"),
                         name="xdp-odd")
        wait_for("it to give up", lambda: proc.poll() is not None, 20)
        said = lab.log("xdp-odd")
        expect("another XDP program is there" in said and "best-effort" in said, said[-400:])
        lab.start_agent(*MODES[env.mode], "--lb-acceleration=best-effort")
        expect("no XDP on eth0" in lab.log("agent"), lab.log("agent")[-400:])
        expect(not pins(lab), "pinned:", pins(lab))
        lab.kill_agent()
    finally:
        lab.ip("node", "link set dev eth0 xdp off")
        lab.start_agent(*MODES[env.mode])
