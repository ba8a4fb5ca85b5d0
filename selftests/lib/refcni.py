# SPDX-License-Identifier: Apache-2.0
"""The reference CNI plugins and cnitool: taken from the cache, or built from their Go modules."""
import os
import shutil
import subprocess

PLUGINS = "github.com/containernetworking/plugins/plugins"
VERSION = "v1.7.1"
MODULES = {
    "bridge": f"{PLUGINS}/main/bridge@{VERSION}",
    "ptp": f"{PLUGINS}/main/ptp@{VERSION}",
    "host-local": f"{PLUGINS}/ipam/host-local@{VERSION}",
    "static": f"{PLUGINS}/ipam/static@{VERSION}",
    "cnitool": "github.com/containernetworking/cni/cnitool@v1.3.0",
}


def folder():
    top = os.environ.get("WAGGLE_CACHE") or os.path.join(os.path.expanduser("~"), ".cache/waggle")
    return os.path.join(top, "cni")


def reference():
    """(folder, None) with all of MODULES in it, or (None, why not)."""
    where = folder()
    missing = [m for m in MODULES if not os.access(os.path.join(where, m), os.X_OK)]
    if missing and not shutil.which("go"):
        return None, "needs Go, or the reference plugins in " + where
    for name in missing:
        env = {**os.environ, "GOBIN": where, "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}
        done = subprocess.run(["go", "install", MODULES[name]], env=env, capture_output=True,
                              text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["go install failed"]
            return None, f"needs {name}: {said[-1]}"
    return where, None
