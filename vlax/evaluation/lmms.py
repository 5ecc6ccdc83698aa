"""A vlax export inside lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval): its benchmarks, tasks and metrics.

    pip install "lmms-eval>=0.7"      # brings torch; vlax itself never imports either
    lmms-eval --model vlax --model_args export=WORKDIR/stage4/export --tasks mme,pope --batch_size 16

The command is lmms-eval's own, with all of its flags. It finds the model "vlax" by the entry point of group `lmms_eval.models`
that comes with an installed vlax (`lmms_plugin.py`), and imports this file when the model is asked for.

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
A document has any number of images; a video is an error. They come before the text, or, of several in a model trained with
run.interleaved, where it has as many <image>. Results come in the order of the requests.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from vlax.decoding import constrain
from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Request
from vlax.errors import VlaxError
from vlax.model import opening
from vlax.rows import TASKS
from vlax.text.places import Encoded

try:
    from lmms_eval.api.model import lmms
except ImportError as error:
    raise VlaxError(f'lmms-eval is not installed: pip install "lmms-eval>=0.7" ({error})') from None

OPTIONS = ("dtype", "template", "max_new_tokens", "loglikelihood")  # of --model_args, beside export
KNOWN = ("max_new_tokens", "until", "temperature", "num_beams", "top_p", "do_sample")
PLACEHOLDER = "<image>"  # some tasks mark the place of a picture; a single one always comes first


def decode_config(arguments: Mapping[str, Any], max_new_tokens: int) -> DecodeConfig:
    """A task's generation arguments as a DecodeConfig.

    {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}  ->  DecodeConfig(16)
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    temperature = float(given.get("temperature", 1.0 if given.get("do_sample") else 0.0))
    if not given.get("do_sample", True):
        temperature = 0.0
    top_p = float(given["top_p"]) if temperature > 0 and "top_p" in given else DecodeConfig.top_p
    length, beams = int(given.get("max_new_tokens", max_new_tokens)), int(given.get("num_beams", 1))
    return DecodeConfig(length, beams, temperature, top_p)


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """The text before the first of the strings of `until`. cut("red\\n\\nblue", ["\\n\\n"]) == "red" """
    for stop in [until] if isinstance(until, str) else until or []:
        text = text.split(stop, 1)[0] if stop else text
    return text.strip()


def images_of(visuals: Sequence[Any] | None, where: str) -> list[Image.Image]:
    """The pictures of a document, of what `doc_to_visual` returns: None or a list. VlaxError for a video."""
    found = [visual for visual in visuals or () if visual is not None]
    for visual in found:
        if not isinstance(visual, Image.Image):
            raise VlaxError(f"{where} has a {type(visual).__name__} where an image is needed; vlax takes images only")
    return found


