# SPDX-License-Identifier: Apache-2.0
"""A client's flow gets the same endpoint from nodes that know nothing of it."""
import json

from suite import FAMILIES, expect, expect_ok, host_port, port, test, wait_for
from netlab import FAR4, FAR6, NODE4, NODE6, service_objects

WEBS = ("web-1", "web-2", "web-3")
PORTS = [port(80, 8080, "UDP", 30095)]
FLOWS = range(21000, 21024)


def put(env, vips, algorithm, backends=WEBS):
    lab, name = env.lab, env.services[-1]
    objects = service_objects(name, vips, [lab.pods[b] for b in backends], PORTS, "NodePort")
    objects[0]["metadata"]["annotations"] = {"service.waggle.io/lb-algorithm": algorithm}
    lab.write(f"{name}.yaml", "---\n".join(json.dumps(o) + "\n" for o in objects))


def write(env, vips, algorithm, backends=WEBS):
    put(env, vips, algorithm, backends)
    wait_for("it in the map", lambda: all(
        s["algorithm"] == algorithm and len(s["backends"]) == len(backends)
        for s in listed(env, vips)))


def listed(env, vips):
    return [s for s in json.loads(env.lab.cli("service", "list", "-o", "json"))
            if any(s["frontend"].startswith(host_port(v, "")) for v in vips)]


def choices(env, family):
    """Who answers each flow of a client outside; by its port."""
    node, found = (NODE4, NODE6)[family], {}
    # A datagram is not sent again: the neighbours on its way must be known.
    wait_for("far to reach it",
             lambda: env.lab.udp("far", node, 30095, timeout_ms=300)["is"] == "ok")
    for number in FLOWS:
        got = env.lab.udp("far", node, 30095, "--src", host_port((FAR4, FAR6)[family], number))
        expect_ok(got, WEBS)
        found[number] = got["label"]
    return found


def forget_everything(env):
    """As another node: conntrack is empty, the pods are as they were."""
    lab = env.lab
    lab.kill_agent()
    lab.sh("node", [*lab.agent_argv(*lab.agent_args), "--cleanup"])
    lab.start_agent(*lab.agent_args)


@test("full", "off")
def a_node_that_knows_no_flow_chooses_the_same_endpoint(env):
    vips = env.service(WEBS, PORTS, "NodePort", live=False)
    write(env, vips, "maglev")
    before = [choices(env, f) for f in FAMILIES]
    for found in before:
        expect(set(found.values()) == set(WEBS), "not spread", found)
    forget_everything(env)
    wait_for("it in the map", lambda: len(listed(env, vips)) == 2)
    expect([choices(env, f) for f in FAMILIES] == before, "another choice than", before)
    text = env.lab.cli("service", "list")
    expect("Maglev" in text, text)
    for service in listed(env, vips):
        expect(len(service["backends"]) == 3, service)  # not the table behind them
    tables_can_be_seen(env, vips)


def tables_can_be_seen(env, vips):
    ask = lambda *args: json.loads(env.lab.cli("bpf", "lb", "maglev", *args, "-o", "json"))
    mine = [t for t in ask("list") if any(t["frontend"].startswith(host_port(v, "")) for v in vips)]
    expect(len(mine) == 2 and all(t["set"] == "cluster" for t in mine), mine)
    for table in mine:
        shares = table["backends"]
        expect(sum(shares.values()) == table["entries"] == 1021, table)
        expect(len(shares) == 3 and max(shares.values()) - min(shares.values()) < 12, table)
        entries = ask("get", str(table["id"]))
        expect([e["entry"] for e in entries] == list(range(1021)), entries[:3])
        for backend, n in shares.items():
            expect(sum(e["backend"] == backend for e in entries) == n, backend, n)
    text = env.lab.cli("bpf", "lb", "maglev", "list")
    expect("ENTRIES" in text and all(env.lab.pods[w][0] in text for w in WEBS), text)
    refused = env.lab.sh("node", ["sh", "-c", '"$@" 2>&1; true', "sh", env.lab.binary("waggle"),
                                  "--pin-dir", env.lab.pin_dir, "bpf", "lb", "maglev", "get", "99"])
    expect("no Service with Maglev has the ID 99" in refused, refused)


@test("full")
def few_flows_move_with_an_endpoint(env):
    vips = env.service(WEBS, PORTS, "NodePort", live=False)
    write(env, vips, "maglev")
    before = [choices(env, f) for f in FAMILIES]
    write(env, vips, "maglev", WEBS[:2])
    forget_everything(env)
    wait_for("it in the map", lambda: len(listed(env, vips)) == 2)
    for family in FAMILIES:
        after = choices(env, family)
        moved = [n for n in FLOWS if before[family][n] != "web-3" and
                 after[n] != before[family][n]]
        expect("web-3" not in after.values(), after)
        expect(len(moved) <= len(FLOWS) // 4, "moved", moved, "from", before[family])


@test("full")
def an_algorithm_nobody_knows_is_told(env):
    vips = env.service(WEBS, PORTS, "NodePort", live=False)
    put(env, vips, "round-robin")
    wait_for("a word", lambda: "neither random nor maglev" in env.lab.log("agent"))
    expect(all(s["algorithm"] == "random" for s in listed(env, vips)), listed(env, vips))
