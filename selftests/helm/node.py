# SPDX-License-Identifier: Apache-2.0
"""A node that runs a pod of the rendered DaemonSet from the image's files: a host with a file
system, mount, cgroup and PID namespaces of its own, on the network namespace "node" of netlab."""
import json
import os
import shutil
import sys

import suite
from netlab import LabError, wait_for

CONTAINER = os.path.join(suite.HERE, "container.py")
SECRETS = "/run/secrets/kubernetes.io/serviceaccount"
# Everything a host has that the pod asks for, and a busybox to be process 1.
HOST_INIT = """
set -e
cd "$1"
mount --make-rprivate /
mount --bind . .
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
pivot_root . old
exec ./bin/busybox sh -c '/bin/busybox umount -l /old && echo up && exec /bin/busybox sleep 1000000'
"""


class Node:
    def __init__(self, lab, objects, image_root):
        self.lab, self.objects = lab, objects
        self.spec = suite.agent_of(objects)
        self.root = lab.path("host")
        for path in ("bin", "proc", "sys", "old", "run", "var/lib", "etc/cni/net.d", "opt/cni/bin",
                     "tmp", "pod/secrets"):
            os.makedirs(os.path.join(self.root, path))
        shutil.copy(shutil.which("busybox"), os.path.join(self.root, "bin", "busybox"))
        shutil.copytree(image_root, os.path.join(self.root, "image"), symlinks=True)
        self.init = lab.start("node", ["unshare", "--mount", "--pid", "--cgroup", "--fork",
                                       "--kill-child", "sh", "-c", HOST_INIT, "host", self.root],
                              name="host")
        wait_for("a host", lambda: "up" in lab.log("host") or self.init.poll() is not None, 10)
        if self.init.poll() is not None:
            raise LabError(f"host: {lab.log('host')}")
        with open(f"/proc/{self.init.pid}/task/{self.init.pid}/children", encoding="utf-8") as f:
            self.pid = int(f.read().split()[0])

    def path(self, *parts):
        """A file of the host, as the tests see it."""
        return os.path.join(f"/proc/{self.pid}/root", *(p.lstrip("/") for p in parts))

    def secrets(self, token, ca):
        """What the kubelet mounts of the service account."""
        for name, text in (("token", token), ("ca.crt", ca), ("namespace", "kube-system")):
            with open(os.path.join(self.root, "pod/secrets", name), "w", encoding="utf-8") as f:
                f.write(text)

    def volume(self, name):
        """The host's folder of a volume, made as the kubelet makes it."""
        volume = next(v for v in self.spec["volumes"] if v["name"] == name)
        if "hostPath" in volume:
            path = volume["hostPath"]["path"]
            if volume["hostPath"]["type"] == "DirectoryOrCreate":
                os.makedirs(self.path(path), exist_ok=True)
            if not os.path.isdir(self.path(path)):
                raise LabError(f"volume {name}: {path} is no folder of the host")
            return path
        where = f"/pod/{name}"
        os.makedirs(self.path(where), exist_ok=True)
        config = self.objects.get(("ConfigMap", volume["configMap"]["name"]))
        for key, text in (config["data"] if config else {}).items():
            with open(self.path(where, key), "w", encoding="utf-8") as f:
                f.write(text)
        return where

    def env(self, container):
        env = {"PATH": "/usr/bin"}
        for entry in container.get("env", []):
            if "value" in entry:
                env[entry["name"]] = entry["value"]
            elif entry["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName":
                env[entry["name"]] = self.lab.node_name
        return env

    def description(self, container, extra_args, caps, argv=None):
        mounts = [{"from": self.volume(m["name"]), "to": m["mountPath"], "ro": m.get("readOnly")}
                  for m in container["volumeMounts"]]
        mounts.append({"from": "/pod/secrets", "to": SECRETS, "ro": True})
        context = container["securityContext"]
        if caps is None and not context.get("privileged"):
            caps = context["capabilities"].get("add", [])
        argv = argv or container["command"] + container.get("args", []) + list(extra_args)
        return json.dumps({"host": self.pid, "root": "/image", "argv": argv, "caps": caps,
                           "env": self.env(container), "mounts": mounts})

    def start(self, name, extra_args=(), caps=None):
        """Starts a container of the pod. caps: other capabilities than it asks for."""
        container = next(c for c in self.spec["initContainers"] + self.spec["containers"]
                         if c["name"] == name)
        return self.lab.start("node", [sys.executable, CONTAINER,
                                       self.description(container, extra_args, caps)], name=name)

    def run(self, name, caps=None):
        """Runs an init container to its end; (exit status, what it wrote)."""
        size = len(self.lab.log(name)) if name in self.lab.logs else 0
        code = self.start(name, caps=caps).wait(30)
        return code, self.lab.log(name)[size:]

    def mounts(self):
        """{mount point: type} of the host."""
        with open(f"/proc/{self.pid}/mounts", encoding="utf-8") as f:
            return {line.split()[1]: line.split()[2] for line in f}

    def child(self, proc):
        """The container's own process, of which proc is the runtime."""
        with open(f"/proc/{proc.pid}/task/{proc.pid}/children", encoding="utf-8") as f:
            found = f.read().split()
        return int(found[0]) if found else None

    def inside(self, *argv):
        """A command line for the host: its namespaces, and the node's network."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", *argv]

    def sandbox(self):
        """A pod's network namespace, held by a process; its path on the host."""
        proc = self.lab.start("node", self.inside("/bin/busybox", "unshare", "-n", "/bin/busybox",
                                                  "sleep", "1000"), name="sandbox")
        pid = wait_for("a sandbox", lambda: self.child(proc))
        wait_for("its own network", lambda: os.readlink(f"/proc/{pid}/ns/net") != os.readlink(
            f"/proc/{self.pid}/ns/net"))
        with open(f"/proc/{pid}/status", encoding="utf-8") as f:
            inner = next(line for line in f if line.startswith("NSpid:")).split()[-1]
        return f"/proc/{inner}/ns/net"

    def cni(self, command, netns, args=""):
        """The installed plugin with the installed network, as the runtime calls it."""
        with open(self.path("/etc/cni/net.d/05-waggle.conflist"), encoding="utf-8") as f:
            network = json.load(f)
        config = {"cniVersion": network["cniVersion"], "name": network["name"],
                  **network["plugins"][0]}
        env = {"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_CONTAINERID": "c1",
               "CNI_NETNS": netns, "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
               "CNI_ARGS": args}
        out = self.lab.sh("node", self.inside("/opt/cni/bin/waggle-cni"), env=env,
                          input=json.dumps(config))
        return json.loads(out or "null")

    def exec(self, *argv):
        """kubectl exec: a command in the agent's container; its standard output."""
        agent = self.spec["containers"][0]
        return self.lab.sh("node", [sys.executable, CONTAINER,
                                    self.description(agent, (), None, list(argv))])
