"""The flags of eval.py: which of them go together, which suites they ask for and where the results lie."""

import dataclasses
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.suites import files, protocol
from vlax.suites.protocol import Suite
from vlax.training import stages


def _flag(default: Any, about: str, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": about, **more})


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of eval.py, one a field, with default and help. VlaxError for flags of which one would have no effect."""

    checkpoint: str = _flag(
        "", "which state: the stage's export (default), last, best, or any whole model, as run.model takes it"
    )
    suites: tuple[str, ...] = _flag(
        (), "suites in place of the stage's own: names, FILE.toml, custom; --suite=help lists them", flag="suite"
    )
    data: str = _flag("", "--suite=custom: CAPTIONS.json, QUESTIONS.json,ANNOTATIONS.json or any known format")
    images: str = _flag("", "--suite=custom: the folder of the pictures")
    like: str = _flag("", "--suite=custom: the suite whose metrics, prompt and decoding it takes, e.g. vqav2_val")
    answers: tuple[str, ...] = _flag((), "closed questions: the only answers there are, e.g. yes,no; or @FILE, one a line")
    answers_by: str = _flag("trie", "--answers: token by token, or the likeliest", choices=("trie", "likelihood"))
    predictions: str = _flag("", "score this file (JSON lines or list) instead of running a model")
    against: str = _flag("", "compare with another stage of the workdir, e.g. stage2, or an eval directory")
    different_protocols: bool = _flag(False, "compare although the protocols differ")
    quantise: str = _flag("", "decode with the matrices held in few bits: int8 or nf4")
    limit: int = _flag(0, "score only the first rows of each set; 0: all")
    batch_size: int = _flag(0, "rows asked for at once, at most a physical batch; answers stay the same")
    twin: bool = _flag(True, "decode the blind twin too, if it was not yet: the same model, pictures exchanged")
    blind: bool = _flag(False, "score the blind twin alone")
    report_samples: int = _flag(200, "rows of each set in report.html; 0: no report")

    def __post_init__(self):
        custom = "custom" in self.suites
        for wrong, text in (
            ((self.data or self.images or self.like) and not custom, "--data, --images and --like belong to --suite=custom"),
            (self.answers_by != "trie" and not self.answers, "--answers_by says how --answers binds; there are none"),
            (self.predictions and self.answers, "--predictions is scored as it is; --answers has no effect on it"),
            (self.predictions and self.checkpoint, "--predictions needs no model; leave --checkpoint out"),
            (self.predictions and self.quantise, "--predictions needs no model; leave --quantise out"),
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
        if self.quantise:
            parts.append(f"quantise={self.quantise}")
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
    return other if checkpoint not in ("", plan.stage.select) and (other / "manifest.json").exists() else plan.export


def chosen(config: ConfigDict | None, options: Options) -> list[Suite]:
    """The suites that the flags and, where there is one, the config ask for."""
    own = {name: content.to_dict() for name, content in config.stage.suites.items()} if config else {}
    extra = {}
    if "custom" in options.suites:
        like = own.get(options.like) or files.read(options.like) if options.like else None
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
