"""The public model: `vlax.load(DIR)` gives a Model that captions, answers and scores."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from vlax.decoding import weights
from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Predictor, Request
from vlax.decoding.seen import looking
from vlax.errors import VlaxError
from vlax.masks import ANSWER
from vlax.model import conversation, exports, summary
from vlax.model.pictures import is_one, opened, roomy
from vlax.models import quantised
from vlax.models.build import DTYPES, abstract_model
from vlax.models.vlm import VLMConfig
from vlax.params import distributed, groups, sharding
from vlax.text import settings
from vlax.text.places import Encoded
from vlax.text.prompts import Encoder


@dataclasses.dataclass(eq=False, repr=False)
class Model:
    """A vision-language model ready to use. Made by `vlax.load`."""

    config: VLMConfig
    params: groups.Params
    encoder: Encoder
    graphdef: nnx.GraphDef
    mesh: jax.sharding.Mesh
    manifest: dict
    where: str = ""  # the directory or hub id that it was loaded from
    held: str = ""  # what the matrices are held in, where it is not the dtype: int8, nf4

    def __repr__(self) -> str:
        return summary.text(self)

    def quantised(self, kind: str) -> "Model":
        """A Model with this one's matrices held in few bits ("int8" or "nf4"; "": this one), for decoding in a quarter or an
        eighth of float32's memory. This one stays as it is; `vlax.load(..., quantise=)` never has both in memory.

        VlaxError for another kind, and where the matrices are held in the other one already.
        """
        quantised.check(kind, "quantise")
        if kind in ("", self.held):
            return self
        if self.held:
            raise VlaxError(f"this Model's matrices are held in {self.held} already; load it again to hold them in {kind}")
        params = quantised.quantise(dict(self.params), kind, next(iter(self.params.values())).dtype)
        return dataclasses.replace(self, params=params, held=kind)

    def generate(
        self,
        images: Any,
        prompts: Sequence[str] | str,
        *,
        batch_size: int = 16,
        answers: Sequence[str] | None = None,
        by: str = "trie",
        **decoding,
    ) -> Any:
        """One text a prompt. images: for each prompt a picture (`opened` says what may be one), a list of several, or None.
        One prompt and its picture or pictures give one text without a list. What special tokens a prompt has is text, but for
        those that a template wrote (`encoder.prompt_text`), and for <image> where the model was trained with run.interleaved:
        there a picture stands; without any, and with other models, pictures come first.

        answers: the only texts there are, each returned as given; `by` "trie" (greedy decoding among them) or "likelihood"
        (the one of the largest log-probability, EOS included, not normalised by length). decoding: fields of
        `vlax.decoding.options.DecodeConfig`: max_new_tokens (32), num_beams (1: greedy), temperature, top_p,
        length_penalty, seed, kv_cache ("int8": keys and values in eight bits).
        VlaxError for an unknown one, and for an image that does not open.
        """
        if isinstance(prompts, str):
            [text] = self.generate([images], [prompts], batch_size=batch_size, answers=answers, by=by, **decoding)
            return text
        if len(images) != len(prompts):
            raise VlaxError(f"{len(images)} images and {len(prompts)} prompts; give one image (or None) a prompt")
        if not prompts:
            return []
        shown = [self._several(each) for each in images]
        asked = [self.encoder.asked(prompt, len(each)) for prompt, each in zip(prompts, shown, strict=True)]
        return self._generate(asked, shown, batch_size, answers, by, **decoding)

    def _generate(
        self, asked: Sequence[Encoded], images: Sequence[list], batch_size: int = 16, answers: Sequence[str] | None = None,
        by: str = "trie", **decoding,
    ) -> list[str]:  # fmt: skip
        """Texts for the ids of prompts, with their pictures."""
        if answers is not None and (isinstance(answers, str) or not answers):
            raise VlaxError(f"answers={answers!r} is no list of answers; give at least one, such as ['yes', 'no']")
        try:
            decode = DecodeConfig(**decoding)
        except TypeError:
            fields = [field.name for field in dataclasses.fields(DecodeConfig)]
            raise VlaxError(f"decoding has the options {', '.join(fields)}, not {', '.join(decoding)}") from None
        if self.config.anyres is not None:
            images = [[opened(image) for image in each] for each in images]
            if (fitting := self._fitting(images)) is not self:
                return fitting._generate(asked, images, batch_size, answers, by, **decoding)
        requests = [self._request(*each, row) for row, each in enumerate(zip(asked, images, strict=True))]
        predictor = self.predictor(decode, batch_size, tuple(answers or ()), by)
        few = len(requests) < predictor.batch_size  # of many, the rest goes by the program that the others have compiled
        slots = self.config.views * max(1, *(len(each) for each in images))
        return [text for batch in predictor.texts(self.params, requests, slots=slots, few=few) for text in batch]

    def _fitting(self, images: Sequence[Sequence[Image.Image]]) -> "Model":
        """This model with room for no more parts than one of the pictures has: the same tokens, by a smaller program."""
        config = roomy(self.config, images)
        if config == self.config:
            return self
        if config not in self._smaller:
            graphdef, _ = abstract_model(config, weights.compute_dtype(self.graphdef, self.params))
            self._smaller[config] = dataclasses.replace(self, config=config, graphdef=graphdef)
        return self._smaller[config]

    @functools.cached_property
    def _smaller(self) -> "dict[VLMConfig, Model]":
        return {}

    def _several(self, images: Any) -> list:
        """The pictures of one prompt."""
        return [] if images is None else [images] if is_one(images) else list(images)

    def _request(self, asked: Encoded, images: Sequence, row: int = 0) -> Request:
        views = [self.views(image, len(images) == 1) for image in images] if self.config.vision else []
        before = [at for at, each in zip(asked.before, views, strict=False) for _ in each]
        return Request(asked.tokens, [view for each in views for view in each], row, before)

    def caption(self, images: Any, **options) -> Any:
        """Short captions, or one of one picture; options as in `generate`."""
        if is_one(images):
            return self.generate(images, self.encoder.prompt_text("caption", ""), **options)
        return self.generate(images, [self.encoder.prompt_text("caption", "")] * len(images), **options)

    def answer(self, images: Any, questions: Sequence[str] | str, **options) -> Any:
        """Answers to one question an image (of one of each, one); options as in `generate`: answers=["yes", "no"] closes it."""
        if isinstance(questions, str):
            return self.generate(images, self.encoder.prompt_text("question", questions), **options)
        return self.generate(images, [self.encoder.prompt_text("question", q) for q in questions], **options)

    def chat(self, messages: Sequence[Mapping[str, Any]], **options) -> str:
        """The assistant's next words. messages: as Hugging Face has them (`conversation.py`); options as in `generate`.

        A system message holds for this conversation; without one, the model's own system prompt does.
        """
        asked = conversation.understood(messages)
        encoder = self.encoder if asked.system is None else self.encoder.says(asked.system)
        return self._generate([encoder.dialogue(asked.turns, asked.question, asked.places)], [list(asked.images)], **options)[0]

    def push_to_hub(self, name: str, **options) -> str:
        """Uploads this model in Hugging Face layout, with its card, to USER/NAME of the hub; options: private (True), license,
        datasets (`vlax.push_to_hub`). Returns the address."""
        import vlax  # the way to what lies above: an export is checked and scored

        return vlax.push_to_hub(self, name, **options)

    def logits(self, images: Sequence, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """float32[B,T_answer,V]: the uncached model's prediction for each answer token and the EOS after it.

        Rows whose answer is shorter than the longest are padded with zeros.
        """
        if not len(images) == len(prompts) == len(answers):
            raise VlaxError(f"{len(images)} images, {len(prompts)} prompts and {len(answers)} answers; give one of each a row")
        shown = [self._several(each) for each in images]
        asked = [self.encoder.asked(prompt, len(each)) for prompt, each in zip(prompts, shown, strict=True)]
        heads = [each.tokens for each in asked]
        tails = [self.encoder.answer(answer, prompt) for prompt, answer in zip(prompts, answers, strict=True)]
        predictor = self.predictor(DecodeConfig(1), len(prompts))
        whole = [one._replace(tokens=one.tokens + tail) for one, tail in zip(asked, tails, strict=True)]
        requests = [self._request(one, pictures) for one, pictures in zip(whole, shown, strict=True)]
        batch = predictor.batch(requests, max(len(r.prompt) for r in requests))
        for row, (head, tail) in enumerate(zip(heads, tails, strict=True)):
            batch["segment"][row, len(head) : len(head) + len(tail)] = ANSWER
        with jax.set_mesh(self.mesh):
            full = distributed.gather(self._forward(self.params, predictor.place(batch)))
        out = np.zeros((len(prompts), max(map(len, tails)), full.shape[-1]), np.float32)
        for row, (head, tail) in enumerate(zip(heads, tails, strict=True)):
            out[row, : len(tail)] = full[row, len(head) - 1 : len(head) + len(tail) - 1]
        return out

    def pixels(self, image) -> np.ndarray | None:
        """uint8[H,W,3] at the tower's size, of whatever `opened` takes; None without a picture or a tower."""
        if image is None or self.config.vision is None:
            return None
        picture = opened(image)
        return self.config.tower.preprocess.apply(picture)

    def views(self, image, alone: bool = True) -> np.ndarray:
        """uint8[n,H,W,3]: `pixels`, and the parts that a model with run.tiles sees beside them; of AnyRes one array
        (`vlax/images/anyres.py`), without parts where the picture is one of several."""
        return self.config.tower.preprocess.views(opened(image), self.config.tiles, alone)

    @functools.cached_property
    def _forward(self):
        return jax.jit(lambda params, batch: groups.rebuild(self.graphdef, params)(batch))

    def predictor(
        self, decode: DecodeConfig, batch_size: int, answers: tuple[str, ...] = (), by: str = "trie", shared: bool = False
    ) -> Predictor:
        """A Predictor, compiled once for each set of arguments; answers: the only texts there are (see `constrain.py`). shared:
        many rows of a batch have one picture, which is looked at once."""
        if not hasattr(self, "_predictors"):
            self._predictors: dict = {}
        key = (decode, batch_size, answers, by, shared)
        if key not in self._predictors:
            seen = looking(self.graphdef, self.config, self.encoder, self.mesh, batch_size) if shared else None
            self._predictors[key] = Predictor(
                self.graphdef, self.config, self.encoder, decode, batch_size, self.mesh, answers, by, seen
            )
        return self._predictors[key]


def load(directory: str, *, dtype: str = "float32", mesh=None) -> Model:
    """The Model of a vlax export directory.

    dtype: compute and storage dtype, "float32" or "bfloat16". mesh: default, all devices along the data axis.
    VlaxError when the directory is no finished export.
    """
    manifest = exports.read_manifest(directory)
    if dtype not in DTYPES:
        raise VlaxError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}")
    config = exports.read_config(directory)
    mesh = sharding.make_mesh((-1, 1, 1)) if mesh is None else mesh
    graphdef, abstract = abstract_model(config, DTYPES[dtype])
    params = exports.load_params(directory, sharding.parameter_shardings(abstract, mesh))
    groups.check_same_structure(params, abstract, str(directory))
    params = {path: jnp.asarray(value, DTYPES[dtype]) for path, value in params.items()}
    tokenizer = exports.read_tokenizer(directory)
    return Model(
        config,
        params,
        Encoder(tokenizer, manifest["template_name"], settings.from_dict(manifest.get("text"))),
        graphdef,
        mesh,
        manifest,
    )
