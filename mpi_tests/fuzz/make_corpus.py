#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""make_corpus.py FOLDER [SYNCBN]: writes small files for the fuzz targets to start from, good ones and damaged ones, to
FOLDER/TARGET/. SYNCBN is the program: with it, a small training's checkpoints are among them."""
import gzip
import pathlib
import struct
import subprocess
import sys
import tempfile
from typing import Callable, Iterator

File = tuple[str, bytes]


def npy(descr: str, shape: str, data: bytes, version: int = 1, order: str = "False") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def npy_files() -> Iterator[File]:
    yield "f4", npy("<f4", "(2, 3)", bytes(24))
    yield "f8", npy("<f8", "(2,)", bytes(16), version=2)
    yield "f2", npy("<f2", "()", bytes(2), version=3)
    yield "control", npy("<f4\nsecond line\x1b[31m", "(1,)", bytes(4))
    yield "fortran", npy("<f4", "(2, 2)", bytes(16), order="True")
    yield "empty", npy("<f4", "(0, 5)", b"")
    yield "big-endian", npy(">f4", "(1,)", bytes(4))
    yield "structured", npy("<f4", "(1,)", b"").replace(b"'<f4'", b"[('a', '<f4')]")
    yield "huge", npy("<f4", "(4611686018427387904, 4)", b"")
    yield "negative", npy("<f4", "(-1, 2)", b"")
    yield "truncated", npy("<f4", "(2, 3)", bytes(23))
    yield "web-page", b"<html></html>"


def idx_images(count: int, rows: int, columns: int, pixels: bytes, magic: int = 0x803) -> bytes:
    return struct.pack(">IIII", magic, count, rows, columns) + pixels


def idx_labels(count: int, labels: bytes, magic: int = 0x801) -> bytes:
    return struct.pack(">II", magic, count) + labels


def idx_files() -> Iterator[File]:
    def pair(images: bytes, labels: bytes) -> bytes:
        return bytes([len(labels)]) + images + labels

    images = idx_images(2, 2, 3, bytes(range(12)))
    labels = idx_labels(2, b"\x00\x09")
    yield "good", pair(images, labels)
    yield "gzip", pair(gzip.compress(images, mtime=0), gzip.compress(labels, mtime=0))
    yield "huge", pair(idx_images(1 << 31, 1, 1, b"x"), idx_labels(1 << 31, b"x"))
    yield "huge-pixels", pair(idx_images(1, 4096, 4096, b""), labels)
    yield "magic", pair(labels, images)
    yield "label", pair(images, idx_labels(2, b"\x00\x0a"))
    yield "counts", pair(images, idx_labels(3, bytes(3)))
    yield "cut-off", pair(images[:-1], labels)
    yield "garbage", pair(images + b"x", labels)
    yield "web-page", pair(b"<html></html>", labels)
    yield "empty", pair(b"", b"")


def gzip_files() -> Iterator[File]:
    one = gzip.compress(b"contents " * 20, mtime=0)
    yield "raw", b"not compressed"
    yield "good", one
    yield "stored", gzip.compress(bytes(range(64)), compresslevel=0, mtime=0)
    yield "members", one + gzip.compress(b"", mtime=0) + one
    yield "garbage", one + b"garbage"
    yield "cut-off", one[:-5]
    yield "check-sum", one[:-5] + b"\x00" + one[-4:]
    yield "magic", b"\x1f\x8b"
    # A name, a comment, extra bytes and a check sum of the header.
    yield "header", b"\x1f\x8b\x08\x1c" + bytes(6) + b"\x02\x00ab" + b"name\x00comment\x00" + one[10:]
    yield "bomb", gzip.compress(bytes(1 << 20), mtime=0)


def cifar_files() -> Iterator[File]:
    record = b"\x03" + bytes(range(256)) * 12
    yield "one", record
    yield "two", record + b"\x09" + bytes(3072)
    yield "label", b"\x0a" + bytes(3072)
    yield "cut-off", record[:-1]
    yield "web-page", b"<html></html>"
    yield "gzip", gzip.compress(record, mtime=0)
    yield "empty", b""


def fnv1a(data: bytes) -> bytes:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return struct.pack("<Q", value)


# Of checkpoint_fuzz.cpp's fixed training.
FIXED = b"arm\tlocal\nranks\t2\nweights\t7\nbatch norm layers\t2\nbatch norm channels\t5\ndata\t0\nepochs\t2\nlr\t0.05\n"


def checkpoint(options: bytes = FIXED, steps: int = 3, epochs: int = 1, copies: int = 2, extra: bytes = b"", promised: int = 0,
               tracked: int = 3) -> bytes:
    """A file as src/train/checkpoint_format.cpp describes it: 3 steps, 1 epoch, 2 copies, whatever it says that it has."""
    payload = struct.pack("<QQQd", steps, epochs, copies, 0.5)
    payload += struct.pack("<8d", *range(8)) + struct.pack("<3d", 2.5, 2.25, 2.0)
    payload += struct.pack("<14f", *range(14)) + struct.pack("<20f", *range(20))
    payload += struct.pack("<4q", *[tracked] * 4) + extra
    header = b"SYNCBNCP" + struct.pack("<IIQ", 1, len(options), (len(payload) + promised) % (1 << 64)) + options
    return sealed(header, payload)


