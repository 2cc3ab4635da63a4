# SPDX-License-Identifier: MIT
"""training_table.py RESULTS.jsonl: what scripts/bench_ddp has measured: a step of syncbn, of PyTorch, and their ratio. Both take
turns, so the ratio is the median over the rounds of ratios within a round."""
import collections
import json
import pathlib
import statistics
import sys


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    rounds, names = collections.defaultdict(dict), {}
    for text in pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        program = line["who"].split("-")[0]
        names[program] = line["who"]
        rounds[line["round"]][program] = 1e3 * line["step_seconds"]
    print(f"{'round':<8}{'syncbn':>10}{names['torch']:>24}{'syncbn/torch':>14}")
    for number, times in rounds.items():
        print(f"{number:<8}{times['syncbn']:>7.2f} ms{times['torch']:>21.2f} ms{times['syncbn'] / times['torch']:>14.2f}")
    ours, theirs = (statistics.median(times[program] for times in rounds.values()) for program in ("syncbn", "torch"))
    ratio = statistics.median(times["syncbn"] / times["torch"] for times in rounds.values())
    print(f"{'median':<8}{ours:>7.2f} ms{theirs:>21.2f} ms{ratio:>14.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
