# SPDX-License-Identifier: Apache-2.0
"""Pods while no agent runs: added, decided upon by what is pinned, deleted; and after a reboot."""
import concurrent.futures
import json
import re

from suite import ask, expect, expect_ok, test, wait_for
from test_change import nothing_lost
from test_paths import every_pod_pair

MANY = 50


def reply(node, command, pod="none", ns="default"):
    """(error code or 0, the plugin's answer)"""
    text = node.cni(command, pod, ns, check=False)
    answer = json.loads(text) if text.strip() else {}
    return answer.get("code", 0), answer


def ports_of(node):
    """Host sides of pod interfaces."""
    links = json.loads(node.sh("node", ["ip", "-j", "link", "show", "type", "veth"]))
    return {link["ifname"] for link in links} - {"eth0"}


def endpoints(node):
    return sorted(e.get("pod") or e.get("name")
                  for e in json.loads(node.cli("endpoint", "list", "-o", "json")))


def in_parallel(work, items):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(work, items))


def answers(node, net, addrs):
    """How many of these addresses answer an echo request."""
    lines = ask(node, net, "ping", [(a, 0) for a in addrs])
    return sum(line["is"] == "ok" for line in lines)


def expect_all_reached(env, node, many):
    near, far = env.nodes[0], env.nodes[2]
    for family in env.families:
        addrs = [node.pods[pod][family] for pod in many]
        for lab, net in ((near, "n1-a"), (node, "node"), (far, "n3-a"), (far, "node")):
            got = answers(lab, net, addrs)
            expect(got == len(many), f"{net} reached {got} of {len(many)} new pods, IPv{family}")
    target = far.pods["n3-a"]
    for pod in many[::5]:
        lines = ask(node, pod, "connect", [(target[f], 8080) for f in env.families])
        for line in lines:
            expect_ok(line, "n3-a")


@test("full", routing=("tunnel",))
def pods_come_and_go_without_the_agent(env):
    node = env.nodes[0]
    many = [f"many-{n}" for n in range(MANY)]
    before = node.routes(), ports_of(node), endpoints(node)
    ways = [(node, "n1-a", env.nodes[2].pods["n3-a"][f], 8080) for f in env.families]
    with nothing_lost(env, *ways):
        node.kill_agent()
        in_parallel(node.add_pod, many)
        expect_all_reached(env, node, many)
        in_parallel(node.del_pod, many[:MANY // 2])
        many = many[MANY // 2:]
        expect_all_reached(env, node, many)
        held = node.routes(), ports_of(node)
        node.start_agent(*env.agent_args, seconds=60)
        expect_all_reached(env, node, many)
        expect(endpoints(node) == sorted([*before[2], *many]), "endpoints:", endpoints(node))
        expect((node.routes(), ports_of(node)) == held, "the agent touched what it found:",
               set(node.routes()) ^ set(held[0]), ports_of(node) ^ held[1])
        node.kill_agent()
        in_parallel(node.del_pod, many)
        node.start_agent(*env.agent_args, seconds=60)
    after = node.routes(), ports_of(node), endpoints(node)
    expect(after == before, "something was left behind:", set(after[0]) ^ set(before[0]),
           after[1] ^ before[1], after[2])
    every_pod_pair(env)


def namespace(name):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def deny_all(ns):
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "some", "namespace": ns},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}


def pod_object(node, name, ns):
    addrs = list(node.pods[name].values())
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": ns},
            "spec": {"nodeName": node.node_name},
            "status": {"podIP": addrs[0], "podIPs": [{"ip": a} for a in addrs]}}


PENDING, DENIED = "No configuration available to perform policy decision", "Policy denied"


def drops(node, reason):
    """From the pinned counters: there may be no agent to ask."""
    return sum(int(n) for n in re.findall(reason + r'(?:"})? +(\d+)', node.cli("metrics")))


def is_denied(node, pod, addr):
    before = drops(node, DENIED)
    return node.connect(pod, addr, 8080, timeout_ms=150)["is"] == "err" and \
        drops(node, DENIED) > before


