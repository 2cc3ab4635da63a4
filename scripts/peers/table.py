# SPDX-License-Identifier: MIT
"""table.py RESULTS.jsonl: what scripts/bench has measured, as one table of ratios.

Each line of the file is one program's time for one case in one round. Ratios are taken inside a round, where the programs ran
soon after each other, and the table has the median over the rounds: a machine that others use, too, is seldom equally busy for
long."""
import collections
import json
import math
import statistics
import sys

LARGE_BYTES = 12e6  # of x: from here on caches help little


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values))


class Case:
    """One shape, layout and pass: by round, what each program said."""

    def __init__(self):
        self.rounds = collections.defaultdict(dict)

    def add(self, line):
        program = line["who"].split("-")[0]
        self.rounds[line["round"]][program if program != "syncbn" else line["reduction"]] = line

    def median_ms(self, program):
        times = [entries[program]["median_ms"] for entries in self.rounds.values() if program in entries]
        return statistics.median(times) if times else None

    def to_peers(self):
        """Median over the rounds of the layer's time over the faster peer's."""
        ratios = []
        for entries in self.rounds.values():
            peers = [line["median_ms"] for program, line in entries.items() if program not in ("reproducible", "fast")]
            if peers:
                ratios.append(entries["reproducible"]["median_ms"] / min(peers))
        return statistics.median(ratios) if ratios else None

    def of_layer(self, key):
        return statistics.median(entries["reproducible"][key] for entries in self.rounds.values())


def read(path):
    cases = collections.defaultdict(Case)
    programs = {}
    with open(path, encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            programs[line["who"]] = None
            cases[(tuple(line["shape"]), line["layout"], line["pass"])].add(line)
    return cases, list(programs)


def number(value, width, digits):
    return f"{value:{width}.{digits}f}" if value is not None else "-".rjust(width)


def print_table(cases, programs):
    print(f"{', '.join(programs)}; median ms, ratios: medians over rounds\n")
    print(f"{'shape':<17}{'layout':<7}{'pass':<9}{'syncbn':>9}{'onednn':>9}{'torch':>9}{'to faster':>10}{'of limit':>9}"
          f"{'to fast':>8}")
    for (shape, layout, direction), case in cases.items():
        extents = shape if shape[2] * shape[3] > 1 else shape[:2]
        times = "".join(number(case.median_ms(program), 9, 3) for program in ("reproducible", "onednn", "torch"))
        print(f"{'x'.join(map(str, extents)):<17}{layout:<7}{direction:<9}{times}{number(case.to_peers(), 10, 2)}"
              f"{number(case.of_layer('limit_fraction'), 9, 2)}{number(case.of_layer('ratio_to_fast'), 8, 2)}")


def print_means(cases):
    def line(name, values, digits=2):
        if values:
            print(f"  {name:<34}{geometric_mean(values):6.{digits}f}   ({len(values)} cases, {min(values):.2f} to "
                  f"{max(values):.2f})")

    print("\nGeometric means")
    for direction in ("forward", "backward"):
        ratios = [case.to_peers() for (_, _, name), case in cases.items() if name == direction]
        line(f"{direction}, to the faster peer", [ratio for ratio in ratios if ratio is not None])
    line("of the memory limit, x >= 12 MB", [case.of_layer("limit_fraction") for (shape, _, _), case in cases.items()
                                             if 4 * math.prod(shape) >= LARGE_BYTES])
    line("reproducible to fast, S >= 49", [case.of_layer("ratio_to_fast") for (shape, _, _), case in cases.items()
                                           if shape[2] * shape[3] >= 49], 3)
    line("reproducible to fast, 2-D", [case.of_layer("ratio_to_fast") for (shape, _, _), case in cases.items()
                                       if shape[2] * shape[3] == 1], 3)


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    cases, programs = read(sys.argv[1])
    print_table(cases, programs)
    print_means(cases)
    return 0


if __name__ == "__main__":
    sys.exit(main())
