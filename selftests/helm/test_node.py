#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A pod of the rendered DaemonSet on a node, run from the image's files with exactly what it asks
for: capabilities, mounts, environment, configuration. The API server is the one in memory."""
import json
import os
import subprocess
import sys
import time

import suite
import test_image
from container import CAPS
from cluster import TOKEN, Client, MemoryPlane, KubeLab
from netlab import OUT4, LabError, wait_for
from node import Node

CONF = "/etc/cni/net.d/05-waggle.conflist"
VALUES = {"k8sServiceHost": OUT4, "k8sServicePort": 6443, "hubble": {"enabled": True},
          "prometheus": {"enabled": True}, "devices": "eth0", "bpf": {"lbMapMax": 1024,
                                                                     "ctTcpMax": 1024,
                                                                     "ctAnyMax": 1024},
          "ipMasqAgent": {"enabled": True, "config": {"nonMasqueradeCIDRs": ["198.51.100.0/24"]}},
          "cni": {"uninstall": True}}
OTHER = '{"cniVersion":"0.4.0","name":"cbr0","type":"bridge"}'


class World:
    def __init__(self, lab, helm):
        self.lab = lab
        image, _ = test_image.make(lab.tmp)
        self.objects = helm.render(VALUES)
        self.node = Node(lab, self.objects, test_image.Image(image).unpack(lab.tmp))
        self.agent = None
        self.plane = MemoryPlane(lab)
        with open(self.plane.file("ca.crt"), encoding="utf-8") as f:
            self.node.secrets(TOKEN, f.read())

    def start_plane(self):
        self.plane.start()
        Client(self.plane).call("POST", "/api/v1/nodes", {
            "metadata": {"name": self.lab.node_name},
            "spec": {"podCIDR": "10.244.0.0/24",
                     "podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"]}})

    def probe(self, kind):
        """The HTTP status of a probe as the DaemonSet describes it; 0: no answer."""
        get = suite.agent_of(self.objects)["containers"][0][f"{kind}Probe"]["httpGet"]
        return self.get(f"http://{get['host']}:{get['port']}{get['path']}")[0]

    def get(self, url, net="node"):
        out = self.lab.sh(net, ["curl", "-s", "-m", "5", "-w", "\n%{http_code}", url], check=False)
        body, _, code = out.rpartition("\n")
        return int(code or 0), body

    def start_agent(self, *args, **kw):
        self.agent = self.node.start("waggle-agent", args, **kw)

    def until(self, kind, status, seconds=30):
        def there():
            if self.agent.poll() is not None:
                raise LabError("the agent ended: " + self.lab.log("waggle-agent")[-800:])
            return self.probe(kind) == status
        wait_for(f"{kind} probe {status}", there, seconds, 0.05)

    def stop_agent(self):
        """As the kubelet does: SIGTERM, and its grace period."""
        os.kill(self.node.child(self.agent), 15)
        self.agent.wait(10)


def test_init_containers_need_their_capabilities(world):
    node = world.node
    for name in ("mount-cgroup", "mount-bpf-fs"):
        asked = node.spec["initContainers"][0]["securityContext"]["capabilities"]["add"]
        for cap in asked:
            code, said = node.run(name, [c for c in asked if c != cap])
            assert code != 0, f"{name} without {cap}: {said}"
    assert "/sys/fs/bpf" not in node.mounts()


def test_init_containers(world):
    node = world.node
    for container in node.spec["initContainers"]:
        for _ in range(2):                  # a pod that starts anew does it all again
            code, said = node.run(container["name"])
            assert code == 0, f"{container['name']}: {said}"
    mounts = node.mounts()
    assert mounts["/sys/fs/bpf"] == "bpf" and mounts["/run/waggle/cgroup2"] == "cgroup2", mounts
    # The host's root of cgroups, not that of a container below.
    with open(node.path("/run/waggle/cgroup2/cgroup.procs"), encoding="utf-8") as f:
        assert str(node.pid) in f.read().split()
    assert os.listdir(node.path("/opt/cni/bin")) == ["waggle-cni"]
    done = subprocess.run([node.path("/opt/cni/bin/waggle-cni")], text=True, capture_output=True,
                          env={"CNI_COMMAND": "VERSION"}, input='{"cniVersion":"1.0.0"}',
                          check=False)
    assert "1.1.0" in done.stdout, done


def test_no_network_before_the_agent_is_ready(world):
    with open(world.node.path("/etc/cni/net.d/10-bridge.conf"), "w", encoding="utf-8") as f:
        f.write(OTHER)
    world.start_agent()
    world.until("liveness", 200)
    assert world.probe("readiness") == 503
    assert os.listdir(world.node.path("/etc/cni/net.d")) == ["10-bridge.conf"]


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return dict(line.split(":\t", 1) for line in f if ":\t" in line)


def test_ready_with_exactly_what_it_asks_for(world):
    world.start_plane()
    world.until("readiness", 200)
    wait_for(CONF, lambda: os.path.exists(world.node.path(CONF)))
    wait_for("the other network aside", lambda: not os.path.exists(
        world.node.path("/etc/cni/net.d/10-bridge.conf")))
    with open(world.node.path(CONF), encoding="utf-8") as f:
        network = json.load(f)
    assert network["plugins"][0]["type"] == "waggle-cni", network
    with open(world.node.path("/var/lib/waggle/ipam/node.json"), encoding="utf-8") as f:
        assert json.load(f)["ranges"] == [["10.244.0.0/24"]], "ipv6.enabled is false"
    own, status = status_of("self"), status_of(world.node.child(world.agent))
    asked = world.node.spec["containers"][0]["securityContext"]["capabilities"]["add"]
    wanted = sum(1 << CAPS[c] for c in asked) & int(own["CapBnd"], 16)
    assert int(status["CapEff"], 16) == wanted, status["CapEff"]
    assert status["NoNewPrivs"].strip() == "1"
    return " ".join(asked)


def test_file_of_ip_masq_agent_is_read(world):
    tables = ("/usr/bin/waggle", "bpf", "map", "dump", "wag_cidr", "-o", "json")
    wait_for("its range in wag_cidr", lambda: "198.51.100.0" in world.node.exec(*tables), 10)


def test_programs_of_the_image_work_beside_it(world):
    status = json.loads(world.node.exec("/usr/bin/waggle", "status", "-o", "json"))
    assert status, status
    assert "kubernetes" in world.node.exec("/usr/bin/waggle", "service", "list")


def test_pod_is_wired_with_what_was_installed(world):
    netns = world.node.sandbox()
    pod = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c1"
    result = world.node.cni("ADD", netns, pod)
    address = result["ips"][0]["address"]
    assert len(result["ips"]) == 1 and address.startswith("10.244.0."), result
    assert "default/web" in world.node.exec("/usr/bin/waggle", "endpoint", "list")
    world.lab.sh("node", ["ping", "-c", "1", "-W", "5", address.split("/")[0]])
    world.node.cni("DEL", netns, pod)
    assert "default/web" not in world.node.exec("/usr/bin/waggle", "endpoint", "list")
    return address


def test_metrics_from_another_machine(world):
    code, body = world.get("http://10.90.0.1:9962/metrics", "out")
    assert code == 200 and "waggle_" in body, (code, body[:200])
    assert world.get("http://10.90.0.1:9962/readyz", "out")[0] == 404
    assert world.get("http://10.90.0.1:9879/healthz", "out")[0] == 0


def tables(world):
    """The ids of what is pinned."""
    found = json.loads(world.node.exec("/usr/bin/waggle", "bpf", "map", "list", "-o", "json"))
    assert len(found) > 10, found
    return {m["name"]: m["id"] for m in found}


def network_file(world):
    st = os.stat(world.node.path(CONF))
    return st.st_ino, st.st_mtime_ns


def test_killed_and_started_anew_it_takes_over(world):
    before = network_file(world), tables(world)
    os.kill(world.node.child(world.agent), 9)
    world.agent.wait(10)
    assert os.path.exists(world.node.path(CONF))
    world.start_agent()
    world.until("readiness", 200)
    assert network_file(world) == before[0], "the network's file was written again"
    now = tables(world)
    anew = [name for name in before[1] if now.get(name) != before[1][name]]
    assert not anew, f"made anew: {anew}"


def test_network_is_kept_whatever_others_do(world):
    folder = world.node.path("/etc/cni/net.d")
    with open(os.path.join(folder, "20-late.conflist"), "w", encoding="utf-8") as f:
        f.write(OTHER)
    wait_for("the late network aside", lambda: sorted(os.listdir(folder)) == [
        "05-waggle.conflist", "10-bridge.conf.waggle_bak", "20-late.conflist.waggle_bak"])
    os.unlink(world.node.path(CONF))
    wait_for("the network again", lambda: os.path.exists(world.node.path(CONF)))
    os.unlink(os.path.join(folder, "20-late.conflist.waggle_bak"))


def test_uninstall_gives_the_other_network_back(world):
    world.stop_agent()
    assert os.listdir(world.node.path("/etc/cni/net.d")) == ["10-bridge.conf"]
    with open(world.node.path("/etc/cni/net.d/10-bridge.conf"), encoding="utf-8") as f:
        assert f.read() == OTHER


def gets_ready(world, caps, seconds=8):
    """Does an agent with these capabilities, on a node where nothing of Waggle is?"""
    world.node.exec("/usr/bin/waggle-agent", "--config-dir=/etc/waggle", "--cleanup")
    world.lab.sysctl("node", "net.ipv4.ip_forward=0")
    world.start_agent(caps=caps)
    deadline = time.monotonic() + seconds
    while world.agent.poll() is None and time.monotonic() < deadline:
        if world.probe("readiness") == 200:
            world.stop_agent()
            return True
        time.sleep(0.1)
    if world.agent.poll() is None:
        world.stop_agent()
    return False


def test_agent_needs_each_capability(world):
    release = tuple(int(n) for n in os.uname().release.split(".")[:2])
    asked = world.node.spec["containers"][0]["securityContext"]["capabilities"]["add"]
    tried = [c for c in asked if c != "SYS_RESOURCE" or release < (5, 11)]
    for cap in tried:
        assert not gets_ready(world, [c for c in asked if c != cap]), \
            f"the agent gets ready without {cap}: do not ask for it"
    assert gets_ready(world, asked, 30), "not with all of them either"
    return " ".join(tried)


TESTS = [test_init_containers_need_their_capabilities, test_init_containers,
         test_no_network_before_the_agent_is_ready, test_ready_with_exactly_what_it_asks_for,
         test_file_of_ip_masq_agent_is_read, test_programs_of_the_image_work_beside_it,
         test_pod_is_wired_with_what_was_installed, test_metrics_from_another_machine,
         test_killed_and_started_anew_it_takes_over, test_network_is_kept_whatever_others_do,
         test_uninstall_gives_the_other_network_back,
         test_agent_needs_each_capability]


def main():
    helm = suite.wants_helm("node")
    if not helm:
        return 0
    with KubeLab(MemoryPlane, suite.BUILD) as lab:
        code = suite.run_tests("node", TESTS, World(lab, helm))
        if code:
            lab.show_logs()
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, OSError) as e:
        print(f"FAIL helm/node: {' '.join(str(e).split())}", flush=True)
        sys.exit(1)
