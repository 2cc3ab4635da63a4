# SPDX-License-Identifier: MIT
"""comm_table.py RESULTS.jsonl: what scripts/bench_comm has measured, as tables.

Each line of the file belongs to a chapter: "ranks" (syncbn bench --comm on one host), "delay" (the same on two hosts, 1 ms
apart), "round N" (one program's time for one shape and pass on two ranks). Ratios between programs are taken inside a round;
the table has the median over the rounds."""
import collections
import json
import math
import statistics
import sys

EXCHANGES = ("all_reduce", "all_gather", "automatic")
ALGORITHMS = ("doubling", "tree", "linear")


def read(path):
    chapters = collections.defaultdict(list)
    with open(path, encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            chapters[line.pop("chapter")].append(line)
    return chapters


def about(lines, what):
    return [line for line in lines if line.get("what") == what]


def marked(line):
    return f"{line['ranks']}{'*' if line['oversubscribed'] else ''}"


def print_sync(lines):
    """One row for each number of ranks, channels and pass."""
    rows = collections.defaultdict(dict)
    for line in lines:
        rows[marked(line), line["channels"], line["pass"]][line["exchange"]] = line
    if not rows:
        return
    print("Synchronizing: a pass over all ranks, less one of each rank alone; us, and its ratio to one blocking\n"
          "MPI_Allreduce(MPI_SUM) of 2C+1 doubles. *: more ranks than cores, which wait for each other to be scheduled\n")
    print(f"{'ranks':>5}{'channels':>9}{'bytes':>8} {'pass':<9}{'allreduce':>9}"
          + "".join(f"{name:>18}" for name in EXCHANGES))
    for (ranks, channels, direction), row in rows.items():
        first = row["automatic"]
        cells = "".join(f"{row[name]['median_us']:>11.1f}{row[name]['ratio']:>7.2f}" for name in EXCHANGES)
        print(f"{ranks:>5}{channels:>9}{first['bytes']:>8} {direction:<9}{first['allreduce_us']:>9.1f}{cells}")


def print_overlap(lines, title):
    if not lines:
        return
    milliseconds, calls = lines[0]["compute_ms"], lines[0]["progress_calls"]
    print(f"\n{title}: waiting in finish_forward_train(), us, median (lower quartile, mean): straight after begin,\n"
          f"after {milliseconds:g} ms of computing, and with {calls} calls of progress() in these\n")
    print(f"{'ranks':>5}{'channels':>9}  {'exchange':<11}{'at once':>27}{'computing':>27}{'progress()':>27}")
    for line in lines:
        waits = ""
        for name in ("wait", "residual", "progress_residual"):
            others = f"({line[name + '_quartile_us']:.1f}, {line[name + '_mean_us']:.1f})"
            waits += f"{line[name + '_us']:>10.1f} {others:>16}"
        print(f"{marked(line):>5}{line['channels']:>9}  {line['exchange']:<11}{waits}")


def print_model(lines):
    """What the model predicts from the first, smallest number of ranks, next to what was measured."""
    links = about(lines, "link")
    if not links:
        return
    link = links[0]
    start = lines.index(link)
    model = collections.defaultdict(dict)
    for line in lines[start + 1:]:
        if line["what"] != "model":
            break
        model[line["ranks"]][line["channels"], line["algorithm"]] = line["predicted_us"]
    measured = {(line["ranks"], line["channels"], line["exchange"]): (line["median_us"], line["oversubscribed"])
                for line in about(lines, "sync") if line["pass"] == "forward"}
    print(f"\nLogGP on {link['ranks']} ranks: L {link['latency_us']:.3g} us, o {link['overhead_us']:.3g} us, "
          f"g {link['gap_us']:.3g} us, G {link['gap_per_byte_ns']:.3g} ns a byte. Predicted us for\n"
          "all-reduce by recursive doubling, by a tree up and down (Open MPI's), for a linear all-gather (Open MPI's);\n"
          "measured us of all_reduce and all_gather")
    for channels in sorted({key[0] for row in model.values() for key in row}):
        print(f"\nC = {channels:<6}{'ranks':>7}" + "".join(f"{name:>12}" for name in (*ALGORITHMS, "all_reduce", "all_gather")))
        for ranks, row in sorted(model.items()):
            cells = "".join(f"{row[channels, name]:>12.4g}" for name in ALGORITHMS)
            for exchange in ("all_reduce", "all_gather"):
                time, is_oversubscribed = measured.get((ranks, channels, exchange), (None, False))
                cells += "" if time is None else f"{time:>11.4g}{'*' if is_oversubscribed else ' '}"
            print(f"{ranks:>17}{cells}".rstrip())


def print_torch(rounds):
    """Forward + backward, shape by shape."""
    times = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))
    for number, lines in rounds.items():
        for line in lines:
            for key in ("median_ms", "min_ms"):
                times[tuple(line["shape"])][number][line["who"].split("-")[0], key] += line[key]
    # A run that was ended early has shapes with one program only.
    times = {shape: cells for shape, by_round in times.items()
             if (cells := [cell for cell in by_round.values() if len(cell) == 4])}
    if not times:
        return
    peer = next(line["who"] for lines in rounds.values() for line in lines if line["who"] != "syncbn")
    print(f"\nForward + backward on 2 ranks, f32, NCHW, one thread each, beside {peer}; ms, median over the rounds of\n"
          "medians and of minima, which others' load spoils less\n")
    print(f"{'':<17}{'medians':^32}{'minima':^32}\n{'shape':<17}" + 2 * f"{'syncbn':>9}{'torch':>9}{'torch/syncbn':>14}")
    ratios = {"median_ms": [], "min_ms": []}
    for shape, rounds_of_shape in times.items():
        extents = shape if shape[2] * shape[3] > 1 else shape[:2]
        cells = ""
        for key, all_ratios in ratios.items():
            ours, theirs = ([cell[name, key] for cell in rounds_of_shape] for name in ("syncbn", "torch"))
            all_ratios.append(statistics.median(other / own for own, other in zip(ours, theirs)))
            cells += f"{statistics.median(ours):>9.3f}{statistics.median(theirs):>9.3f}{all_ratios[-1]:>14.2f}"
        print(f"{'x'.join(map(str, extents)):<17}{cells}")
    means = (math.exp(statistics.fmean(map(math.log, all_ratios))) for all_ratios in ratios.values())
    print(f"{'geometric mean':<17}" + "".join(f"{mean:>32.2f}" for mean in means))


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    chapters = read(sys.argv[1])
    print_sync(about(chapters["ranks"], "sync"))
    on_own_cores = [line for line in about(chapters["ranks"], "overlap") if not line["oversubscribed"]]
    print_overlap(on_own_cores, "One host")
    print_overlap(about(chapters["delay"], "overlap"), "Two hosts, 1 ms apart")
    print_model(chapters["ranks"])
    print_torch({name: lines for name, lines in chapters.items() if name.startswith("round ")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
