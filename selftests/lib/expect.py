# SPDX-License-Identifier: Apache-2.0
"""What a behaviour test says of the lines wagtest printed."""
import json


class Failure(Exception):
    """What was expected and what came."""


def expect(condition, *what):
    if not condition:
        raise Failure(" ".join(str(w) for w in what))


def expect_ok(got, label=None, **want):
    """got: fields of a wagtest line. label: one or several names that may answer."""
    labels = (label,) if isinstance(label, str) else label
    expect(got["is"] == "ok", f"wanted an answer of {label}, got", got)
    expect(labels is None or got["label"] in labels, f"wanted {label} to answer, got", got)
    for key, value in want.items():
        expect(got.get(key) == value, f"wanted {key}={value}, got", got)
    return got


def expect_refused(got, within_ms=500):
    expect(got["is"] == "err" and got["errno"] == "ECONNREFUSED", "wanted a refusal, got", got)
    expect(int(got["us"]) < within_ms * 1000, f"refused later than {within_ms} ms:", got)


def observed(lab, *args):
    """Flows of flow-observe as objects."""
    lines = lab.observe(*args, "-o", "jsonpb").splitlines()
    return [json.loads(line).get("flow", {}) for line in lines if line.startswith("{")]
