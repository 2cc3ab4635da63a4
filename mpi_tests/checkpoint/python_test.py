#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""python_test.py SAFETENSORS_COPY: files of the Python package safetensors load, and those of the library load there."""
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def main():
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 5, 1), torch.nn.BatchNorm2d(5), torch.nn.Sequential(torch.nn.BatchNorm2d(5)))
    for _ in range(3):
        net(torch.randn(4, 1, 3, 3))
    with tempfile.TemporaryDirectory() as folder:
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in net.state_dict().items()}
            save_file(state, f"{folder}/from")
            subprocess.run([sys.argv[1], f"{folder}/from", f"{folder}/to", "5", "1", "2.0"], check=True)
            copied = load_file(f"{folder}/to")
            assert sorted(copied) == sorted(k for k in state if not k.startswith("0.")), sorted(copied)
            for name, value in copied.items():
                wanted = state[name]
                assert torch.equal(value, wanted.to(value.dtype)) and value.shape == wanted.shape, name
        net.load_state_dict(copied, strict=False)
        missing = subprocess.run([sys.argv[1], f"{folder}/from", f"{folder}/none", "5", "3"], capture_output=True, text=True, check=False)
        assert missing.returncode == 1 and "has no tensor '3.weight'" in missing.stderr, missing.stderr


main()
