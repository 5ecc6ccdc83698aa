"""What a load did, tensor by tensor."""

import dataclasses
import re
from collections import Counter


@dataclasses.dataclass
class LoadReport:
    """Tensor names of the checkpoint (loaded, missing, unexpected, ignored) and parameter paths (reshaped, cast).

    A report with anything missing or unexpected reaches nobody: the load raises VlaxError instead.
    """

    source: str
    loaded: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    unexpected: list[str] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)
    reshaped: list[str] = dataclasses.field(default_factory=list)  # "path (old shape) -> (new shape)"
    cast: list[str] = dataclasses.field(default_factory=list)  # "path old dtype -> new dtype"

    def summary(self) -> str:
        """One line, or two where something was ignored, reshaped or cast."""
        first = f"loaded {len(self.loaded)} tensors of {self.source}"
        rest = []
        if self.reshaped:
            rest.append("reshaped " + "; ".join(self.reshaped))
        if self.cast:
            kinds = Counter(entry.split(" ", 1)[1] for entry in self.cast)
            rest.append("cast " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
        if self.ignored:
            kinds = Counter(re.sub(r"\.\d+\..*", "", name).rsplit(".", 1)[0] for name in self.ignored)
            rest.append(f"ignored {len(self.ignored)} (" + ", ".join(f"{kind}: {n}" for kind, n in kinds.most_common(4)) + ")")
        return first + ("\n  " + "; ".join(rest) if rest else "")
