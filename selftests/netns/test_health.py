# SPDX-License-Identifier: Apache-2.0
"""The health servers kube-proxy has, by real HTTP: from outside, from a pod and on the node."""
import json
from datetime import datetime, timezone

from suite import FAMILIES, expect, host_port, port, test, wait_for
from netlab import NODE4, NODE6, service_objects, vip

NODE = (NODE4, NODE6)
CHECK = 32123


def get(lab, net, addr, number, path="/", method="GET"):
    """(status, headers in lower case, body); status 0: no answer."""
    out = lab.sh(net, ["curl", "-s", "-g", "-m", "3", "-i", "-X", method,
                       f"http://{host_port(addr, number)}{path}"], check=False)
    head, _, body = out.replace("\r\n", "\n").partition("\n\n")
    lines = head.splitlines()
    if not lines:
        return 0, {}, ""
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), headers, body


def objects(env, name, number, endpoints, check=CHECK, local=True, kind="LoadBalancer",
            families=(0, 1)):
    """endpoints: (pod, node, conditions)."""
    vips = [vip(number)[f] for f in families]
    found = service_objects(name, vips, [], [port(80, 8080, node_port=30600 + number % 100)],
                            kind)
    found[0]["spec"].update({"externalTrafficPolicy": "Local" if local else "Cluster"})
    if check:
        found[0]["spec"]["healthCheckNodePort"] = check
    for family, piece in zip(families, found[1:]):
        piece["endpoints"] = [{"addresses": [env.lab.pods[pod][family]], "nodeName": node,
                               "conditions": conditions} for pod, node, conditions in endpoints]
    return found


def put(env, name, *args, **kw):
    if name not in env.services:
        env.services.append(name)
    env.lab.write(f"{name}.yaml", "---\n".join(
        json.dumps(o) + "\n" for o in objects(env, name, *args, **kw)))


def count(env, family, net="out", number=CHECK):
    status, _, body = get(env.lab, net, NODE[family], number)
    return status and (status, json.loads(body)["localEndpoints"])


READY, DRAINING = {"ready": True}, {"ready": False, "serving": True, "terminating": True}


@test("full", "off")
def a_health_check_port_tells_of_local_endpoints(env):
    here, there = env.lab.node_name, "node-2"
    put(env, "lb", 0x601, [("web-1", here, READY), ("web-2", here, READY),
                           ("web-3", there, READY)])
    for family in FAMILIES:
        for net in ("out", "client", "node"):
            wait_for(f"{net} to be told", lambda f=family, n=net: count(env, f, n) == (200, 2))
        status, headers, body = get(env.lab, "out", NODE[family], CHECK, "/any/path?x=1")
        expect(status == 200 and json.loads(body) == {
            "service": {"namespace": "default", "name": "lb"}, "localEndpoints": 2,
            "serviceProxyHealthy": True}, status, body)
        expect((headers["content-type"], headers["x-content-type-options"],
                headers["x-load-balancing-endpoint-weight"]) ==
               ("application/json", "nosniff", "2"), headers)
    put(env, "lb", 0x601, [("web-1", here, READY), ("web-2", here, DRAINING)])
    for family in FAMILIES:
        wait_for("one", lambda f=family: count(env, f) == (200, 1))
    put(env, "lb", 0x601, [("web-1", here, DRAINING), ("web-3", there, READY)])
    for family in FAMILIES:
        wait_for("none", lambda f=family: count(env, f) == (503, 0))
        expect(get(env.lab, "out", NODE[family], CHECK)[1]["x-load-balancing-endpoint-weight"] ==
               "0", "weight")


@test("full")
def a_health_check_port_follows_its_service(env):
    here, other = [("web-1", env.lab.node_name, READY)], CHECK + 1
    put(env, "lb", 0x602, here)
    wait_for("the port", lambda: count(env, 0) == (200, 1))
    put(env, "lb", 0x602, here, check=other)
    wait_for("the new port", lambda: count(env, 0, number=other) == (200, 1))
    expect(not count(env, 0) and not count(env, 1), "the old port still answers")
    # another Service takes the port in the turn in which it is given up
    put(env, "lb", 0x602, here, kind="NodePort", check=None)
    put(env, "lb2", 0x603, [], check=other)
    wait_for("the other Service", lambda: count(env, 1, number=other) == (503, 0))
    put(env, "lb2", 0x603, here, check=other, families=(1,))
    wait_for("IPv4 to be left", lambda: not count(env, 0, number=other))
    wait_for("IPv6 to stay", lambda: count(env, 1, number=other) == (200, 1))
    put(env, "lb2", 0x603, here, check=other, local=False)
    wait_for("policy Cluster", lambda: not count(env, 1, number=other))
    put(env, "lb2", 0x603, here, check=other)
    wait_for("policy Local", lambda: count(env, 0, number=other) == (200, 1))
    env.lab.remove("lb2.yaml")
    wait_for("the end", lambda: not count(env, 0, number=other) and not count(env, 1, number=other))


