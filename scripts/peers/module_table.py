# SPDX-License-Identifier: MIT
"""module_table.py RESULTS.jsonl: what scripts/bench_torch has measured, as a table."""
import json
import math
import sys

lines = [json.loads(text) for text in open(sys.argv[1], encoding="utf-8")]
alone = {who: {line["pass"]: 1e3 * line["median_ms"] for line in lines if line["ranks"] == 1 and line["who"] == who}
         for who in ("syncbn", "module", "local")}
print("A call on 8 numbers, one process, us; and of torch.nn.BatchNorm2d, which needs neither adapter nor layer:")
for direction in ("forward", "backward"):
    layer, module, local = (alone[who][direction] for who in ("syncbn", "module", "local"))
    print(f"  {direction:<9} module {module:6.1f}   C++ layer {layer:5.1f}   the adapter {module - layer:6.1f}   PyTorch's {local:6.1f}")

print("\nForward + backward between two processes, ms; PyTorch's over gloo, and its ratio to the module's:")
print(f"{'shape':>18}{'PyTorch':>10}{'over gloo':>12}{'ratio':>8}{'over MPI':>12}{'ratio':>8}")
shapes = dict.fromkeys(tuple(line["shape"]) for line in lines if line["ranks"] == 2)
ratios = {"module": [], "mpi": []}
for shape in shapes:
    both = {who: sum(line["median_ms"] for line in lines if line["ranks"] == 2 and line["who"] == who and tuple(line["shape"]) == shape)
            for who in ("module", "mpi", "gloo")}
    for who, list_of in ratios.items():
        list_of.append(both["gloo"] / both[who])
    print(f"{'x'.join(map(str, shape)):>18}{both['gloo']:>10.3f}{both['module']:>12.3f}{ratios['module'][-1]:>8.2f}"
          f"{both['mpi']:>12.3f}{ratios['mpi'][-1]:>8.2f}")
for who, name in (("module", "gloo"), ("mpi", "MPI")):
    print(f"geometric mean of the ratios, over {name}: {math.exp(sum(map(math.log, ratios[who])) / len(ratios[who])):.2f}")
