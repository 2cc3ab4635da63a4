# SPDX-License-Identifier: MIT
"""Times the training batch norm of PyTorch on the CPU, f32, one process: scripts/bench runs it beside `syncbn bench`, whose
lines of JSON it prints.

    torch_batch_norm.py [--fused] SECONDS NxCxHxW,...      threads: OMP_NUM_THREADS

--fused times relu(bn(x) + z) instead, in its steps: PyTorch on the CPU has no other way.

PyTorch allocates its results anew in every call. MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ above the sizes of the
tensors keep that memory in the process, so that it is not charged for page faults."""
import json
import os
import sys
import time

import torch

LEAST_REPETITIONS = 5
EPS, MOMENTUM = 1e-5, 0.1


def parse_shape(text):
    extents = [int(word) for word in text.split("x")]
    return extents + [1] * (4 - len(extents))


def times_of(run, seconds):
    """Milliseconds of each repetition, in order of size."""
    run()
    times = []
    start = time.perf_counter()
    while len(times) < LEAST_REPETITIONS or time.perf_counter() - start < seconds:
        repetition = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - repetition))
    return sorted(times)


def uniform(shape, layout):
    tensor = torch.empty(shape).uniform_(-1.0, 1.0)
    return tensor.contiguous(memory_format=torch.channels_last) if layout == "nhwc" else tensor


def passes(shape, layout):
    """What to time, by name. They work below autograd: a forward and a backward pass, nothing else."""
    x, dy = uniform(shape, layout), uniform(shape, layout)
    channels = shape[1]
    gamma, beta = torch.empty(channels).uniform_(0.5, 1.5), torch.empty(channels).uniform_(-1.0, 1.0)
    running_mean, running_var = torch.zeros(channels), torch.ones(channels)

    def forward():
        return torch.native_batch_norm(x, gamma, beta, running_mean, running_var, True, MOMENTUM, EPS)

    _, mean, invstd = forward()

    def backward(dy=dy):
        return torch.ops.aten.native_batch_norm_backward(dy, x, gamma, running_mean, running_var, mean, invstd, True, EPS,
                                                         [True, True, True])

    return {"forward": forward, "backward": backward}


def fused_passes(shape, layout):
    """relu(bn(x) + z) around passes(): what a network's `F.relu_(bn(x).add_(z))` calls, and what autograd calls for it. z's
    gradient is what comes out of the ReLU's."""
    alone = passes(shape, layout)
    z, dy = uniform(shape, layout), uniform(shape, layout)

    def forward():
        return alone["forward"]()[0].add_(z).relu_()

    y = forward()

    def backward():
        dz = torch.ops.aten.threshold_backward(dy, y, 0)
        return dz, alone["backward"](dz)

    return {"forward": forward, "backward": backward}


def main():
    arguments = sys.argv[1:]
    is_fused = arguments[:1] == ["--fused"]
    if is_fused:
        arguments = arguments[1:]
    if len(arguments) != 2:
        print("usage: torch_batch_norm.py [--fused] SECONDS NxCxHxW,...", file=sys.stderr)
        return 2
    seconds = float(arguments[0])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for text in arguments[1].split(","):
        shape = parse_shape(text)
        for layout in ("nchw", "nhwc"):
            for name, run in (fused_passes if is_fused else passes)(shape, layout).items():
                with torch.no_grad():
                    times = times_of(run, seconds)
                print(json.dumps({"who": f"torch-{torch.__version__}", "threads": torch.get_num_threads(), "layout": layout,
                                  "shape": shape, "dtype": "f32", "pass": name,
                                  "fused": "residual+relu" if is_fused else "none", "median_ms": times[len(times) // 2],
                                  "min_ms": times[0]}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
