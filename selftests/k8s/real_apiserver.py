# SPDX-License-Identifier: Apache-2.0
"""kube-apiserver, kube-controller-manager and etcd: found in the cache, or built there from their
Go modules.

  real_apiserver.py       builds what is missing and says where it is
WAGGLE_CACHE (default ~/.cache/waggle) keeps the binaries, below k8s/.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

KUBERNETES = "1.30.14"
ETCD = "3.5.21"
SKIPPED = "set WAGGLE_BUILD_APISERVER=1 to build kube-apiserver, about 10 minutes"
NAMES = ("kube-apiserver", "etcd")
WITH_CONTROLLERS = (*NAMES, "kube-controller-manager")


def folder():
    base = os.environ.get("WAGGLE_CACHE") or os.path.expanduser("~/.cache/waggle")
    return os.path.join(base, "k8s")


def path(name):
    return os.path.join(folder(), name)


def missing(names=NAMES):
    return [n for n in names if not os.access(path(n), os.X_OK)]


def why_not(names=NAMES):
    """None where these can run, or what is needed."""
    if not missing(names):
        return None
    if not shutil.which("go"):
        return f"needs Go (and then {SKIPPED})"
    if os.environ.get("WAGGLE_BUILD_APISERVER") != "1":
        return SKIPPED
    return None


def _go(where, *args):
    env = {**os.environ, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
    done = subprocess.run(["nice", "go", *args], cwd=where, env=env, capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise OSError(f"go {args[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _module(where, lines, package):
    """A module of our own: one that replaces its parts cannot be installed by name."""
    with open(os.path.join(where, "go.mod"), "w", encoding="utf-8") as f:
        f.write("\n".join(["module waggle.test/control-plane", "go 1.22.0", *lines, ""]))
    with open(os.path.join(where, "tools.go"), "w", encoding="utf-8") as f:
        f.write(f'//go:build tools\n\npackage tools\n\nimport _ "{package}"\n')
    _go(where, "mod", "tidy", "-e")


def _build(where, package, name, *flags):
    made = path(name) + ".new"
    _go(where, "build", "-trimpath", *flags, "-ldflags=-s -w -checklinkname=0", "-o", made, package)
    os.rename(made, path(name))


def build_kubernetes(where, name):
    module = f"k8s.io/kubernetes@v{KUBERNETES}"
    _module(where, [], "fmt")
    with open(_go(where, "mod", "download", "-json", module).split('"GoMod": "')[1].split('"')[0],
              encoding="utf-8") as f:
        parts = sorted(set(re.findall(r"(k8s\.io/[a-z0-9-]+) v0\.0\.0(?![-\w])", f.read())))
    version = "v0" + KUBERNETES.removeprefix("1")
    package = f"k8s.io/kubernetes/cmd/{name}"
    _module(where, [f"require k8s.io/kubernetes v{KUBERNETES}",
                    *(f"replace {p} => {p} {version}" for p in parts)], package)
    _build(where, package, name, "-tags", "providerless")


def build_etcd(where, _):
    package = "go.etcd.io/etcd/server/v3"
    _module(where, [f"require {package} v{ETCD}"], package)
    _build(where, package, "etcd")


def build(names=NAMES):
    os.makedirs(folder(), exist_ok=True)
    for name in missing(names):
        with tempfile.TemporaryDirectory(prefix="waggle-go-") as where:
            (build_etcd if name == "etcd" else build_kubernetes)(where, name)


if __name__ == "__main__":
    try:
        build(WITH_CONTROLLERS)
    except OSError as e:
        sys.exit(str(e))
    print(folder())
