# SPDX-License-Identifier: Apache-2.0
"""Builds with every compiler, runs every suite, counts their lines. Called by selftests/run.

A suite is an executable selftests/<name>/run. It prints a line for each test:
    ok <name>  |  FAIL <name>: why  |  skipped: <name>: reason
and is given: WAGGLE_SRC, WAGGLE_BUILD, WAGGLE_BUILD_CLANG, WAGGLE_BUILD_ASAN (directories),
WAGGLE_QUICK (set with --quick), WAGGLE_LOGS (where to leave logs), TMPDIR (emptied afterwards).
"""
import argparse
import glob
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import leftovers

SRC = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FIRST = ["check", "unit", "fuzz", "bpf", "netns", "multinode", "k8s", "chaos", "kernels", "smoke"]
NOT_TESTS = ["bench"]
TIMEOUT_S = {"kernels": 1500, "netns": 900, "multinode": 1200, "chaos": 900, "k8s": 1500,
             "helm": 1200}
TIMEOUT_DEFAULT_S = 600
LOG_TAIL = 80

BUILDS = [
    ("gcc", "build", {"CC": "gcc"}, []),
    ("clang", "build-clang", {"CC": "clang"}, []),
    ("asan", "build-asan", {"CC": "clang"},
     ["-Db_sanitize=address,undefined", "-Db_lundef=false", "-Dfuzzers=true"]),
]


class Report:
    """Counts and prints test lines."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def ok(self, name):
        self.passed += 1
        print(f"ok {name}", flush=True)

    def fail(self, name, why, log=None):
        self.failed += 1
        print(f"FAIL {name}: {why}", flush=True)
        if log:
            show_tail(log)

    def skip(self, name, reason):
        self.skipped += 1
        print(f"skipped: {name}: {reason}", flush=True)

    def close(self):
        line = f"{self.passed} passed, {self.failed} failed"
        print(line + (f", {self.skipped} skipped" if self.skipped else ""), flush=True)
        return 1 if self.failed else 0


def show_tail(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            lines = f.read().splitlines()
    except OSError:
        return
    for line in lines[-LOG_TAIL:]:
        print(f"    | {line}", flush=True)


def suites():
    found = {os.path.basename(os.path.dirname(p))
             for p in glob.glob(os.path.join(SRC, "selftests", "*", "run"))
             if os.access(p, os.X_OK)} | {"unit"}
    found -= set(NOT_TESTS)
    return [s for s in FIRST if s in found] + sorted(found - set(FIRST))


def bpftool_path():
    helper = os.path.join(SRC, "selftests", "lib", "packages.sh")
    return subprocess.run([helper, "bpftool"], capture_output=True, text=True,
                          check=False).stdout.strip() or "bpftool"


def logged(cmd, log, env=None, timeout=900):
    with open(log, "ab") as f:
        try:
            return subprocess.run(cmd, stdout=f, stderr=f, stdin=subprocess.DEVNULL, cwd=SRC,
                                  env=env, timeout=timeout, check=False).returncode
        except subprocess.TimeoutExpired:
            f.write(b"\ntimed out\n")
            return -1


def configure(path, flags, bpftool, log, env):
    """meson setup, keeping a directory that still fits; 0 or an exit code."""
    flags = ["-Dtests=true", *flags]  # ./quickstart has configured build/ without
    if os.path.exists(os.path.join(path, "build.ninja")):
        if logged(["meson", "setup", "--reconfigure", *flags, path, SRC], log, env) == 0:
            return 0
        # Of another compiler, or of a tree that has changed too much: begin anew.
        shutil.rmtree(path)
    os.makedirs(path, exist_ok=True)
    native = []
    if os.path.basename(os.path.dirname(bpftool)) not in ("bin", "sbin"):
        # Meson reads it again on every reconfigure, so it lives as long as the directory.
        native = ["--native-file", os.path.join(path, "native.ini")]
        with open(native[1], "w", encoding="utf-8") as f:
            f.write(f"[binaries]\nbpftool = '{bpftool}'\n")
    return logged(["meson", "setup", *native, *flags, path, SRC], log, env)


def build(report, opts, env, logs, bpftool, spec):
    """Configures and compiles one build directory; True if it can be used."""
    name, where, build_env, flags = spec
    path = os.path.join(opts.build_root, where)
    log = os.path.join(logs, f"build-{name}.log")
    run_env = {**env, **build_env}
    code = configure(path, flags, bpftool, log, run_env)
    if code == 0:
        code = logged(["ninja", "-C", path], log, run_env)
    if code != 0:
        report.fail(f"build: {name}", f"exit {code}", log)
        return False
    report.ok(f"build: {name}")
    return True


def run_unit(report, opts, env, built):
    for name, where, _, _ in BUILDS:
        if name not in built:
            continue
        path = os.path.join(opts.build_root, where)
        subprocess.run(["meson", "test", "-C", path, "--no-rebuild", "--suite", "unit", "-q"],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       stdin=subprocess.DEVNULL, env=env, timeout=600, check=False)
        try:
            with open(os.path.join(path, "meson-logs", "testlog.json"), encoding="utf-8") as f:
                results = [json.loads(line) for line in f]
        except (OSError, ValueError):
            results = []
        if not results:
            report.fail(f"unit: {name}", "no test ran")
        for result in results:
            test = f"unit: {name}: {result['name'].split(' / ')[-1]}"
            if result["result"] in ("OK", "EXPECTEDFAIL"):
                report.ok(test)
            elif result["result"] == "SKIP":
                report.skip(test, "the test skipped itself")
            else:
                report.fail(test, f"{result['result']} (exit {result['returncode']})")
                for stream in ("stdout", "stderr"):
                    for line in result.get(stream, "").splitlines()[-LOG_TAIL:]:
                        print(f"    | {line}", flush=True)


def take_line(report, counts, line, log):
    """Counts one line of a suite; True if it was a test's line."""
    if line.startswith("ok "):
        report.ok(line[3:])
    elif line.startswith("FAIL "):
        name, _, why = line[5:].partition(": ")
        report.fail(name, why or "failed")
        counts["failed"] += 1
    elif line.startswith("skipped: "):
        name, _, reason = line[9:].partition(": ")
        report.skip(name, reason or "no reason given")
    else:
        log.write(line + "\n")
        return False
    log.write(line + "\n")
    counts["lines"] += 1
    return True