def metric(env, name):
    lines = [line for line in env.lab.http("/metrics")[1].splitlines() if line.startswith(name)]
    return lines[0].rsplit(" ", 1)[1] if lines else None


@test("full")
def a_taken_health_check_port_is_told_and_taken_later(env):
    lab = env.lab
    holder = lab.background("node", "echo", "--label", "holder", "--port", CHECK, name="holder")
    try:
        put(env, "lb", 0x604, [("web-1", lab.node_name, READY)])
        want = f"Service default/lb: healthCheckNodePort {CHECK} of IPv4: in use"
        wait_for("the report", lambda: want in lab.log("agent"))
        wait_for("the metric", lambda: metric(
            env, 'waggle_health_check_ports{state="failed"}') != "0")
        expect(lab.http("/healthz")[0] == 200, "the agent is disturbed")
    finally:
        lab.stop(holder)
    wait_for("the port", lambda: count(env, 0) == (200, 1) and count(env, 1) == (200, 1), 20)
    wait_for("the metric", lambda: metric(env, 'waggle_health_check_ports{state="failed"}') == "0")


def node_object(env, **kw):
    meta = {"name": env.lab.node_name, **kw.get("metadata", {})}
    env.lab.write("node.yaml", json.dumps({
        "apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": kw.get("spec", {}),
        "status": {"addresses": [{"type": "InternalIP", "address": NODE4}]}}))


@test("full")
def healthz_drains_a_node_that_goes(env):
    lab = env.lab
    wait_for("healthz", lambda: get(lab, "out", NODE4, 10256, "/healthz")[0] == 200)
    for addr in NODE:
        for path, keys in (("/healthz", {"lastUpdated", "currentTime", "nodeEligible"}),
                           ("/livez", {"lastUpdated", "currentTime"})):
            status, headers, body = get(lab, "out", addr, 10256, path)
            expect(status == 200 and set(json.loads(body)) == keys, path, status, body)
            expect((headers["content-type"], headers["x-content-type-options"]) ==
                   ("application/json", "nosniff"), headers)
        expect(get(lab, "out", addr, 10256, "/")[0] == 404, "any path")
    taint = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule", "value": "1"}
    try:
        for going in ({"spec": {"taints": [{"key": "other"}, taint]}},
                      {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}):
            node_object(env)
            wait_for("eligible", lambda: get(lab, "out", NODE4, 10256, "/healthz")[0] == 200)
            node_object(env, **going)
            wait_for("draining", lambda: get(lab, "out", NODE6, 10256, "/healthz")[0] == 503)
            body = json.loads(get(lab, "out", NODE4, 10256, "/healthz")[2])
            expect(body["nodeEligible"] is False, body)
            expect(get(lab, "out", NODE4, 10256, "/livez")[0] == 200, "livez follows")
    finally:
        lab.remove("node.yaml")
    wait_for("eligible again", lambda: get(lab, "out", NODE4, 10256, "/healthz")[0] == 200)


@test("full")
def kube_proxys_metrics_have_numbers(env):
    lab = env.lab
    found = objects(env, "lb", 0x605, [("web-1", "node-2", READY)])
    now = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    for piece in found[1:]:
        piece["metadata"]["annotations"] = {
            "endpoints.kubernetes.io/last-change-trigger-time": now}
    name = "kubeproxy_network_programming_duration_seconds"
    before = float(metric(env, f"{name}_count"))
    env.services.append("lb")
    lab.write("lb.yaml", "---\n".join(json.dumps(o) + "\n" for o in found))
    wait_for("both slices to be counted",
             lambda: float(metric(env, f"{name}_count")) == before + 2)
    expect(0 < float(metric(env, f"{name}_sum")) < 60, metric(env, f"{name}_sum"))
    none = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
    expect(metric(env, f'{none}{{traffic_policy="external"}}') == "2", "not local")
    expect(float(metric(env, "kubeproxy_sync_proxy_rules_duration_seconds_count")) > 0, "runs")
    last = float(metric(env, "kubeproxy_sync_proxy_rules_last_timestamp_seconds"))
    expect(abs(last - datetime.now().timestamp()) < 60, last)
    put(env, "lb", 0x605, [("web-1", lab.node_name, READY)])
    wait_for("local", lambda: metric(env, f'{none}{{traffic_policy="external"}}') == "0")


@test("full")
def a_health_check_port_is_where_node_ports_are(env):
    lab = env.lab
    args = list(lab.agent_args)
    lab.kill_agent()
    lab.start_agent(*args, "--nodeport-addresses=10.90.0.0/24")
    try:
        put(env, "lb", 0x606, [("web-1", lab.node_name, READY)])
        wait_for("the port", lambda: count(env, 0) == (200, 1))
        wait_for("the other family", lambda: count(env, 1) == (200, 1))
        expect(get(lab, "node", "127.0.0.1", CHECK)[0] == 404, "on 127.0.0.1")
    finally:
        lab.kill_agent()
        lab.start_agent(*args)