class Vlax(lmms):
    """What lmms-eval makes of --model vlax, --model_args and --batch_size, and asks for texts and likelihoods."""

    is_simple = True  # requests carry a text and doc_to_visual, not chat messages

    def __init__(self, export: str = "", batch_size: int | str = 1, device: Any = None, max_batch_size: Any = None,
                 **arguments: Any) -> None:  # fmt: skip
        super().__init__()
        if not export:
            raise VlaxError("--model_args must name the export: --model_args export=WORKDIR/STAGE/export")
        unknown = sorted(set(arguments) - set(OPTIONS))
        if unknown:
            raise VlaxError(f"--model_args are export, {', '.join(OPTIONS)}; not {', '.join(unknown)}")
        self.template, likelihood = arguments.get("template", "question"), arguments.get("loglikelihood", "loss")
        if self.template not in (*TASKS, "raw"):
            raise VlaxError(f"template={self.template!r} is not one of {', '.join((*TASKS, 'raw'))}")
        if likelihood not in ("loss", "logprob"):
            raise VlaxError(f"loglikelihood={likelihood!r} is not one of loss, logprob")
        if not str(batch_size).isdigit() or not int(batch_size):
            raise VlaxError(f"--batch_size {batch_size}: give a number; vlax does not search for one")
        self.model, self.rows = opening.load(str(export), dtype=arguments.get("dtype", "float32")), int(batch_size)
        self.max_new_tokens, self.sign = int(arguments.get("max_new_tokens", 128)), -1.0 if likelihood == "loss" else 1.0
        self.told: set[str] = set()

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One text a request: those of the same generation arguments together, in batches of one physical size."""
        out: list[str] = [""] * len(requests)
        groups: dict[DecodeConfig, list[int]] = {}
        for i, request in enumerate(requests):
            self._tell(request.args[1])
            groups.setdefault(decode_config(request.args[1], self.max_new_tokens), []).append(i)
        with tqdm(total=len(requests), desc="vlax", unit="request", mininterval=0.5) as bar:
            for decode, members in groups.items():
                predictor = self.model.predictor(decode, self.rows)
                prompts = {i: self._prompt(requests[i].args[0]) for i in members}
                length = -(-max(len(prompt.tokens) for prompt in prompts.values()) // 16) * 16
                for begin in range(0, len(members), predictor.batch_size):
                    part = members[begin : begin + predictor.batch_size]
                    asked, room, slots = self._batch([(prompts[i], requests[i].args, i) for i in part], length)
                    for i, text in zip(part, next(predictor.texts(self.model.params, asked, room, slots)), strict=True):
                        out[i] = cut(text, requests[i].args[1].get("until"))
                    bar.update(len(part))
        return out

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(value, whether greedy decoding would write it) of each target after its context, with the EOS that ends it."""
        if not requests:
            return []
        tails = [constrain.answer_ids(self.model.encoder, self._target(request.args)) for request in requests]
        prompts = [self._prompt(request.args[0]) for request in requests]
        longest, length = -(-max(map(len, tails)) // 8) * 8, -(-max(len(prompt.tokens) for prompt in prompts) // 16) * 16
        predictor, out = self.model.predictor(DecodeConfig(longest), self.rows), []
        for begin in tqdm(range(0, len(requests), predictor.batch_size), desc="vlax", unit="batch", mininterval=0.5):
            part = range(begin, min(begin + predictor.batch_size, len(requests)))
            asked, room, slots = self._batch([(prompts[i], requests[i].args, i) for i in part], length)
            answers = np.full((1, predictor.batch_size, longest), self.model.encoder.tokenizer.pad_token_id, np.int32)
            for row, i in enumerate(part):
                answers[0, row, : len(tails[i])] = tails[i]
            sums, greedy = predictor.score(self.model.params, asked, answers, room, slots)
            out += [(self.sign * float(value), bool(same)) for value, same in zip(sums[:, 0], greedy[:, 0], strict=True)]
        return out

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise VlaxError("vlax answers one question an image: choose tasks of one round (output_type generate_until)")

    def _batch(self, asked: Sequence[tuple[Encoded, tuple[Any, ...], int]], length: int) -> tuple[list[Request], int, int]:
        """(the Requests, slots of their prompts, slots of their pictures): `length`, and those of one picture, where no
        document has several; else the next power of two, so that few programs are compiled."""
        made = [self._request(*each) for each in asked]
        most = max(count for _, count in made)
        longest = max(len(request.prompt) for request, _ in made)
        slots = self.model.config.views << max(most - 1, 0).bit_length()
        return [request for request, _ in made], max(length, -(-longest // 16) * 16), slots

    def _prompt(self, context: str, pictures: int = 1) -> Encoded:
        """The ids of a task's text. Of several pictures each stands where the text says so, in a model that sees them there."""
        encoder = self.model.encoder
        placed = pictures > 1 and encoder.settings.interleaved and context.count(PLACEHOLDER) == pictures
        text = (context if placed else context.replace(PLACEHOLDER, "")).strip()
        return encoder.asked(text if self.template == "raw" else encoder.prompt_text(self.template, text), pictures)

    def _request(self, prompt: Encoded, args: tuple[Any, ...], row: int) -> tuple[Request, int]:
        """(the Request of an Instance's args (context, _, doc_to_visual, doc_id, task, split), its pictures, which are opened
        now). prompt: for one picture."""
        images: list[Image.Image] = []
        if len(args) >= 6:  # fewer: a choice without its context, lmms-eval asks so for acc_mutual_info
            images = images_of(args[2](self._document(args)), f"task {args[4]}, document {args[3]}")
        if not images or self.model.config.vision is None:
            return Request(self._prompt(args[0], 0).tokens, None, row), 0
        if len(images) > 1:
            prompt = self._prompt(args[0], len(images))
        views = [self.model.views(image, len(images) == 1) for image in images]
        before = [at for at, each in zip(prompt.before, views, strict=True) for _ in each]
        return Request(prompt.tokens, [view for each in views for view in each], row, before), len(images)

    def _target(self, args: tuple[Any, ...]) -> str:
        target = args[1](self._document(args)) if callable(args[1]) else args[1]
        if not isinstance(target, str):
            raise VlaxError(f"task {', '.join(args[4:5])}: a target to score must be one text; set doc_to_target to a string")
        return target

    def _document(self, args: tuple[Any, ...]) -> Any:
        _, _, _, number, task, split = args
        return self.task_dict[task][split][number]

    def _tell(self, arguments: Mapping[str, Any]) -> None:
        new = sorted(set(arguments) - set(KNOWN) - self.told)
        if new:
            logging.warning("generation arguments without effect on a vlax model: %s", ", ".join(new))
            self.told.update(new)
