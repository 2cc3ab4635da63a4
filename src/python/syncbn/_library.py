# SPDX-License-Identifier: MIT
"""Where the shared libraries are: in the installed package, or where SYNCBN_LIBRARY_DIR says (a build tree's src folder)."""
import os
import pathlib


def find(name: str) -> pathlib.Path:
    """The path of a library, "libsyncbn.so" or "libsyncbn_torch.so". Raises ImportError if it is nowhere."""
    tried = []
    for folder in (os.environ.get("SYNCBN_LIBRARY_DIR"), pathlib.Path(__file__).parent / "lib"):
        for place in (pathlib.Path(folder), pathlib.Path(folder) / "torch") if folder else ():
            tried.append(str(place))
            for path in sorted(place.glob(f"{name}*")):  # with its version, or without
                return path
    raise ImportError(f"syncbn: {name} is in none of {', '.join(tried)}")