def run_suite(report, opts, env, logs, suite):
    timeout = TIMEOUT_S.get(suite, TIMEOUT_DEFAULT_S)
    log_path = os.path.join(logs, f"{suite}.log")
    tmp = tempfile.mkdtemp(prefix=f"waggle-{suite}-")
    suite_env = {**env, "TMPDIR": tmp, "WAGGLE_LOGS": logs}
    counts = {"lines": 0, "failed": 0}
    deadline = time.monotonic() + timeout
    with open(log_path, "w", encoding="utf-8", buffering=1) as log, open(log_path, "ab") as errors:
        child = subprocess.Popen([os.path.join(SRC, "selftests", suite, "run")],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                 cwd=SRC, env=suite_env, start_new_session=True)
        pending = b""
        timed_out = False
        while True:
            left = deadline - time.monotonic()
            ready = select.select([child.stdout], [], [], max(0, min(left, 1)))[0]
            chunk = os.read(child.stdout.fileno(), 65536) if ready else b""
            if ready and not chunk:
                break
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                if not take_line(report, counts, text, log) and opts.verbose:
                    print(f"    | {text}", flush=True)
            # A forgotten child may hold the pipe open: the suite itself decides when it is over.
            if not ready and child.poll() is not None:
                break
            if left <= 0:
                timed_out = True
                break
        if pending:
            take_line(report, counts, pending.decode(errors="replace").rstrip(), log)
        if timed_out:
            stop_group(child)
        child.wait()
    if timed_out:
        report.fail(suite, f"not done after {timeout} s", log_path)
    elif child.returncode != 0 and not counts["failed"]:
        report.fail(suite, f"exit {child.returncode} without a failed test", log_path)
    elif not counts["lines"]:
        report.fail(suite, "no test ran", log_path)
    elif counts["failed"]:
        show_tail(log_path)
    shutil.rmtree(tmp, ignore_errors=True)


