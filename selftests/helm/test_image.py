#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The image: made without a daemon, the same each time, and its programs run."""
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile

import suite
from suite import BUILD, SRC

BUILDER = os.path.join(SRC, "helm", "image", "build")
MOST_MB = 40
PROGRAMS = ("/usr/bin/waggle-agent", "/usr/bin/waggle", "/usr/bin/flow-observe",
            "/usr/libexec/waggle/waggle-cni")


class Image:
    """An archive of helm/image/build, read as a container runtime reads it."""

    def __init__(self, path):
        with tarfile.open(path) as tar:
            self.files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
        self.index = json.loads(self.files["index.json"])
        self.manifest = json.loads(self.blob(self.index["manifests"][0]))
        self.config = json.loads(self.blob(self.manifest["config"]))

    def blob(self, descriptor):
        data = self.files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert len(data) == descriptor["size"], f"{descriptor}: {len(data)} bytes"
        assert descriptor["digest"] == "sha256:" + hashlib.sha256(data).hexdigest()
        return data

    def unpack(self, where):
        path = os.path.join(where, "layer.tar.gz")
        with open(path, "wb") as f:
            f.write(self.blob(self.manifest["layers"][0]))
        root = os.path.join(where, "rootfs")
        os.mkdir(root)
        subprocess.run(["tar", "-xzpf", path, "-C", root, "--numeric-owner"], check=True)
        os.unlink(path)
        return root


def make(where, name="image.tar"):
    path = os.path.join(where, name)
    done = subprocess.run([BUILDER, "--build-dir", BUILD, "--output", path], capture_output=True,
                          text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return path, done.stdout.strip()


def test_same_build_same_bytes(where):
    first, said = make(where)
    second, _ = make(where, "again.tar")
    with open(first, "rb") as a, open(second, "rb") as b:
        assert a.read() == b.read(), "two archives of one build differ"
    os.unlink(second)
    size = float(re.search(r", ([\d.]+) MB,", said).group(1))
    assert size <= MOST_MB, f"{size} MB, at most {MOST_MB} are fine"
    return said.split(": ", 1)[1]


def test_archive_for_docker_and_OCI(where):
    image = Image(os.path.join(where, "image.tar"))
    assert json.loads(image.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    docker = json.loads(image.files["manifest.json"])[0]
    assert docker["Config"].endswith(image.manifest["config"]["digest"][7:])
    assert docker["Layers"][0].endswith(image.manifest["layers"][0]["digest"][7:])
    name = image.index["manifests"][0]["annotations"]["io.containerd.image.name"]
    assert docker["RepoTags"] == [name]
    assert len(image.config["rootfs"]["diff_ids"]) == 1


def test_says_what_the_Dockerfile_says(where):
    image = Image(os.path.join(where, "image.tar"))
    with open(os.path.join(SRC, "Dockerfile"), encoding="utf-8") as f:
        text = f.read()
    labels = dict(re.findall(r'^LABEL ([\w.]+)="(.*)"$', text, re.M))
    assert len(labels) == text.count("\nLABEL ") and image.config["config"]["Labels"] == labels
    assert f'ENTRYPOINT {json.dumps(image.config["config"]["Entrypoint"])}' in text
    assert "helm/image/rootfs /build /rootfs" in text, "another layout than helm/image/build"
    with open(os.path.join(BUILD, "meson-info", "intro-projectinfo.json"), encoding="utf-8") as f:
        version = json.load(f)["version"]
    with open(os.path.join(suite.CHART, "Chart.yaml"), encoding="utf-8") as f:
        chart = suite.yaml.safe_load(f)
    assert labels["org.opencontainers.image.version"] == version == chart["appVersion"]


def test_has_what_the_programs_need_and_no_more(where):
    root = Image(os.path.join(where, "image.tar")).unpack(where)
    executables = [os.path.join(top, f)[len(root):] for top, _, files in os.walk(root)
                   for f in files if os.access(os.path.join(top, f), os.X_OK)
                   and not re.search(r"\.so(\.|$)", f)]
    assert sorted(executables) == sorted(PROGRAMS), executables
    needed = set()
    for program in PROGRAMS[:3]:
        out = subprocess.run(["ldd", root + program], capture_output=True, text=True, check=True)
        needed |= set(re.findall(r"(\S*/)?(\S+\.so\S*) (?:=>|\()", out.stdout))
    needed = {name for _, name in needed} - {"linux-vdso.so.1"}
    there = {f for _, _, files in os.walk(os.path.join(root, "usr")) for f in files if ".so" in f}
    assert there == needed, f"too much {there - needed}, missing {needed - there}"


def test_programs_run(where):
    root = os.path.join(where, "rootfs")
    for program in PROGRAMS[:3]:
        done = subprocess.run(["chroot", root, program, "--version"], capture_output=True,
                              text=True, check=False)
        name = os.path.basename(program)
        assert re.match(rf"{name} v?\d+\.\d+\.\d+\n", done.stdout), (program, done.stdout,
                                                                  done.stderr)
    env = {**os.environ, "CNI_COMMAND": "VERSION"}
    done = subprocess.run(["chroot", root, PROGRAMS[3]], env=env,
                          input='{"cniVersion":"1.1.0"}', text=True, capture_output=True,
                          check=False)
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"], done.stdout


TESTS = [test_same_build_same_bytes, test_archive_for_docker_and_OCI,
         test_says_what_the_Dockerfile_says, test_has_what_the_programs_need_and_no_more,
         test_programs_run]

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="waggle-image-") as tmp:
        code = suite.run_tests("image", TESTS, tmp)
    sys.exit(code)
