"""Suites: what is asked, how it is decoded and how it is scored. One small file each in `protocols/`; a hash of all of it goes
with every score.

    about = "..."                      what the numbers are about
    task = "question"                  caption, describe or question: it selects the model's own prompt template
    prompt = ""                        a fixed prompt in place of that template; {question} is filled in
    metrics = ["vqav2@official"]       the first one gives the headline
    post_processing = ["first_line"]   in this order; `POST_PROCESSING` has all of them
    answers = ["yes", "no"]            closed questions: nothing else can be answered
    answers_by = "trie"                or "likelihood"
    physical_batch = 32                rows a device decodes together: logits are not bit-equal across batch sizes
    files = "..."                      what lies where below run.data_root, for the one who has it not yet
    [decoding]                         fields of `vlax.decoding.options.DecodeConfig`
    [data.test]                        a source spec (`vlax.data.sources`); data.validation: what training may look at;
                                       data.train: what the prior that sees no image is fitted on
"""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlax.decoding.options import DecodeConfig
from vlax.errors import VlaxError
from vlax.rows import Row, Source
from vlax.scores.captions import METRICS as CAPTION_METRICS
from vlax.scores.flavours import FLAVOURS, RULES
from vlax.storage import state
from vlax.storage.paths import absolute
from vlax.suites.files import read
from vlax.text import places
from vlax.text.codec import Rendered, in_front
from vlax.text.places import Encoded
from vlax.text.prompts import Encoder

POST_PROCESSING: dict[str, Callable[[str], str]] = {
    "first_line": lambda text: text.strip().split("\n")[0].strip(),
    "lowercase": str.lower,
    "no_final_period": lambda text: text.strip().removesuffix(".").strip(),
}
TASKS = ("caption", "describe", "question")
_ALWAYS = "text up to EOS, special tokens and outer spaces removed"


@dataclasses.dataclass(frozen=True)
class Suite:
    """One protocol, checked. `name` is what its scores are filed under."""

    name: str
    task: str
    metrics: tuple[str, ...]
    data: Mapping[str, Mapping[str, Any]]
    about: str = ""
    prompt: str = ""
    post_processing: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    answers_by: str = "trie"
    physical_batch: int = 32
    files: str = ""
    decoding: DecodeConfig = dataclasses.field(default_factory=DecodeConfig)

    def __post_init__(self) -> None:
        def check(good: bool, text: str) -> None:
            if not good:
                raise VlaxError(f"suite {self.name}: {text}")

        check(self.task in TASKS, f"task={self.task!r} is not one of {', '.join(TASKS)}")
        known = tuple(FLAVOURS) if self.task == "question" else (*CAPTION_METRICS, "SPICE")
        odd = [metric for metric in self.metrics if metric not in known]
        check(bool(self.metrics) and not odd, f"metrics={list(self.metrics)}; a {self.task} has {', '.join(known)}")
        odd = [step for step in self.post_processing if step not in POST_PROCESSING]
        check(not odd, f"post_processing has no step {odd}; there are {', '.join(POST_PROCESSING)}")
        check("test" in self.data, "it names no data.test")
        odd = sorted(set(self.data) - {"test", "validation", "train"})
        check(not odd, f"data has test, validation and train, not {', '.join(odd)}")
        check(self.physical_batch > 0, f"physical_batch={self.physical_batch} must be positive")
        check(isinstance(self.physical_batch, int), f"physical_batch={self.physical_batch} must be a whole number")
        asks = self.task != "question" or not self.prompt or "{question}" in self.prompt
        check(asks, f"prompt={self.prompt!r} leaves the question out; write {{question}} where it belongs")
        searches = self.answers and (self.decoding.num_beams > 1 or self.decoding.temperature > 0)
        check(not searches, "answers are chosen greedily: leave num_beams and temperature out of its decoding")
        check(self.answers_by in ("trie", "likelihood"), f"answers_by={self.answers_by!r} is not one of trie, likelihood")

    @property
    def is_caption(self) -> bool:
        return self.task != "question"

    def finish(self, text: str) -> str:
        """The answer that is scored, of the text that was decoded. One of `answers` stays as it is."""
        for step in () if self.answers else self.post_processing:
            text = POST_PROCESSING[step](text)
        return text

    def prompt_text(self, question: str, encoder: Encoder) -> Rendered:
        """The prompt as the model meets it: this suite's, or the model's own template for the task."""
        if self.prompt:
            return Rendered(self.prompt.replace("{question}", encoder.literal(question.strip())))
        return encoder.prompt_text(self.task, question)

    def prompt_ids(self, question: str, encoder: Encoder) -> list[int]:
        return encoder.typed(self.prompt_text(question, encoder))

    def asked(self, row: Row, encoder: Encoder) -> Encoded:
        """The prompt of a row, with its pictures where the model sees them."""
        question = places.shown_in(row, 0, encoder.settings)
        return encoder.asked(self.prompt_text(question, encoder), len(row.pictures))


def from_dict(name: str, values: Mapping[str, Any]) -> Suite:
    """The Suite of a protocol file's content; VlaxError names an unknown field or a value that does not fit."""
    with state.understood(f"suite {name}", "write it as those that come with vlax"):
        return _from_dict(name, dict(values))


