"""Pictures of an evaluation, to try a model on: those that its report shows, with question, references and prediction."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlax.errors import spared
from vlax.storage import state

MOST = 48  # of one evaluation
_DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def of(where: str, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """[{"picture": data URI, "width", "height", "pixels", "question", "said", "references", "set"}] of WORKDIR/STAGE/eval
    beside the export in WORKDIR/STAGE/export; [] where nothing was evaluated, or pictures are several in one."""
    report = Path(where).parent / "eval" / "report.html"
    if manifest.get("config", {}).get("stage", {}).get("images", 1) > 1 or not report.is_file():
        return []
    found: list[dict[str, Any]] = []
    with spared(f"a list of the samples in {report}"):
        match = _DATA.search(report.read_text(encoding="utf-8"))
        data = state.load_json(report, match[1], "evaluate again") if match else {"samples": [], "pictures": []}
        shown = [sample for sample in data["samples"] if sample.get("picture") is not None]
        for sample in shown[:: max(1, len(shown) // MOST)][:MOST]:
            picture = data["pictures"][sample["picture"]]
            found.append(
                {
                    **{key: picture[key] for key in ("width", "height", "pixels")},
                    "picture": picture["uri"],
                    "question": sample.get("prompt", ""),
                    "said": sample.get("prediction", ""),
                    "references": sample.get("references", [])[:5],
                    "set": sample["set"],
                }
            )
    return found
