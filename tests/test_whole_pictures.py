"""Whole models whose pictures stand within the text, between words of their own: the ids, pixels and logits of transformers."""

import dataclasses
import itertools

import numpy as np
import pytest
import whole_cases
from conftest import tiny
from PIL import Image

import vlax
from vlax.commands.export import export
from vlax.errors import VlaxError
from vlax.model import exports, opening
from vlax.pretrained.writing import logit_check, whole
from vlax.rows import Picture, Row, Turn
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder
from vlax.text.settings import Settings
from vlax.training import session, stages

torch = pytest.importorskip(
    "torch", reason="the checkpoints are written by transformers: pip install -r requirements-parity.txt"
)
ALL = {"vision": "model", "projector": "model", "decoder": "model"}
QUESTION, ANSWER = "is it red?", "no, two children"


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory):
    """(directory, vlax's model, transformers', its processor)"""
    import transformers

    where = whole_cases.write("gemma3", tmp_path_factory.mktemp("whole") / "gemma3")
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(where, attn_implementation="eager").eval()
    return where, vlax.load(str(where)), theirs, transformers.AutoProcessor.from_pretrained(where)


def noise(count, size=32):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("name", whole_cases.WITHIN)
def test_pictures_stand_where_the_chat_template_has_them(name):
    """As many as there are, each with what template and processor write for it; <image> in a text says otherwise."""
    template, tokens, around = whole_cases.WITHIN[name]
    tokenizer = train_bpe(whole_cases.TEXTS * 4, 300)
    tokenizer.add_special_tokens({"extra_special_tokens": tokens})
    tokenizer.chat_template = template
    encoder = Encoder(tokenizer, "chat", Settings(interleaved=True, picture=around))
    said = encoder.prompts["question"].replace("{question}", QUESTION)
    for count in range(3):
        parts = [{"type": "image"}] * count + [{"type": "text", "text": said}]
        text = tokenizer.apply_chat_template([{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True)
        pieces = text.split(around["token"])
        want = [tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in _with(pieces, around)]
        mine = encoder.asked(encoder.prompt_text("question", QUESTION), count)
        assert mine.tokens == [*itertools.chain(*want)], count
        assert mine.before == [sum(map(len, want[: at + 1])) for at in range(count)]
    picture = Picture("a.png", lambda: None)
    row = Row("a", "a", "question", (Turn(QUESTION, ANSWER),), picture)
    ids = encoder.placed(row)
    prompt = encoder.asked(encoder.prompt_text("question", QUESTION), 1)
    assert ids.tokens[: len(prompt.tokens)] == prompt.tokens and ids.before == prompt.before
    assert ids.tokens[len(prompt.tokens) :] == encoder.answer(ANSWER, encoder.prompt_text("question", QUESTION))
    within = encoder.asked(encoder.prompt_text("question", f"is <image> {QUESTION}"), 1)
    assert len(within.before) == 1 and within.before[0] > prompt.before[0]


def _with(pieces, around):
    """The texts between the pictures, with the words around these."""
    return [around["after"] * (at > 0) + piece + around["before"] * (at < len(pieces) - 1) for at, piece in enumerate(pieces)]


def asked(model, pictures):
    """The message of Hugging Face that `prompt_text("question", QUESTION)` stands for."""
    text = model.encoder.prompts["question"].replace("{question}", QUESTION)
    return {"role": "user", "content": [*({"type": "image", "image": p} for p in pictures), {"type": "text", "text": text}]}


def reference(theirs, processor, messages, answer):
    """(ids of the text, how many come before each picture, logits of the answer) by the processor and the stock class."""
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = processor.apply_chat_template(messages, **options)
    prompt = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([answer])], 1)
    kinds = torch.cat([inputs["token_type_ids"], torch.zeros(1, len(answer), dtype=torch.long)], 1)
    more = {"pixel_values": inputs["pixel_values"]} if "pixel_values" in inputs else {}
    with torch.no_grad():
        logits = theirs(input_ids=inputs["input_ids"], token_type_ids=kinds, **more).logits[0, prompt - 1 : -1].numpy()
    image = kinds[0].numpy() == 1
    ids = inputs["input_ids"][0].numpy()
    before = [int((~image[:at]).sum()) for at in np.flatnonzero(image & ~np.roll(image, 1))]
    return ids[~image][: -len(answer)].tolist(), before, logits


@pytest.mark.parametrize("count", (pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)))
def test_text_around_pictures_and_logits_are_those_of_the_processor_and_the_stock_class(gemma3, count):
    _, model, theirs, processor = gemma3
    pictures, prompt = noise(count), model.encoder.prompt_text("question", QUESTION)
    ids, before, logits = reference(theirs, processor, [asked(model, pictures)], model.encoder.answer(ANSWER, prompt))
    mine = model.encoder.asked(prompt, count)
    assert (mine.tokens, mine.before) == (ids, before) and len(before) == count
    ours = model.logits([pictures], [prompt], [ANSWER])[0]
    assert np.abs(ours - logits).max() <= 1e-4 * np.ptp(logits)
    if count == 1:  # without the words around it, and in front of the text
        plain = dataclasses.replace(model.encoder, settings=dataclasses.replace(model.encoder.settings, picture=None))
        other = dataclasses.replace(model, encoder=plain).logits(
            [pictures], [plain.prompt_text("question", QUESTION)], [ANSWER]
        )
        assert np.abs(other[0] - logits).max() >= 1e-2 * np.ptp(logits)


