# SPDX-License-Identifier: Apache-2.0
"""Pinned maps as bytes: what tests read and write in them through bpftool."""
import json
import os
import subprocess


def hexes(value):
    return (f"{b:02x}" for b in value)


class PinnedMap:
    def __init__(self, pin_dir, name):
        self.path = os.path.join(pin_dir, "maps", name)

    def bpftool(self, what, *args):
        done = subprocess.run(["bpftool", "-j", "map", what, "pinned", self.path, *args],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{what} of {self.path}: {done.stdout}{done.stderr}".strip())
        return done.stdout

    def entries(self):
        """[(key, value)]"""
        return [tuple(bytes(int(b, 16) for b in e[part]) for part in ("key", "value"))
                for e in json.loads(self.bpftool("dump"))]

    def put(self, key, value):
        self.bpftool("update", "key", "hex", *hexes(key), "value", "hex", *hexes(value))

    def delete(self, key):
        self.bpftool("delete", "key", "hex", *hexes(key))
