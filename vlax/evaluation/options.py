"""The flags of eval.py: which of them go together, which suites they ask for and where the results lie."""

import dataclasses
from pathlib import Path

from etils import epath
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.suites import protocol
from vlax.suites.protocol import Suite
from vlax.training import stages


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of eval.py; each is explained there. VlaxError for flags of which one would have no effect."""

    checkpoint: str = ""
    suites: tuple[str, ...] = ()
    data: str = ""
    images: str = ""
    like: str = ""
    answers: tuple[str, ...] = ()
    answers_by: str = "trie"
    predictions: str = ""
    against: str = ""
    different_protocols: bool = False
    limit: int = 0
    batch_size: int = 0
    twin: bool = True
    blind: bool = False
    report_samples: int = 200

    def __post_init__(self):
        custom = "custom" in self.suites
        for wrong, text in (
            ((self.data or self.images or self.like) and not custom, "--data, --images and --like belong to --suite=custom"),
            (self.answers_by != "trie" and not self.answers, "--answers_by says how --answers binds; there are none"),
            (self.predictions and self.answers, "--predictions is scored as it is; --answers has no effect on it"),
            (self.predictions and self.checkpoint, "--predictions needs no model; leave --checkpoint out"),
            (self.predictions and self.blind, "--predictions has no blind twin; leave --blind out"),
            (self.blind and not self.twin, "--blind scores the twin that --notwin leaves out"),
            (self.blind and self.against, "--against compares the model, not its blind twin; leave --blind out"),
            (self.different_protocols and not self.against, "--different_protocols belongs to --against or --compare"),
        ):
            if wrong:
                raise VlaxError(text)

    def folder(self) -> str:
        """Where the results lie below eval/: "" for the stage's own suites; every flag that changes them has its own folder."""
        custom = f"-{Path(self.data.split(',')[0]).stem}-{protocol.digest([self.data, self.images, self.like])[:6]}"
        parts = ["+".join(Path(s).stem + (custom if s == "custom" else "") for s in self.suites)]
        if self.checkpoint:
            at = Path(self.checkpoint)
            parts.append(f"checkpoint={self.checkpoint}" if len(at.parts) == 1 else f"checkpoint={at.parent.name}-{at.name}")
        if self.answers:
            parts.append(f"answers={self.answers_by}-{protocol.digest(self.answers)[:6]}")
        if self.limit:
            parts.append(f"limit={self.limit}")
        return ",".join(part for part in parts if part)


def export_directory(plan: stages.StagePlan, checkpoint: str) -> epath.Path:
    """The export that `--checkpoint` means; VlaxError when the stage has not got that far."""
    if checkpoint and checkpoint not in ("last", "best"):
        return epath.Path(checkpoint)
    if not plan.finished:
        raise VlaxError(
            f"{plan.name} has no finished export in {plan.directory}; train it first: python train.py with the same flags"
        )
    other = plan.directory / f"export-{checkpoint}"
    # Without a second export the best state was the last one.
    return other if checkpoint not in ("", plan.stage.select) and other.exists() else plan.export


def chosen(config: ConfigDict, options: Options) -> list[Suite]:
    """The suites that the flags and the config ask for."""
    own = {name: content.to_dict() for name, content in config.stage.suites.items()}
    extra = {}
    if "custom" in options.suites:
        like = own.get(options.like) or protocol.read(options.like) if options.like else None
        extra["custom"] = protocol.custom(options.data, options.images, like)
    found = protocol.suites(own, options.suites, extra)
    if not options.answers:
        return found
    if all(suite.is_caption for suite in found):
        raise VlaxError("--answers is for questions; none of the suites asks any")
    return [suite if suite.is_caption else _closed(suite, options) for suite in found]


def _closed(suite: Suite, options: Options) -> Suite:
    """Answers are chosen greedily: a beam or a temperature of the suite gives way, which its protocol says."""
    decoding = dataclasses.replace(suite.decoding, num_beams=1, temperature=0.0, top_p=1.0)
    return dataclasses.replace(suite, answers=options.answers, answers_by=options.answers_by, decoding=decoding)
