#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The chart against kube-apiserver: every object of every set of values is taken, helm installs it
(dry run), and the agent reads all it needs with the token of its own service account."""
import json
import os
import subprocess
import sys
import time

import suite
import test_chart
import test_image
import real_apiserver
from cluster import TOKEN, Client, KubeLab, RealPlane
from netlab import OUT4, LabError, wait_for
from node import Node

NS = "kube-system"
PATHS = {
    "ServiceAccount": f"/api/v1/namespaces/{NS}/serviceaccounts",
    "ConfigMap": f"/api/v1/namespaces/{NS}/configmaps",
    "Service": f"/api/v1/namespaces/{NS}/services",
    "DaemonSet": f"/apis/apps/v1/namespaces/{NS}/daemonsets",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NS}/roles",
    "RoleBinding": f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NS}/rolebindings",
}
STEADY_S = 5        # all watches have been opened by then


class RbacPlane(RealPlane):
    authorization = "RBAC"
    more_flags = ("--allow-privileged=true",)
    ready_path = f"/api/v1/namespaces/{NS}"


class World:
    def __init__(self, lab, helm):
        self.lab, self.helm = lab, helm
        lab.start_plane()
        self.client = Client(lab.plane)
        self.kubeconfig = lab.plane.kubeconfig("admin.kubeconfig", lab.plane.url, {"token": TOKEN})

    def create(self, objects, query=""):
        for (kind, name), obj in objects.items():
            try:
                self.client.call("POST", PATHS[kind] + query, obj)
            except LabError as e:
                raise LabError(f"{kind} {name}: {e}") from e


def test_server_takes_every_object(world):
    """Server-side dry run, in which unknown and doubled fields are errors."""
    count = 0
    for name, values, _ in test_chart.MATRIX:
        objects = world.helm.render(values, "--kube-version", real_apiserver.KUBERNETES)
        try:
            world.create(objects, "?dryRun=All&fieldValidation=Strict")
        except LabError as e:
            raise LabError(f"{name}: {e}") from e
        count += len(objects)
    return f"{count} objects of {len(test_chart.MATRIX)} sets of values"


def install(world, *settings):
    argv = [world.helm.path, "install", "waggle", suite.CHART, "-n", NS, "--dry-run=server",
            "--kubeconfig", world.kubeconfig]
    for setting in settings:
        argv += ["--set", setting]
    return world.lab.sh("out", argv, env={**os.environ, "HOME": world.lab.tmp})


def test_helm_install(world):
    out = install(world, "k8sServiceHost=10.0.0.1", "k8sServicePort=6443")
    notes = out.partition("NOTES:")[2]
    assert "at 10.0.0.1 port 6443" in notes and "WARNING" not in notes, notes


def test_notes_warn_of_an_agent_that_needs_itself(world):
    notes = install(world).partition("NOTES:")[2]
    assert "WARNING" in notes and "k8sServiceHost=auto" in notes, notes


def test_api_server_found_by_itself(world):
    """k8sServiceHost=auto, as kubeadm leaves it in kube-public."""
    try:
        install(world, "k8sServiceHost=auto")
        raise AssertionError("found without cluster-info")
    except LabError as e:
        assert "cluster-info cannot be read" in str(e), e
    kubeconfig = json.dumps({"clusters": [{"name": "", "cluster": {
        "server": "https://api.example:7443"}}]})
    world.client.call("POST", "/api/v1/namespaces/kube-public/configmaps", {
        "metadata": {"name": "cluster-info"}, "data": {"kubeconfig": kubeconfig}})
    out = install(world, "k8sServiceHost=auto")
    assert '{name: KUBERNETES_SERVICE_HOST, value: "api.example"}' in out, out
    assert '{name: KUBERNETES_SERVICE_PORT, value: "7443"}' in out, out


def start_agent(world, ipam):
    """With the service account's own token, on a node of the cluster."""
    lab = world.lab
    world.objects = world.helm.render({
        "k8sServiceHost": OUT4, "k8sServicePort": 6443, "devices": "eth0",
        "ipam": {"mode": ipam}, "bpf": {"lbMapMax": 1024, "ctTcpMax": 1024, "ctAnyMax": 1024}})
    world.create(world.objects)
    world.client.call("POST", "/api/v1/nodes", {
        "metadata": {"name": lab.node_name}, "spec": {"podCIDR": "10.244.0.0/24",
                                                       "podCIDRs": ["10.244.0.0/24"]}})
    answer = world.client.call("POST", f"{PATHS['ServiceAccount']}/waggle/token",
                               {"spec": {"expirationSeconds": 3600}})
    image, _ = test_image.make(lab.tmp)
    node = Node(lab, world.objects, test_image.Image(image).unpack(lab.tmp))
    with open(lab.plane.file("ca.crt"), encoding="utf-8") as f:
        node.secrets(answer["status"]["token"], f.read())
    for container in node.spec["initContainers"]:
        assert node.run(container["name"])[0] == 0, lab.log(container["name"])
    return node, node.start("waggle-agent")


def test_service_account_suffices(world):
    node, agent = start_agent(world, "cluster-pool")
    url = "http://127.0.0.1:9879/readyz"

    def ready():
        if agent.poll() is not None:
            raise LabError("the agent ended: " + world.lab.log("waggle-agent")[-800:])
        return world.lab.sh("node", ["curl", "-s", "-m", "5", url], check=False) == "ok\n"
    wait_for("a ready agent", ready, 30, 0.1)
    end = time.monotonic() + STEADY_S
    while time.monotonic() < end:
        log = world.lab.log("waggle-agent").splitlines()
        refused = [line for line in log if "403" in line or "forbidden" in line.lower()]
        assert not refused, refused[0]
        time.sleep(0.2)
    leases = world.client.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/{NS}/leases")
    names = [lease["metadata"]["name"] for lease in leases["items"]]
    assert any(n.startswith("waggle-ipam-") for n in names), f"no block was claimed: {names}"
    found = world.client.call("GET", f"/api/v1/nodes/{world.lab.node_name}")
    assert "waggle.io/pod-cidrs" in found["metadata"].get("annotations", {}), found["metadata"]
    assert os.path.exists(node.path("/etc/cni/net.d/05-waggle.conflist"))


TESTS = [test_server_takes_every_object, test_helm_install,
         test_notes_warn_of_an_agent_that_needs_itself, test_api_server_found_by_itself,
         test_service_account_suffices]


def main():
    helm = suite.wants_helm("api")
    if not helm:
        return 0
    why_not = real_apiserver.why_not()
    if why_not:
        print(f"skipped: helm/api: {why_not}", flush=True)
        return 0
    real_apiserver.build()
    with KubeLab(RbacPlane, suite.BUILD) as lab:
        code = suite.run_tests("api", TESTS, World(lab, helm))
        if code:
            lab.show_logs()
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, OSError, subprocess.TimeoutExpired) as e:
        print(f"FAIL helm/api: {' '.join(str(e).split())}", flush=True)
        sys.exit(1)
