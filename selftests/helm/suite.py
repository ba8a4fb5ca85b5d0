# SPDX-License-Identifier: Apache-2.0
"""What the parts of this suite share: the helm program, rendered objects, lines of result."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

import yaml

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
SRC = os.environ.get("WAGGLE_SRC") or os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("WAGGLE_BUILD") or os.path.join(SRC, "build")
CHART = os.path.join(SRC, "helm", "waggle")
HELM_VERSION = "v3.19.5"
BUILD_S = 900
sys.path[:0] = [os.path.join(SRC, "selftests", "lib"), os.path.join(SRC, "selftests", "k8s")]


def cache():
    return os.environ.get("WAGGLE_CACHE") or os.path.expanduser("~/.cache/waggle")


def helm_path():
    """helm of the PATH or the cache; None where there is none and none can be built."""
    found = shutil.which("helm")
    if found:
        return found
    path = os.path.join(cache(), "bin", "helm")
    if not os.access(path, os.X_OK) and shutil.which("go"):
        build_helm(path)
    return path if os.access(path, os.X_OK) else None


def build_helm(path):
    """Once, from its Go module: two to four minutes."""
    print(f"building helm {HELM_VERSION} into {path}", flush=True)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="waggle-go-") as where:
        env = {**os.environ, "GOBIN": where, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        done = subprocess.run(
            ["nice", "go", "install", "-trimpath", "-ldflags=-s -w",
             f"helm.sh/helm/v3/cmd/helm@{HELM_VERSION}"], cwd=where, env=env, check=False,
            capture_output=True, text=True, timeout=BUILD_S)
        if done.returncode:
            print(done.stderr, flush=True)
            return
        shutil.copy(os.path.join(where, "helm"), path + ".new")
        os.rename(path + ".new", path)


class Helm:
    def __init__(self, path):
        self.path = path

    def run(self, *args, values=None):
        """(exit status, standard output, standard error)."""
        if values is not None:
            args = (*args, "-f", "-")
        done = subprocess.run([self.path, *args], capture_output=True, text=True, check=False,
                              timeout=60, input=json.dumps(values) if values is not None else None)
        return done.returncode, done.stdout, done.stderr

    def render(self, values=None, *args):
        """The objects, by (kind, name)."""
        code, out, err = self.run("template", "waggle", CHART, "-n", "kube-system",
                                  *args, values=values or {})
        if code:
            raise AssertionError(f"helm template: {err.strip()}")
        objects = {}
        for obj in yaml.safe_load_all(out):
            if obj:
                key = obj["kind"], obj["metadata"]["name"]
                assert key not in objects, f"{key} twice"
                objects[key] = obj
        return objects

    def refused(self, values):
        """What helm says against these values."""
        code, out, err = self.run("template", "waggle", CHART, values=values)
        assert code, f"{values} was rendered: {out[:200]}"
        return err


def nested(path, value):
    """{"a": {"b": value}} of "a.b"."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def merge(into, other):
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
    return into


def agent_of(objects):
    return objects["DaemonSet", "waggle"]["spec"]["template"]["spec"]


def config_of(objects):
    return objects["ConfigMap", "waggle-config"]["data"]


def run_tests(part, tests, *args):
    """Calls each test and prints its line; the number of failures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--test", help="only the one of this name")
    opts = parser.parse_args()
    failed = 0
    for test in tests:
        name = test.__name__.removeprefix("test_").replace("_", " ")
        if opts.test and opts.test not in (name, test.__name__):
            continue
        begin = time.monotonic()
        try:
            said = test(*args)
            print(f"ok helm/{part}: {name}{': ' + said if said else ''}", flush=True)
        except Exception as e:
            failed += 1
            traceback.print_exc()
            why = " ".join(str(e).split())[:600] or type(e).__name__
            print(f"FAIL helm/{part}: {name}: {why}", flush=True)
        print(f"{part}: {name}: {time.monotonic() - begin:.1f} s", flush=True)
    return 1 if failed else 0


def wants_helm(part):
    """The helm program; prints why not and returns None where it cannot be had."""
    path = helm_path()
    if not path:
        print(f"skipped: helm/{part}: needs helm, or Go to build it", flush=True)
        return None
    return Helm(path)
