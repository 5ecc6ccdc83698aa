"""Writes the reference curves of the embedded chain from a finished run.

python train.py --config=configs/stage4.py --workdir=runs/reference
python -m benchmarks.reference_curves runs/reference configs/reference/embedded.json
"""

import json
import sys

from etils import epath

from configs import stage4
from vlax.training import plots


def main(workdir: str, out: str) -> None:
    curves = plots.curves(stage4.get_config(), epath.Path(workdir))
    epath.Path(out).write_text(json.dumps(curves, sort_keys=True, separators=(",", ":")) + "\n")
    print(f"{out}: {', '.join(sorted(curves))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
