"""A vlax export inside lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval): its benchmarks, tasks and metrics.

    pip install "lmms-eval>=0.7"      # brings torch; vlax itself never imports either
    python -m vlax.evaluation.lmms --model vlax --model_args export=WORKDIR/stage4/export --tasks mme,pope --batch_size 16

The command is lmms-eval's own, with all of its flags, after the model "vlax" was registered. That takes no plugin: lmms-eval
finds models of other packages by an installed entry point of group `lmms_eval.models` (`manifest` below serves as one) or by
LMMS_EVAL_PLUGINS=PACKAGE, which reads PACKAGE.models.AVAILABLE_MODELS and is deprecated; --include_path is for tasks only.

--model_args, separated by commas:

    export            the export directory; required
    dtype             float32 (default) or bfloat16
    template          what becomes of a task's text: "question" (default), "caption", "describe" or "chat", the model's own
                      prompt of that name, in which it was trained; "raw": the task's text as it is
    max_new_tokens    where a task sets none (128)
    loglikelihood     "loss" (default): minus the log-probability, since lmms-eval's multiple_choice takes the choice of the
                      least value; "logprob": the log-probability, as the docstring of its model interface says

A task's generation arguments: max_new_tokens, until, num_beams, and temperature and top_p unless do_sample is false or the
temperature 0. Others are named once in the log and have no effect. JAX chooses the devices, not --device.
One image a document, or none; a second one, or a video, is an error. Results come in the order of the requests.
"""

import functools
import logging
import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from vlax.decoding import constrain
from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Request
from vlax.errors import VlaxError
from vlax.model import api
from vlax.rows import TASKS

INSTALL = 'lmms-eval is not installed: pip install "lmms-eval>=0.7"'
OPTIONS = ("dtype", "template", "max_new_tokens", "loglikelihood")  # of --model_args, beside export
KNOWN = ("max_new_tokens", "until", "temperature", "num_beams", "top_p", "do_sample")
PLACEHOLDER = "<image>"  # some tasks mark the place of the picture; here it always comes first