def _from_dict(name: str, values: dict[str, Any]) -> Suite:
    fields = {field.name for field in dataclasses.fields(Suite)} - {"name"}
    odd = sorted(set(values) - fields)
    missing = sorted({"task", "metrics", "data"} - set(values))
    if odd or missing:
        what = f"there is no field {odd[0]!r}" if odd else f"{missing[0]} is missing"
        raise VlaxError(f"suite {name}: {what}; a suite has {', '.join(sorted(fields))}")
    decoding = dict(values.pop("decoding", {}))
    kinds = {field.name: type(field.default) for field in dataclasses.fields(DecodeConfig)}
    for key, value in decoding.items():
        if key not in kinds:
            raise VlaxError(f"suite {name}: decoding has {', '.join(kinds)}, not {key}")
        if not isinstance(value, (int, float) if kinds[key] is float else kinds[key]):
            raise VlaxError(f"suite {name}: decoding.{key}={value!r} should be of type {kinds[key].__name__}")
    decode = DecodeConfig(**decoding)
    lists = {key: values.pop(key) for key in ("metrics", "post_processing", "answers") if key in values}
    for key, value in lists.items():
        if isinstance(value, str):
            raise VlaxError(f"suite {name}: {key} is a list: write {key} = [{value!r}]")
        if any(not isinstance(each, str) for each in value):
            raise VlaxError(f"suite {name}: {key} is a list of texts, in quotes")
    odd = [key for key in ("about", "task", "prompt", "answers_by", "files") if not isinstance(values.get(key, ""), str)]
    if odd:
        raise VlaxError(f"suite {name}: {odd[0]} is a text, in quotes")
    lists = {key: tuple(value) for key, value in lists.items()}
    return Suite(name=name, decoding=decode, **lists, **values)


def custom(data: str, images: str, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The suite of a user's own files.

    data: a captions JSON, or "QUESTIONS.json,ANNOTATIONS.json", or any file that `python -m vlax data preview` recognises.
    images: the folder of the pictures. like: decoding and metrics of another suite's content, instead of the defaults.
    """
    from vlax.data.sources import open_source  # recognising opens files: not before somebody asks

    if not data:
        raise VlaxError("--suite=custom needs --data=CAPTIONS.json or --data=QUESTIONS.json,ANNOTATIONS.json, and --images=DIR")
    first, second, where = (part.strip() and str(absolute(part.strip())) for part in (*data.partition(",")[::2], images))
    spec = {"kind": "vqa", "questions": first, "annotations": second} if second else {"path": first}
    spec |= {"images": where} if where or second else {}
    row = open_source(spec, train=False)[0]
    if row.task == "chat":
        raise VlaxError(f"--data={data} holds conversations, which have no score; captions and questions have")
    question = row.task == "question"
    defaults = {"metrics": ["vqav2@official", "exact_match"] if question else ["CIDEr", "Bleu", "METEOR", "ROUGE_L"],
                "decoding": {"max_new_tokens": 16 if question else 32}}  # fmt: skip
    return {**defaults, **(like or {}), "task": "question" if question else "caption", "data": {"test": spec}}


def settings(suite: Suite, source: Source, rows: int, encoder: Encoder, blind_seed: int | None) -> dict[str, Any]:
    """Everything that a score depends on, the weights apart, with a hash of it: {..., "hash": 16 hex digits}, and one of what
    decoding depends on, "decoded": other metrics or post-processing need no other predictions.

    The attention mask and what else belongs to a model is not in it, so that models can be compared under one protocol. The
    prompt is, since the same question asked in other words is another protocol.
    """
    decoding = dataclasses.asdict(suite.decoding)
    del decoding["chunk"]  # speed
    if not decoding["kv_cache"]:  # as in protocols from before there was another
        del decoding["kv_cache"]
    if not decoding["temperature"]:
        del decoding["seed"]
    decoded = {
        "source": {"name": source.name, "fingerprint": source.fingerprint, "rows": rows},
        "prompt": in_front(suite.prompt_text("{question}", encoder), 1, places.TOKEN),
        "decoding": decoding,
        "physical_batch": suite.physical_batch,
        "answers": list(suite.answers),
        "answers_by": suite.answers_by if suite.answers else "",
        "blind": None if blind_seed is None else {"images": "deranged by image id", "seed": blind_seed},
    }
    if encoder.codec.contextual:  # where the ids of the same prompt have changed
        decoded["text"] = encoder.settings.version
    content = decoded | scored(suite)
    return {**content, "suite": suite.name, "hash": digest(content), "decoded": digest(decoded)}


def scored(suite: Suite) -> dict[str, Any]:
    """The part of a protocol that begins when the text is there."""
    captions = f"pycocoevalcap {importlib.metadata.version('pycocoevalcap')}, PTB tokenisation"
    return {
        "post_processing": [_ALWAYS, *suite.post_processing],
        "metrics": list(suite.metrics),
        "metric_source": captions if suite.is_caption else f"vlax.evaluation.vqa, rules {RULES}",
    }


def digest(content: Any) -> str:
    """16 hexadecimal digits of a JSON value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def suites(
    contents: Mapping[str, Mapping[str, Any]], asked: Sequence[str] = (), extra: Mapping[str, Any] | None = None
) -> list[Suite]:
    """The suites to run: `contents` (a stage's own) where nothing is asked for, else those asked for by name.

    extra: suites that are made on the spot ("custom"). A name is first one of the stage's own, then what `files.read` takes.
    """
    if not asked:
        if not contents:
            raise VlaxError("this config names no suite: fill in stage.suites, or ask for one with --suite=NAME")
        return [from_dict(name, content) for name, content in contents.items()]
    found = {**contents, **(extra or {})}
    if len({Path(name).stem for name in asked}) < len(asked):
        raise VlaxError(f"--suite={','.join(asked)} names a suite twice")
    return [from_dict(Path(name).stem, found[name] if name in found else read(name)) for name in asked]
