# SPDX-License-Identifier: Apache-2.0
"""Policies whose two ends are on different nodes: each end is judged where it lives."""
from suite import ask, expect, test, wait_for

NS = "default"


def pod_object(env, node, name, addrs):
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NS, "labels": {"pod": name}},
            "spec": {"nodeName": node.node_name},
            "status": {"phase": "Running", "podIPs": [{"ip": addrs[f]} for f in env.families]}}


def policy(name, pod, **spec):
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": NS},
            "spec": {"podSelector": {"matchLabels": {"pod": pod}}, **spec}}


def table(env, to, *, but=()):
    """{(pod, family, protocol): does it reach to?} of every other pod."""
    found = {}
    for node, pod, _ in env.pods(but=to):
        addrs = next(a for _, name, a in env.pods() if name == to)
        for family in env.families:
            for mode in ("connect", "udp"):
                line = ask(node, pod, mode, [(addrs[family], 8080)], "--timeout", 300)[0]
                found[pod, family, mode] = line["is"] == "ok"
    return {k: v for k, v in found.items() if k[0] not in but}


def holds(env, what, to, allowed):
    got = {}

    def as_wanted():
        got.clear()
        got.update(table(env, to))
        return all(ok == allowed(pod) for (pod, _, _), ok in got.items())
    try:
        wait_for(what, as_wanted, 30, 0.1)
    finally:
        wrong = [key for key, ok in got.items() if ok != allowed(key[0])]
        expect(not wrong, f"{what}:", wrong)


@test("full", "some")
def policies_across_nodes(env):
    for node, name, addrs in env.pods():
        env.cluster.write(f"pod-{name}.yaml", [pod_object(env, node, name, addrs)])
    try:
        env.cluster.write("np.yaml", [policy("in", "n1-a", policyTypes=["Ingress"], ingress=[
            {"from": [{"podSelector": {"matchLabels": {"pod": "n2-a"}}}]}])])
        holds(env, "ingress by a pod of another node", "n1-a", lambda pod: pod == "n2-a")
        env.cluster.write("np.yaml", [policy("out", "n2-a", policyTypes=["Egress"], egress=[
            {"to": [{"podSelector": {"matchLabels": {"pod": "n3-a"}}}]}])])
        holds(env, "egress to a pod of another node", "n1-a", lambda pod: pod != "n2-a")
        holds(env, "and to the one that it may reach", "n3-a", lambda pod: True)
        env.cluster.write("np.yaml", [
            policy("in", "n1-a", policyTypes=["Ingress"], ingress=[
                {"from": [{"podSelector": {"matchLabels": {"pod": "n2-a"}}}]}]),
            policy("out", "n2-a", policyTypes=["Egress"], egress=[])])
        holds(env, "both ends must allow it", "n1-a", lambda pod: False)
    finally:
        env.cluster.remove("np.yaml")
        for _, name, _ in env.pods():
            env.cluster.remove(f"pod-{name}.yaml")
    holds(env, "all is open again", "n1-a", lambda pod: True)