def decode_config(arguments: dict, max_new_tokens: int) -> DecodeConfig:
    """A task's generation arguments as a DecodeConfig.

    {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}  ->  DecodeConfig(16)
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    temperature = float(given.get("temperature", 1.0 if given.get("do_sample") else 0.0))
    if not given.get("do_sample", True):
        temperature = 0.0
    nucleus = {"top_p": float(given["top_p"])} if temperature > 0 and "top_p" in given else {}
    length, beams = int(given.get("max_new_tokens", max_new_tokens)), int(given.get("num_beams", 1))
    return DecodeConfig(length, beams, temperature, **nucleus)


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """The text before the first of the strings of `until`. cut("red\\n\\nblue", ["\\n\\n"]) == "red" """
    for stop in [until] if isinstance(until, str) else until or []:
        text = text.split(stop, 1)[0] if stop else text
    return text.strip()


def one_image(visuals, where: str) -> Image.Image | None:
    """The picture of a document, of what `doc_to_visual` returns: None or a list. VlaxError for several and for a video."""
    visuals = [] if visuals is None else [visual for visual in visuals if visual is not None]
    if len(visuals) > 1:
        raise VlaxError(f"{where} has {len(visuals)} images; a vlax model takes one. Choose tasks with one image a document")
    if visuals and not isinstance(visuals[0], Image.Image):
        raise VlaxError(f"{where} has a {type(visuals[0]).__name__} where an image is needed; vlax takes images only")
    return visuals[0] if visuals else None


class Answerer:
    """The model behind the adapter: what it does is free of lmms-eval, so that a request is a plain tuple here."""

    def __init__(self, export, dtype="float32", template="question", max_new_tokens=128, loglikelihood="loss", batch_size=1):
        if template not in (*TASKS, "raw"):
            raise VlaxError(f"template={template!r} is not one of {', '.join((*TASKS, 'raw'))}")
        if loglikelihood not in ("loss", "logprob"):
            raise VlaxError(f"loglikelihood={loglikelihood!r} is not one of loss, logprob")
        if not str(batch_size).isdigit() or not int(batch_size):
            raise VlaxError(f"--batch_size {batch_size}: give a number; vlax does not search for one")
        self.model, self.template, self.batch_size = api.load(str(export), dtype=dtype), template, int(batch_size)
        self.max_new_tokens, self.sign = int(max_new_tokens), -1.0 if loglikelihood == "loss" else 1.0
        self.told: set[str] = set()

    def prompt(self, context: str) -> list[int]:
        """The ids of a task's text."""
        text, encoder = context.replace(PLACEHOLDER, "").strip(), self.model.encoder
        return [*encoder.start, *encoder.ids(text)] if self.template == "raw" else encoder.prompt(self.template, text)

    def request(self, prompt: list[int], args: tuple, document, row: int) -> Request:
        """The Request of an Instance's args (context, _, doc_to_visual, doc_id, task, split); the picture is opened now."""
        if len(args) < 6:  # a choice without its context: lmms-eval asks so for acc_mutual_info
            return Request(prompt, None, row)
        visuals = args[2](document(args))
        return Request(prompt, self.model.pixels(one_image(visuals, f"task {args[4]}, document {args[3]}")), row)

    def generate(self, requests: Sequence[tuple], document) -> list[str]:
        """One text a request: those of the same generation arguments together, in batches of one physical size."""
        out: list[str] = [""] * len(requests)
        groups: dict[DecodeConfig, list[int]] = {}
        for i, args in enumerate(requests):
            self._tell(args[1])
            groups.setdefault(decode_config(args[1], self.max_new_tokens), []).append(i)
        with tqdm(total=len(requests), desc="vlax", unit="request", mininterval=0.5) as bar:
            for decode, members in groups.items():
                predictor = self.model.predictor(decode, self.batch_size)
                prompts = [self.prompt(requests[i][0]) for i in members]
                length = -(-max(map(len, prompts)) // 16) * 16
                for begin in range(0, len(members), predictor.batch_size):
                    part = slice(begin, begin + predictor.batch_size)
                    rows = [
                        self.request(p, requests[i], document, i) for i, p in zip(members[part], prompts[part], strict=True)
                    ]
                    for i, text in zip(members[part], next(predictor.texts(self.model.params, rows, length)), strict=True):
                        out[i] = cut(text, requests[i][1].get("until"))
                    bar.update(len(rows))
        return out

    def loglikelihood(self, requests: Sequence[tuple], document) -> list[tuple[float, bool]]:
        """(value, whether greedy decoding would write it) of each target after its context, with the EOS that ends it."""
        targets = [args[1](document(args)) if callable(args[1]) else args[1] for args in requests]
        odd = [args[4:5] for args, target in zip(requests, targets, strict=True) if not isinstance(target, str)]
        if odd:
            raise VlaxError(f"task {', '.join(odd[0])}: a target to score must be one text; set doc_to_target to a string")
        tails = [constrain.answer_ids(self.model.encoder, target) for target in targets]
        prompts = [self.prompt(args[0]) for args in requests]
        if not requests:
            return []
        longest, length = -(-max(map(len, tails)) // 8) * 8, -(-max(map(len, prompts)) // 16) * 16
        predictor, out = self.model.predictor(DecodeConfig(longest), self.batch_size), []
        for begin in tqdm(range(0, len(requests), predictor.batch_size), desc="vlax", unit="batch", mininterval=0.5):
            numbers = range(begin, min(begin + predictor.batch_size, len(requests)))
            rows = [self.request(prompts[i], requests[i], document, i) for i in numbers]
            answers = np.full((1, predictor.batch_size, longest), self.model.encoder.tokenizer.pad_token_id, np.int32)
            for row, i in enumerate(numbers):
                answers[0, row, : len(tails[i])] = tails[i]
            sums, greedy = predictor.score(self.model.params, rows, answers, length)
            out += [(self.sign * float(value), bool(same)) for value, same in zip(sums[:, 0], greedy[:, 0], strict=True)]
        return out

    def _tell(self, arguments: dict) -> None:
        new = sorted(set(arguments) - set(KNOWN) - self.told)
        if new:
            logging.warning("generation arguments without effect on a vlax model: %s", ", ".join(new))
            self.told.update(new)


@functools.cache
def model_class() -> type:
    """The class that lmms-eval loads, registered as "vlax". VlaxError with the way out when lmms-eval is not there."""
    try:
        from lmms_eval.api.model import lmms
        from lmms_eval.api.registry import register_model
    except ImportError as error:
        raise VlaxError(f"{INSTALL} ({error})") from None

    @register_model("vlax")
    class Vlax(lmms):
        """See the docstring of vlax/evaluation/lmms.py."""

        is_simple = True  # requests carry a text and doc_to_visual, not chat messages

        def __init__(self, export="", batch_size=1, device=None, max_batch_size=None, **arguments):
            super().__init__()
            if not export:
                raise VlaxError("--model_args must name the export: --model_args export=WORKDIR/STAGE/export")
            unknown = sorted(set(arguments) - set(OPTIONS))
            if unknown:
                raise VlaxError(f"--model_args are export, {', '.join(OPTIONS)}; not {', '.join(unknown)}")
            self.answerer = Answerer(export, batch_size=batch_size, **arguments)

        def generate_until(self, requests) -> list[str]:
            return self.answerer.generate([request.args for request in requests], self._document)

        def loglikelihood(self, requests) -> list[tuple[float, bool]]:
            return self.answerer.loglikelihood([request.args for request in requests], self._document)

        def generate_until_multi_round(self, requests) -> list[str]:
            raise VlaxError("vlax answers one question an image: choose tasks of one round (output_type generate_until)")

        def _document(self, args: tuple):
            _, _, _, number, task, split = args
            return self.task_dict[task][split][number]

    return Vlax


def __getattr__(name: str):
    if name == "Vlax":  # built at first use: lmms-eval names the class as vlax.evaluation.lmms.Vlax
        return model_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def manifest():
    """What an entry point of group `lmms_eval.models` returns: where lmms-eval finds the model "vlax"."""
    try:
        from lmms_eval.models.registry_v2 import ModelManifest
    except ImportError as error:
        raise VlaxError(f"{INSTALL} ({error})") from None
    return ModelManifest(model_id="vlax", simple_class_path="vlax.evaluation.lmms.Vlax")


def main() -> None:
    """lmms-eval's command line with the model "vlax" among its models."""
    entry = manifest()
    from lmms_eval.__main__ import cli_evaluate
    from lmms_eval.models import MODEL_REGISTRY_V2

    MODEL_REGISTRY_V2.register_manifest(entry, overwrite=True)
    cli_evaluate()


if __name__ == "__main__":
    try:
        main()
    except VlaxError as error:
        print(f"vlax: error: {error}", file=sys.stderr)
        sys.exit(2)