def test_a_conversation_keeps_its_pictures_where_they_are(gemma3):
    _, model, theirs, processor = gemma3
    first, second = noise(2)
    said = [
        {"role": "user", "content": [{"type": "image", "image": first}, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
        {"role": "user", "content": [{"type": "image", "image": second}, {"type": "text", "text": "and this one"}]},
    ]
    mine = model.encoder.dialogue([(QUESTION, "no")], "and this one", [(0, 0), (1, 0)])
    ids, before, _ = reference(theirs, processor, said, [3])
    assert (mine.tokens, mine.before) == (ids, before)
    assert model.encoder.dialogue([], QUESTION, [(0, 0)]).before == before[:1]


def test_rows_are_trained_on_the_same_ids(gemma3, tmp_path):
    where, model, _, _ = gemma3
    made = session.build(stages.chain(tiny("stage3", run__model=str(where), stage__init=ALL), tmp_path)[-1])
    assert made.encoder.settings == model.encoder.settings and made.encoder.templates == "chat"
    assert (
        made.encoder.digest
        != dataclasses.replace(made.encoder, settings=dataclasses.replace(made.encoder.settings, picture=None)).digest
    )
    batch = made.batches[0]
    assert (batch["before"][batch["has_image"]] > 0).all() and {"owner", "before"} <= made.place(batch).keys()
    row = Row("a", "a", "question", (Turn(QUESTION, ANSWER),), None)
    [(prompt, _), (answer, _)], _ = made.encoder.pieces(row)
    begins = model.encoder.prompt_text("question", QUESTION)
    assert made.encoder.ids(prompt) == model.encoder.asked(begins, 0).tokens
    assert made.encoder.ids(answer) == model.encoder.answer(ANSWER, begins)


def test_typed_prompts_and_plain_templates_have_the_words_too(gemma3):
    _, model, _, _ = gemma3
    around = model.encoder.tokenizer("\n\n<start_of_image><end_of_image>\n\n", add_special_tokens=False)["input_ids"]
    at = around.index(model.encoder.tokenizer.convert_tokens_to_ids("<end_of_image>"))
    plain = dataclasses.replace(model.encoder, templates="plain")
    one = plain.asked(plain.prompt_text("caption", ""), 1)
    assert one.tokens == [plain.tokenizer.bos_token_id, *around, *plain.ids("caption:")] and one.before == [1 + at]
    typed = model.encoder.asked("caption:", 1)
    assert typed.tokens == [*around, *model.encoder.ids("caption:")] and typed.before == [at]
    told = model.encoder.asked("a <image> caption:")
    assert told.before == [len(model.encoder.ids("a ")) + at] and told.tokens.count(around[at]) == 1


def test_a_tokenizer_without_the_tokens_is_refused(gemma3):
    with pytest.raises(VlaxError, match=r"its tokenizer has no token 30\d, which this kind of model has for pictures"):
        opening.text_of(str(gemma3[0]), train_bpe(whole_cases.TEXTS * 4, 300))


@pytest.mark.slow
def test_an_export_runs_without_vlax(gemma3, tmp_path):
    """`export` itself raises where logits differ by more than 1e-4 of their range, or a prompt has other ids."""
    _, model, _, _ = gemma3
    exports.export(
        tmp_path / "export", model.params, model.config, model.encoder.tokenizer, model.manifest | {"stage": "stage3"}
    )
    written, sentence = export(str(tmp_path / "export"), tmp_path / "hf")
    assert written.layout == "apart" and sentence.startswith("Logit check passed")
    again, params = whole.load_apart(tmp_path / "hf")
    assert again == model.config and all(np.array_equal(params[path], value) for path, value in model.params.items())
    run, pictures = logit_check.script(tmp_path / "hf"), noise(2)
    parts, prompt = run.load(tmp_path / "hf"), model.encoder.prompts["question"].replace("{question}", QUESTION)
    mine = model.encoder.asked(model.encoder.prompt_text("question", QUESTION), 2)
    ids = run.prompt_ids(run.own_settings(parts[0]), parts[1], prompt, 2)
    assert [i for i in ids if i != run.PLACE] == mine.tokens and ids.index(run.PLACE) == mine.before[0]
    said = model.generate([pictures], [model.encoder.prompt_text("question", QUESTION)], max_new_tokens=6)
    assert run.generate(*parts, pictures, prompt, 6) == said[0]
