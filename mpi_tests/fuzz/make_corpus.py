#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""make_corpus.py FOLDER: writes small files for the fuzz targets to start from, good ones and damaged ones, to FOLDER/TARGET/."""
import gzip
import pathlib
import struct
import sys
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


def seeded_fault_files() -> Iterator[File]:
    yield "far", b"1234"


TARGETS: dict[str, Callable[[], Iterator[File]]] = {
    "npy": npy_files, "idx": idx_files, "gzip": gzip_files, "cifar": cifar_files, "seeded_fault": seeded_fault_files,
}


def main() -> None:
    for target, files in TARGETS.items():
        folder = pathlib.Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, contents in files():
            (folder / name).write_bytes(contents)


if __name__ == "__main__":
    main()
