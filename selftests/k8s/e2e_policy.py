# SPDX-License-Identifier: Apache-2.0
"""What the agent says to the cluster: Events of what it refuses or cannot have."""
from cluster import SERVICE_API, rss_kib, service
from netlab import LabError, wait_for

POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
EVENTS = "/api/v1/namespaces/default/events"
CHECK = 32123
GROWTH_MAX_KIB = 8 * 1024


def expect(condition, *what):
    if not condition:
        raise LabError(" ".join(str(w) for w in what))


def policy(name, cidrs, ports):
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [
                {"from": [{"ipBlock": {"cidr": c}} for c in cidrs],
                 "ports": [{"port": p, "protocol": "TCP"} for p in ports]}]}}


def events(client, reason, name):
    return [e for e in client.call("GET", EVENTS)["items"]
            if e["reason"] == reason and e["involvedObject"]["name"] == name]


def reaches(lab, net, pod):
    return lab.connect(net, lab.pods[pod][0], 8080, timeout_ms=300)["is"] == "ok"


def refused(lab):
    return next(int(line.split()[1]) for line in lab.http("/metrics")[1].splitlines()
                if line.startswith("waggle_policies_refused "))


def refused_policies(suite):
    """One that does not fit: it is named everywhere, and what was in force is."""
    lab, client = suite.lab, suite.client
    mine, outside = f"{lab.pods['client'][0]}/32", "10.90.0.0/24"
    # etcd takes objects of 1.5 MB.
    many = [i % 32768 * 2 + 1 for i in range(15000 if lab.plane.kind == "real" else 100000)]
    uid = client.call("POST", POLICIES, policy("guard", [mine], [8080]))["metadata"]["uid"]
    try:
        wait_for("the policy", lambda: reaches(lab, "client", "web-1")
                 and not reaches(lab, "out", "web-1"))
        before = rss_kib(lab.agent.pid)[0]
        for _ in range(3):                            # the same again is no news
            client.call("PUT", f"{POLICIES}/guard", policy("guard", [outside], many))
        wait_for("the Event", lambda: events(client, "PolicyRefused", "guard"))
        event = events(client, "PolicyRefused", "guard")[0]
        expect(event["involvedObject"]["uid"] == uid and event["type"] == "Warning", event)
        expect(f"not in force on node {lab.node_name}: it has 1 peers and {len(many)} ports" in
               event["message"] and "its last version is" in event["message"], event)
        status, body = lab.http("/readyz")
        expect(status == 503 and "NetworkPolicy default/guard is not in force" in body, body)
        expect(refused(lab) == 1, "the metric:", refused(lab))
        client.call("POST", POLICIES, policy("other", [outside], [8081]))
        expect(reaches(lab, "client", "web-1") and not reaches(lab, "out", "web-1"),
               "what was in force is not")
        def grown():
            return rss_kib(lab.agent.pid)[0] - before
        try:
            wait_for("memory to go back", lambda: grown() < GROWTH_MAX_KIB)
        except LabError as e:
            raise LabError(f"{e}: {grown()} KiB more") from e
        client.call("PUT", f"{POLICIES}/guard", policy("guard", [outside], [8080]))
        wait_for("the mended one", lambda: reaches(lab, "out", "web-1")
                 and not reaches(lab, "client", "web-1"))
        expect(refused(lab) == 0 and lab.http("/readyz")[0] == 200, lab.http("/readyz")[1])
        expect(len(events(client, "PolicyRefused", "guard")) == 1,
               events(client, "PolicyRefused", "guard"))
    finally:
        for name in ("guard", "other"):
            client.call("DELETE", f"{POLICIES}/{name}", ok=(200, 404))
    wait_for("all to be open", lambda: reaches(lab, "client", "web-1")
             and reaches(lab, "out", "web-1"))
    return f"{len(many)} ports"


def taken_health_check_port(suite):
    lab, client = suite.lab, suite.client
    holder = lab.background("node", "echo", "--label", "holder", "--port", CHECK, name="holder")
    svc = service("checked", suite.new_vips())
    svc["spec"].update({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
                        "healthCheckNodePort": CHECK})
    try:
        uid = client.call("POST", SERVICE_API, svc)["metadata"]["uid"]
        wait_for("the Event", lambda: events(client, "HealthCheckPortTaken", "checked"))
        event = events(client, "HealthCheckPortTaken", "checked")[0]
        expect(event["involvedObject"]["kind"] == "Service"
               and event["involvedObject"]["uid"] == uid, event)
        expect(f"healthCheckNodePort {CHECK} of IPv4: in use" in event["message"], event)
    finally:
        lab.stop(holder)
        client.delete(svc)