@test("full", routing=("tunnel",))
def what_is_pinned_decides_without_the_agent(env):
    """Of a namespace known to have no policy: open. With one, or unknown: it waits for an agent."""
    node, far = env.nodes[0], env.nodes[2]
    target = far.pods["n3-a"]
    env.cluster.write("policies.yaml", [namespace("guarded"), namespace("open"),
                                        deny_all("guarded")])
    env.cluster.write("pod.yaml", [])
    try:
        wait_for("the policy in the pinned tables", lambda: "guarded" in node.cli(
            "bpf", "map", "dump", "wag_policy_ns"))
        node.kill_agent()
        for ns in ("guarded", "open", "unknown"):
            node.add_pod(f"in-{ns}", ns)
            env.echo(node, f"in-{ns}", f"in-{ns}", "8080")
        env.cluster.write("pod.yaml", [pod_object(node, "in-guarded", "guarded"),
                                       pod_object(far, "n3-a", "default")])
        for family in env.families:
            expect_ok(ask(node, "in-open", "connect", [(target[family], 8080)])[0], "n3-a")
            expect_ok(ask(far, "n3-a", "connect", [(node.pods["in-open"][family], 8080)])[0],
                      "in-open")
            for pod in ("in-guarded", "in-unknown"):
                for lab, net, addr in ((node, pod, target[family]),
                                       (far, "n3-a", node.pods[pod][family]),
                                       (node, "n1-a", node.pods[pod][family])):
                    line = lab.connect(net, addr, 8080, timeout_ms=150)
                    expect(line["is"] == "err", f"{net} -> {addr} ({pod}) should wait:", line)
                # kubelet's probes
                expect_ok(ask(node, "node", "connect", [(node.pods[pod][family], 8080)])[0], pod)
        expect(drops(node, PENDING) > 0, "no drop was counted as pending")
        node.start_agent(*env.agent_args, seconds=60)
        for family in env.families:
            wait_for("the policy to decide about in-guarded",
                     lambda f=family: is_denied(node, "in-guarded", target[f]))
        env.cluster.write("policies.yaml", [namespace("guarded"), namespace("open")])
        for pod in ("in-guarded", "in-unknown"):
            for family in env.families:
                wait_for(f"{pod} to be released", lambda p=pod, f=family: node.connect(
                    p, target[f], 8080, timeout_ms=200)["is"] == "ok", 10)
    finally:
        if node.agent.poll() is not None:
            node.start_agent(*env.agent_args, seconds=60)
        for name in ("policies.yaml", "pod.yaml"):
            env.cluster.remove(name)
        for pod in [p for p in node.pods if p.startswith("in-")]:
            node.del_pod(pod, pod[3:])
    every_pod_pair(env)


@test("full", routing=("tunnel",))
def a_node_reboots(env):
    """Nothing is pinned: pods wait until the agent has run once, then all is as before."""
    node = env.nodes[2]
    old = {pod: dict(addrs) for pod, addrs in node.pods.items()}
    node.reboot()
    node.add_net("early")
    code, answer = reply(node, "ADD", "early")
    expect(code == 11, "ADD before the agent's first run should answer 11:", answer)
    code, answer = reply(node, "STATUS")
    expect(code == 50, "STATUS before the agent's first run should answer 50:", answer)
    node.start_agent(*env.agent_args, seconds=60)
    code, answer = reply(node, "STATUS")
    expect(code == 0, "STATUS with an agent:", answer)
    for pod in old:  # kubelet clears away what was before it makes anew
        code, answer = reply(node, "DEL", pod)
        expect(code == 0, f"DEL of {pod} of the last boot:", answer)
    for pod in ("early", *old):
        if pod == "early":
            node.nets.remove("early")
            node.run(["ip", "netns", "del", node.ns("early")])
        else:
            node.add_pod(pod)
            env.echo(node, pod, pod, "8080")
    env.echo(node, "node", node.node_name, 9000)
    env.meet()
    every_pod_pair(env)
    expect(endpoints(node) == sorted(old), "endpoints:", endpoints(node))