def stop_group(child):
    """SIGTERM lets the suite clean up; what is left after 20 s is killed."""
    for sig, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
        try:
            os.killpg(child.pid, sig)
        except ProcessLookupError:
            return
        try:
            child.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


def check_clean(report, before, bpftool, run_id):
    left = leftovers.wait_clean(before, bpftool, run_id)
    for pid in leftovers.processes(run_id):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    if left:
        report.fail("clean", f"{len(left)} things left behind")
        for line in left[:LOG_TAIL]:
            print(f"    | {line}", flush=True)
    else:
        report.ok("clean: nothing left behind")


def parse_args():
    parser = argparse.ArgumentParser(prog="selftests/run", description="Runs Waggle's tests.")
    parser.add_argument("--list", action="store_true", help="print the suites and exit")
    parser.add_argument("--suite", help="only these, comma-separated")
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer repetitions")
    parser.add_argument("--build-root", default=SRC, metavar="DIR",
                        help="where build/, build-clang/ and build-asan/ go (default: the tree)")
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="print everything the suites print")
    opts = parser.parse_args()
    opts.build_root = os.path.abspath(opts.build_root)
    opts.suites = opts.suite.split(",") if opts.suite else suites()
    unknown = [s for s in opts.suites if s not in suites()]
    if unknown:
        parser.error(f"no such suite: {', '.join(unknown)}; there are: {', '.join(suites())}")
    return opts


def main():
    opts = parse_args()
    if opts.list:
        print("\n".join(suites()))
        return 0
    # Ctrl-C and a terminated job go through the same clean-up as a normal end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_id = f"{os.getpid()}-{time.time_ns()}"
    bpftool = bpftool_path()
    before = leftovers.snapshot(bpftool)
    logs = tempfile.mkdtemp(prefix="waggle-logs-")
    env = {**os.environ, leftovers.RUN_ID_VAR: run_id, "WAGGLE_SRC": SRC, "BPFTOOL": bpftool,
           "LC_ALL": "C.UTF-8"}
    for var, where in (("WAGGLE_BUILD", "build"), ("WAGGLE_BUILD_CLANG", "build-clang"),
                       ("WAGGLE_BUILD_ASAN", "build-asan")):
        env[var] = os.path.join(opts.build_root, where)
    if opts.quick:
        env["WAGGLE_QUICK"] = "1"
    report = Report()
    try:
        run_all(report, opts, env, logs, bpftool)
    except KeyboardInterrupt:
        report.fail("run", "interrupted")
    check_clean(report, before, bpftool, run_id)
    if report.failed:
        print(f"logs: {logs}", flush=True)
    else:
        shutil.rmtree(logs, ignore_errors=True)
    return report.close()


def run_all(report, opts, env, logs, bpftool):
    needs_build = [s for s in opts.suites if s != "check"]
    # The first build is what most suites run; the others are there for the unit and fuzz suites.
    wanted = BUILDS if {"unit", "fuzz"} & set(needs_build) else BUILDS[:1] if needs_build else []
    built = set()
    for spec in wanted:
        start = time.monotonic()
        if build(report, opts, env, logs, bpftool, spec):
            built.add(spec[0])
        print(f"== build {spec[0]}: {time.monotonic() - start:.0f} s", flush=True)
    for suite in opts.suites:
        start = time.monotonic()
        if suite == "unit":
            run_unit(report, opts, env, built)
        elif suite in needs_build and "gcc" not in built:
            report.fail(suite, "not run: the build failed")
        else:
            run_suite(report, opts, env, logs, suite)
        print(f"== {suite}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
