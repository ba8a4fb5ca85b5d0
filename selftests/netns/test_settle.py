# SPDX-License-Identifier: Apache-2.0
"""A pod that stays gets a TCX link in its clsact filter's place, and nobody notices."""
import json
import os
import sys

from suite import (FAMILIES, NODE4, NODE6, echo_server, expect, expect_ok, host_port, port, test,
                   wait_for)

# Requests and answers on one connection until the file is there; then how many.
TALK = """
import os, socket, sys, time
end = time.monotonic() + 4
while True:
    try:
        s = socket.create_connection((sys.argv[1], 80), 2)
        break
    except OSError: # the Service is not known yet
        if time.monotonic() > end:
            raise
        time.sleep(0.05)
n = 0
print("ready", flush=True)
try:
    while not os.path.exists(sys.argv[2]):
        s.sendall(b"x" * 100)
        got = 0
        while got < 100:
            part = s.recv(100)
            if not part:
                raise OSError("closed")
            got += len(part)
        n += 1
        time.sleep(0.001)
    print("talked", n, flush=True)
except OSError as e:
    print("failed", n, e, flush=True)
"""

def python(lab, net, text, *args, name):
    proc = lab.start(net, [sys.executable, "-c", text, *args], name=name)
    wait_for(f"{name} to begin", lambda: "ready" in lab.log(name))
    return proc


def links(lab):
    return {x["ifname"] for x in json.loads(lab.sh("node", ["ip", "-j", "link"]))}


def pinned(lab, ifname):
    return [p for p in os.listdir(os.path.join(lab.pin_dir, "links"))
            if p.startswith(ifname + "_")]


def filters(lab, ifname, side):
    return lab.sh("node", ["tc", "filter", "show", "dev", ifname, side]).strip()


@test("off")
def a_pod_that_stays_gets_a_link(env):
    """Its connections to a Service on the node itself, which the stack delivers, live through it:
    for a moment both programs see each of their packets."""
    lab = env.lab
    before = links(lab)
    lab.add_pod("stays")
    (ifname,) = links(lab) - before
    done = lab.path("settled")
    server = python(lab, "node", echo_server(9797), name="settle-server")
    vips = env.service([(NODE4, NODE6)], [port(80, 9797)], live=False)
    talks = [python(lab, "stays", TALK, vips[f], done, name=f"talk-{f}") for f in FAMILIES]
    try:
        expect(not pinned(lab, ifname), "a young pod has a link:", pinned(lab, ifname))
        expect(filters(lab, ifname, "ingress"), "a young pod has no filter")
        if "devices by tcx" not in lab.log("agent"):
            return  # a kernel without TCX: filters are all there is
        wait_for("the pod's link", lambda: pinned(lab, ifname), 40)
        wait_for("no filter beside it", lambda: not filters(lab, ifname, "ingress"), 2)
        expect(filters(lab, ifname, "egress"), "the filter towards the pod is gone")
        lab.cni("CHECK", "stays", conf={"cniVersion": "1.0.0"})
        lab.restart_agent()
        expect(pinned(lab, ifname), "the agent's start took the link away")
        expect(not filters(lab, ifname, "ingress"), "the agent's start put the filter back")
        expect_ok(lab.connect("stays", *web(env)), "web-1")
        with open(done, "w", encoding="ascii"):
            pass
        for f, talk in enumerate(talks):
            said = (talk.wait(10), lab.log(f"talk-{f}").split())[1]
            expect(said[1] == "talked" and int(said[2]) > 1000, host_port(vips[f], 80), said)
    finally:
        lab.stop(server)
        for talk in talks:
            lab.stop(talk)
        lab.del_pod("stays")
    expect(not pinned(lab, ifname), "DEL left", pinned(lab, ifname))


def web(env):
    return env.lab.pods["web-1"][0], 8080