def sealed(header: bytes, payload: bytes) -> bytes:
    file = header + fnv1a(header) + payload
    return file + fnv1a(file)


def trained_checkpoint(arm: str) -> bytes:
    """Of a training on 16 images of 4 x 4 pixels, two steps an epoch."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for part in "train", "t10k":
            images = bytes(at * at % 251 for at in range(16 * 16))
            (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_images(16, 4, 4, images))
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_labels(16, bytes(at % 10 for at in range(16))))
        subprocess.run([sys.argv[2], "train", "--data", name, "--network", "cnn", "--batch", "8", "--epochs", "2", "--arm", arm,
                        "--quiet", "--out", f"{name}/run"], check=True, timeout=60, stdout=subprocess.DEVNULL)
        return (folder / "run" / "checkpoint.syncbn").read_bytes()


def checkpoint_files() -> Iterator[File]:
    plain, mended, own = b"\x00", b"\x01", b"\x03"  # what checkpoint_fuzz.cpp does with the file
    good = checkpoint()
    yield "good", plain + good
    for arm in ("sync", "local") if len(sys.argv) > 2 else ():
        trained = trained_checkpoint(arm)
        yield f"trained-{arm}", b"\xfe" + trained
        yield f"trained-{arm}-cut-off", own + trained[:-1]
    for end in range(len(good)):
        yield f"cut-off-{end}", plain + good[:end]
        damaged = bytearray(good)
        damaged[end] ^= 1 << end % 8
        yield f"flipped-{end}", (plain if end % 2 else mended) + damaged
    for huge in 1 << 20, 1 << 40, 1 << 63, (1 << 64) - 1, (1 << 61) + 3:
        yield f"steps-{huge}", mended + checkpoint(steps=huge)
        yield f"epochs-{huge}", mended + checkpoint(epochs=huge)
        yield f"copies-{huge}", mended + checkpoint(copies=huge)
        yield f"payload-{huge}", mended + checkpoint(promised=huge)
    yield "options-huge", plain + good[:12] + b"\xff" * 4 + good[16:]
    yield "version", mended + good[:8] + b"\x02" + good[9:]
    yield "tracked", mended + checkpoint(tracked=-1)
    yield "longer", mended + checkpoint(extra=bytes(64))
    yield "garbage", plain + good + b"x"
    yield "other-lr", mended + checkpoint(FIXED.replace(b"0.05", b"0.1"))
    yield "control", mended + checkpoint(FIXED.replace(b"local", b"\x1b[31m\x00"))
    yield "long", mended + checkpoint(FIXED.replace(b"0.05", b"1" * 1000))
    yield "other-ranks", mended + checkpoint(FIXED.replace(b"ranks\t2", b"ranks\t3"))
    yield "large-training", own + checkpoint(FIXED.replace(b"weights\t7", b"weights\t65535"))
    yield "no-options", own + checkpoint(b"")
    yield "web-page", plain + b"<html></html>"
    yield "empty", plain


def safetensors(header: str, data: bytes = b"", length: int = -1) -> bytes:
    return struct.pack("<Q", len(header) if length < 0 else length) + header.encode() + data


def safetensors_files() -> Iterator[File]:
    def tensor(name: str, begin: int, end: int, shape: str = "[1]", dtype: str = "F32") -> str:
        return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}'

    pair = "{" + tensor("bn.weight", 0, 4) + "," + tensor("bn.num_batches_tracked", 4, 12, "[]", "I64") + "}"
    good = safetensors('{"__metadata__":{"format":"pt"},' + pair[1:] + "   ", bytes(12))
    yield "good", good
    yield "empty-object", safetensors("{}")
    for end in range(0, len(good), 3):
        yield f"cut-off-{end}", good[:end]
        yield f"flipped-{end}", good[:end] + bytes([good[end] ^ 1 << end % 8]) + good[end + 1:]
    for name, header in {
            "gap": tensor("a", 4, 8), "overlap": tensor("a", 0, 4) + "," + tensor("b", 2, 6), "backwards": tensor("a", 4, 0),
            "huge-shape": tensor("a", 0, 0, "[4294967296,4294967296]"), "negative": tensor("a", 0, 4, "[-1]"),
            "fraction": tensor("a", 0, 4, "[1.0]"), "no-type": tensor("a", 0, 4, dtype="F33"), "twice": tensor("a", 0, 4) + "," + tensor("a", 0, 4),
            "name": tensor("\\u001b[31m" * 30, 0, 4), "zero": tensor("a", 0, 0, "[0]") + "," + tensor("b", 0, 4),
    }.items():
        yield name, safetensors("{" + header + "}", bytes(8))
    for length in 1 << 20, 1 << 40, (1 << 64) - 1:
        yield f"length-{length}", safetensors("{}", b"", length)
    yield "deep", safetensors("[" * 3000)
    yield "web-page", b"<html></html>"


def seeded_fault_files() -> Iterator[File]:
    yield "far", b"1234"


TARGETS: dict[str, Callable[[], Iterator[File]]] = {
    "npy": npy_files, "idx": idx_files, "gzip": gzip_files, "cifar": cifar_files, "checkpoint": checkpoint_files, "safetensors": safetensors_files,
    "seeded_fault": seeded_fault_files,
}


def main() -> None:
    for target, files in TARGETS.items():
        folder = pathlib.Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, contents in files():
            (folder / name).write_bytes(contents)


if __name__ == "__main__":
    main()
