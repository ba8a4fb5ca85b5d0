# SPDX-License-Identifier: Apache-2.0
"""Rounds of measurements: medians, ratios of the same round, the table and the gates."""
import json
import statistics

# metric: (unit, True where more is better)
METRICS = {
    "crr_per_s": ("1/s", True),
    "rr_per_s": ("1/s", True),
    "p50_us": ("us", False),
    "p99_us": ("us", False),
    "est_ns": ("ns", False),
    "new_ns": ("ns", False),
    "program_ms": ("ms", False),
    "rss_mb": ("MB", False),
    "map_mb": ("MB", False),
}


def spread(values):
    """Median and quartiles."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return median, q1, q3


class Results:
    def __init__(self):
        self.values = {}  # (metric, contender, services) -> {round: value}

    def add(self, metric, contender, services, turn, value):
        self.values.setdefault((metric, contender, services), {})[turn] = value

    def drop(self, metric, contender, services):
        self.values.pop((metric, contender, services), None)

    def spread(self, metric, contender, services):
        found = self.values.get((metric, contender, services))
        return spread(list(found.values())) if found else None

    def ratio(self, metric, contender, services, base, base_services):
        """Median and quartiles of this contender's share of the base's value, round by round."""
        ours = self.values.get((metric, contender, services), {})
        theirs = self.values.get((metric, base, base_services), {})
        both = [ours[t] / theirs[t] for t in ours if theirs.get(t)]
        return spread(both) if both else None

    def as_json(self):
        rows = []
        for (metric, contender, services), values in self.values.items():
            median, q1, q3 = spread(list(values.values()))
            rows.append({"metric": metric, "contender": contender, "services": services,
                         "median": round(median, 3), "q1": round(q1, 3), "q3": round(q3, 3),
                         "unit": METRICS[metric][0]})
        return json.dumps(rows, indent=1) + "\n"

    def table(self):
        yield (f"{'metric':11} {'contender':14} {'services':>8} {'median':>10} {'unit':4} "
               f"{'to nftables':>21} {'to iptables':>21} {'to direct':>21}")
        order = list(METRICS)
        for metric, contender, services in sorted(self.values, key=lambda k: (
                order.index(k[0]), k[2], k[1])):
            median = self.spread(metric, contender, services)[0]
            cells = [show(self.ratio(metric, contender, services, *base)) for base in
                     (("nftables", services), ("iptables", services), ("direct", 0))]
            yield (f"{metric:11} {contender:14} {services or '-':>8} {median:>10.1f} "
                   f"{METRICS[metric][0]:4} " + " ".join(f"{c:>21}" for c in cells))


def show(ratio):
    return "-" if ratio is None else f"{ratio[0]:.2f} [{ratio[1]:.2f}..{ratio[2]:.2f}]"


# (metric, contender, base, the base's services or None for the same, at least, at most)
RATIO_GATES = [
    ("crr_per_s", "waggle", "nftables", None, 1.15, None, 1.25),
    ("crr_per_s", "waggle", "iptables", None, 1.6, None, 1.8),
    ("crr_per_s", "waggle", "direct", 0, 0.95, None, 1.05),
    ("est_ns", "waggle", "nftables", None, None, 0.45, 0.38),
    ("est_ns", "waggle-packet", "nftables", None, None, 0.45, 0.38),
    ("new_ns", "waggle", "nftables", None, None, 0.65, 0.45),
    ("new_ns", "waggle-packet", "nftables", None, None, 0.65, 0.45),
    ("crr_per_s", "waggle", "waggle", 1, 0.9, None, None),
    ("crr_per_s", "waggle-packet", "waggle-packet", 1, 0.9, None, None),
    ("est_ns", "waggle", "waggle", 1, None, 1.1, None),
    ("est_ns", "waggle-packet", "waggle-packet", 1, None, 1.1, None),
    ("new_ns", "waggle", "waggle", 1, None, 1.1, None),
    ("new_ns", "waggle-packet", "waggle-packet", 1, None, 1.1, None),
]
VALUE_GATES = [("program_ms", "waggle", 150), ("rss_mb", "waggle", 40)]
GATE_SERVICES = 10000


def gates(results):
    """Yields (verdict, text): pass, fail, or none where the run has no such measurement."""
    n = GATE_SERVICES
    for metric, contender, base, base_services, least, most, goal in RATIO_GATES:
        ratio = results.ratio(metric, contender, n, base,
                              n if base_services is None else base_services)
        limit = f">= {least}" if least else f"<= {most}"
        what = f"{metric} {contender}-{n} {limit} x {base}"
        what += f"-{base_services or n}" if base != "direct" else ""
        what += f" (goal {goal})" if goal else ""
        if ratio is None:
            yield None, what + ": not measured"
        else:
            good = ratio[0] >= least if least else ratio[0] <= most
            yield good, f"{what}: {show(ratio)}"
    for metric, contender, most in VALUE_GATES:
        found = results.spread(metric, contender, n)
        what = f"{metric} {contender}-{n} <= {most} {METRICS[metric][0]}"
        yield (found[0] <= most, f"{what}: {found[0]:.1f}") if found else (
            None, what + ": not measured")
