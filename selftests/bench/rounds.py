# SPDX-License-Identifier: Apache-2.0
"""What the packet benchmarks share: namespaces' names, rounds in random order, ratios, gates."""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from contenders import Void
from results import show, spread
from topology import BenchError, command

HERE = os.path.dirname(os.path.abspath(__file__))


class Context:
    fill = False  # nobody's table, but for the flows that are measured

    def __init__(self, args, prefix):
        self.build, self.cpu, self.fifo = args.build, args.cpu, not args.no_fifo
        self.args = args
        self.prefix = f"{prefix}{os.getpid()}"
        self.names = 0
        self.dir = tempfile.mkdtemp(prefix="waggle-bench-", dir="/run")
        self.bpffs = os.path.join(self.dir, "bpf")

    def netns_name(self):
        self.names += 1
        return f"{self.prefix}-{self.names}"

    def tool(self, name):
        return os.path.join(self.build, "selftests", "bench", name)

    def __enter__(self):
        os.mkdir(self.bpffs)
        command(["mount", "-t", "bpf", "bpf", self.bpffs])
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", self.bpffs], check=False)
        subprocess.run(["rm", "-rf", self.dir], check=False)


def parser(doc, kinds, rounds=21):
    p = argparse.ArgumentParser(description=doc)
    p.add_argument("--json", metavar="FILE", help="write the measurements there")
    p.add_argument("--rounds", type=int, default=rounds)
    p.add_argument("--contenders", default=",".join(kinds))
    p.add_argument("--gate", action="store_true", help="fail where a gate fails")
    p.add_argument("--build", default=os.environ.get("WAGGLE_BUILD") or
                   os.path.join(HERE, "..", "..", "build"))
    p.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    p.add_argument("--attach", default="auto", help="the agent's --attach (default: auto)")
    p.add_argument("--no-fifo", action="store_true",
                   help="measure as ordinary tasks; only for an idle machine")
    return p


def parse(p, kinds):
    args = p.parse_args()
    args.contenders = args.contenders.split(",")
    unknown = set(args.contenders) - set(kinds)
    if unknown:
        p.error(f"unknown: {', '.join(sorted(unknown))}")
    return args


class Values:
    """(metric, contender) -> a value for each round. base: contender -> with whom it is compared;
    good(metric, contender, ratio): does it meet its gate; None: it has none."""

    def __init__(self, base, good):
        self.base, self.good = base, good
        self.rounds = {}

    def add(self, metric, contender, value):
        self.rounds.setdefault((metric, contender), []).append(value)

    def ratio(self, metric, contender):
        ours = self.rounds.get((metric, contender))
        theirs = self.rounds.get((metric, self.base.get(contender)))
        return spread([a / b for a, b in zip(ours, theirs)]) if ours and theirs else None

    def report(self, title):
        """Prints the table; how many gates failed."""
        failed = 0
        print(f"{'metric':12} {'contender':16} {'median':>10}  {title}")
        for (metric, contender), values in sorted(self.rounds.items()):
            ratio, verdict = self.ratio(metric, contender), ""
            good = self.good(metric, contender, ratio[0]) if ratio else None
            if good is not None:
                failed += not good
                verdict = "pass" if good else "FAIL"
            print(f"{metric:12} {contender:16} {spread(values)[0]:>10.1f}  {show(ratio):21} "
                  f"{verdict}".rstrip())
        return failed

    def as_json(self):
        return json.dumps([{"metric": m, "contender": c, "median": round(spread(v)[0], 3),
                            "q1": round(spread(v)[1], 3), "q3": round(spread(v)[2], 3),
                            "unit": "ns" if m.endswith("_ns") else "Gbit/s"}
                           for (m, c), v in sorted(self.rounds.items())], indent=1) + "\n"


def stop(signum, frame):
    raise KeyboardInterrupt


def run(name, args, values, measure, title):
    """measure(args) fills values; the exit status."""
    if os.geteuid():
        sys.exit(f"{name}: needs root")
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    began = time.monotonic()
    try:
        measure(args)
    except Void as e:
        print(f"{name}: void: {e}", file=sys.stderr)
        return 1
    except (BenchError, OSError) as e:
        print(f"{name}: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"kernel {os.uname().release}; core {args.cpu}{'' if args.no_fifo else ', SCHED_FIFO'}; "
          f"{args.rounds} rounds; ratios are medians [quartiles] of per-round ratios")
    failed = values.report(title)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            f.write(values.as_json())
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if args.gate and failed else 0
