"""What a seal costs: seconds to write and to compare one of 1 GB in eight files, beside a plain copy.

python -m benchmarks.seals
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from etils import epath

from vlax.storage import seal

FILES = 8


def seconds(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vlax-seals-") as folder:
        sealed = Path(folder) / "sealed"
        sealed.mkdir()
        for number in range(FILES):
            (sealed / f"{number}.bin").write_bytes(np.random.default_rng(number).bytes(args.megabytes * 10**6 // FILES))
        figures = {
            "copy": seconds(lambda: shutil.copytree(sealed, Path(folder) / "copy")),
            "write": seconds(lambda: seal.write(epath.Path(sealed))),
            "compare": seconds(lambda: seal.check(epath.Path(sealed), way_out="")),
        }
    print(", ".join(f"{name} {value:.2f} s" for name, value in figures.items()))


if __name__ == "__main__":
    main()
