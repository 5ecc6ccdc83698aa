"""The adapter against a stub of lmms-eval's documented model interface: what its evaluator calls, and what it is given."""

import collections
import dataclasses
import importlib
import importlib.metadata
import logging
import sys
import tomllib
import types

import numpy as np
import pytest
from conftest import REPO
from PIL import Image
from test_constrain import ANSWERS, QUESTIONS, pictures, table, toy

from vlax.decoding import constrain
from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Request
from vlax.errors import VlaxError
from vlax.model import opening

ADAPTER = "vlax.evaluation.lmms"
GREEDY = {"max_new_tokens": 4, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False, "until": ["\n\n"]}


@dataclasses.dataclass
class Instance:
    """A request: the harness calls a model with a list of these and reads nothing else."""

    request_type: str
    arguments: tuple

    @property
    def args(self) -> tuple:
        return self.arguments


@dataclasses.dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str


class Base:
    """lmms_eval.api.model.lmms, as far as its interface goes."""

    is_simple = True

    def __init__(self):
        self.task_dict = {}

    @classmethod
    def create_from_arg_string(cls, text, more):
        pairs = dict(pair.split("=", 1) for pair in text.split(",") if pair)
        return cls(**pairs, **{k: v for k, v in more.items() if v is not None})


@pytest.fixture(scope="module")
def lmms():
    """The adapter, imported where a package `lmms_eval` is."""
    modules = {
        "lmms_eval": {}, "lmms_eval.api": {}, "lmms_eval.api.model": {"lmms": Base},
        "lmms_eval.models": {}, "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, content in modules.items():
            module = types.ModuleType(name)
            module.__dict__.update(content)
            patch.setitem(sys.modules, name, module)
        yield importlib.import_module(ADAPTER)
    del sys.modules[ADAPTER]


@pytest.fixture
def create(lmms, monkeypatch):
    """create(model_args, batch_size) as the evaluator does it; documents 0..4 of task "t", split "test" hold the pictures."""
    monkeypatch.setattr(opening, "load", lambda directory, dtype: toy())

    def make(arguments="export=DIR", batch_size="2"):
        model = lmms.Vlax.create_from_arg_string(arguments, {"batch_size": batch_size, "max_batch_size": None, "device": None})
        images = [None if image is None else [image] for image in pictures()]
        model.task_dict = collections.defaultdict(dict, t={"test": [{"image": i, "answer": "dog"} for i in images]})
        return model

    return make


def ask(question, number, arguments=GREEDY, visual=lambda document: document["image"]):
    return Instance("generate_until", (question, dict(arguments), visual, number, "t", "test"))


def test_the_entry_point_names_the_model(lmms):
    """What lmms-eval does at its start: it loads the entry points of its group and calls them for their manifests."""
    (entry,) = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"].items()
    manifest = importlib.metadata.EntryPoint(*entry, "lmms_eval.models").load()()
    assert isinstance(manifest, ModelManifest) and manifest.model_id == "vlax"
    module, name = manifest.simple_class_path.rsplit(".", 1)
    assert getattr(importlib.import_module(module), name) is lmms.Vlax
    assert issubclass(lmms.Vlax, Base) and lmms.Vlax.is_simple


def test_texts_in_the_order_of_the_requests(create):
    """Generation arguments that alternate, a document without a picture, and more requests than a batch has rows."""
    model = create()
    beams = {**GREEDY, "num_beams": 2}
    order = (3, 0, 4, 1, 2)
    requests = [ask(f"<image> {QUESTIONS[i]}", i, beams if i % 2 else GREEDY) for i in order]
    given = [dict(r.args[1]) for r in requests]
    found = model.generate_until(requests)
    want = []
    for width in (1, 2):
        asked = [
            Request(toy().encoder.prompt("question", q), toy().pixels(i)) for q, i in zip(QUESTIONS, pictures(), strict=True)
        ]
        length = -(-max(len(r.prompt) for r in asked[width - 1 :: 2]) // 16) * 16  # the one that the adapter chooses
        texts = toy().predictor(DecodeConfig(4, width), 2).texts(toy().params, asked[width - 1 :: 2], length)
        want.append([text for batch in texts for text in batch])
    assert found == [want[i % 2][i // 2] for i in order]
    assert len(set(found)) > 1 and [r.args[1] for r in requests] == given  # the harness's arguments stay as they are
    assert model.generate_until([]) == []


def test_raw_text_and_other_templates(create):
    image, prompt = pictures()[0], "question: what?"
    raw = create("export=DIR,template=raw,max_new_tokens=4").generate_until([ask(prompt, 0, {})])
    assert raw == toy().generate([image], [prompt], max_new_tokens=4, batch_size=2)
    caption = create("export=DIR,template=caption").generate_until([ask("Say what you see.", 0)])
    assert caption == toy().caption([image], max_new_tokens=4, batch_size=2)


def test_log_likelihood_of_targets(create):
    """Against the uncached model; a target may be a text or a function of the document, and a choice may have no context."""
    targets = [" dog", lambda document: document["answer"], "yes", "dog house"]
    requests = [
        Instance("loglikelihood", (QUESTIONS[i], target, lambda document: document["image"], i, "t", "test"))
        for i, target in enumerate(targets)
    ]
    requests.append(Instance("loglikelihood", ("", "dog")))
    loss, logprob = create().loglikelihood(requests), create("export=DIR,loglikelihood=logprob").loglikelihood(requests)
    for i, text in enumerate(("dog", "dog", "yes", "dog house")):
        logp, ids = table()[i][ANSWERS.index(text)], constrain.answer_ids(toy().encoder, text)
        np.testing.assert_allclose(logprob[i][0], logp[np.arange(len(ids)), ids].sum(), atol=1e-4)
        assert logprob[i][1] == (logp.argmax(-1) == ids).all() and isinstance(logprob[i][1], bool)
        assert loss[i] == (-logprob[i][0], logprob[i][1]) and isinstance(loss[i][0], float)
    assert logprob[4][0] < 0 and logprob[4][0] not in [value for value, _ in logprob[:4]]
    assert create().loglikelihood([]) == []


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({}, DecodeConfig(9)),
        (GREEDY, DecodeConfig(4)),
        ({"max_new_tokens": 5, "temperature": 0.2, "top_p": None}, DecodeConfig(5, 1, 0.2)),
        ({"temperature": 0.2, "top_p": 0.9, "do_sample": True}, DecodeConfig(9, 1, 0.2, 0.9)),
        ({"temperature": 0.2, "top_p": 0.9, "do_sample": False}, DecodeConfig(9)),
        ({"do_sample": True}, DecodeConfig(9, 1, 1.0)),
        ({"temperature": 0, "top_p": 0, "num_beams": 3}, DecodeConfig(9, 3)),
    ],
)
def test_generation_arguments(lmms, given, want):
    assert lmms.decode_config(given, 9) == want


def test_until_and_arguments_without_effect(lmms, create, caplog):
    assert lmms.cut("red\n\nblue", ["\n\n"]) == lmms.cut(" red ", None) == lmms.cut("red.", (".", "")) == "red"
    assert lmms.cut("a, b. c", [".", ","]) == "a" and lmms.cut("a.b", ".") == "a"
    model = create()
    whole = model.generate_until([ask(QUESTIONS[0], 0)])[0]
    cut = model.generate_until([ask(QUESTIONS[0], 0, {**GREEDY, "until": [whole[1:2]]})])[0]
    assert len(whole) > 1 and cut == whole.split(whole[1:2])[0].strip()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            model.generate_until([ask(QUESTIONS[0], 0, {**GREEDY, "image_aspect_ratio": "pad"})])
    assert [r.getMessage() for r in caplog.records].count(
        "generation arguments without effect on a vlax model: image_aspect_ratio"
    ) == 1


@pytest.mark.parametrize(
    ("visual", "text"),
    [
        (lambda document: ["film.mp4"], "task t, document 0 has a str where an image is needed"),
        (lambda document: [Image.new("RGB", (4, 4)), "film.mp4"], "task t, document 0 has a str where an image is needed"),
    ],
)
def test_documents_that_do_not_fit(create, visual, text):
    with pytest.raises(VlaxError, match=text):
        create().generate_until([ask("what?", 0, visual=visual)])


def test_documents_of_several_pictures(create):
    """Two beside one of one and one of none: what the model itself says of each; the order of the two matters."""
    first, second = pictures()[0], pictures()[1]
    shown = [[first, second], [first], [], [second, first]]
    requests = [ask(f"<image> <image> {QUESTIONS[0]}", 0, visual=lambda _, own=own: own) for own in shown]
    found = create(batch_size="4").generate_until(requests)
    prompts = [toy().encoder.prompt_text("question", QUESTIONS[0])] * 4
    assert found == toy().generate(shown, prompts, max_new_tokens=4, batch_size=4) and found[0] != found[1]
    scored = [Instance("loglikelihood", (QUESTIONS[0], "dog", lambda _, own=own: own, 0, "t", "test")) for own in shown]
    values = [value for value, _ in create(batch_size="4").loglikelihood(scored)]
    assert len(set(values)) == 4


def test_text_only_documents(create):
    for visual in (lambda document: [], lambda document: None):
        found = create().generate_until([ask(QUESTIONS[0], 0, visual=visual)])
        assert found == toy().answer([None], QUESTIONS[:1], max_new_tokens=4, batch_size=2)


def test_errors_by_text(create, monkeypatch):
    with pytest.raises(VlaxError, match="must name the export: --model_args export=WORKDIR/STAGE/export"):
        create("")
    with pytest.raises(VlaxError, match="export, dtype, template, max_new_tokens, loglikelihood; not pretrained"):
        create("export=DIR,pretrained=x")
    with pytest.raises(VlaxError, match="template='vqa' is not one of caption, describe, question, chat, raw"):
        create("export=DIR,template=vqa")
    with pytest.raises(VlaxError, match="loglikelihood='nll' is not one of loss, logprob"):
        create("export=DIR,loglikelihood=nll")
    with pytest.raises(VlaxError, match="--batch_size auto: give a number"):
        create(batch_size="auto")
    with pytest.raises(VlaxError, match="choose tasks of one round"):
        create().generate_until_multi_round([])
    with pytest.raises(VlaxError, match="task t: a target to score must be one text"):
        create().loglikelihood([Instance("loglikelihood", ("x", lambda document: ["a"], None, 0, "t", "test"))])


def test_without_lmms_eval_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lmms_eval.api.model", None)  # an import raises ImportError
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    with pytest.raises(VlaxError, match=r'lmms-eval is not installed: pip install "lmms-eval>=0.7"'):
        importlib.import_module(ADAPTER)
