"""System prompts and own templates: in rows, at inference and in what an export carries; conversations as messages."""

import argparse
import dataclasses
import functools
import json
import types

import numpy as np
import pytest
from etils import epath
from PIL import Image
from small_tokenizers import KINDS
from tiny import config as tiny_config
from tiny import weights

from vlax.commands import ask
from vlax.errors import VlaxError
from vlax.masks import ANSWER
from vlax.model import api, exports
from vlax.model.conversation import Conversation, understood
from vlax.params import sharding
from vlax.rows import Row, Turn
from vlax.text.codec import shown
from vlax.text.exchanges import template_hash
from vlax.text.prompts import Encoder, make
from vlax.text.settings import Settings, from_dict
from vlax.text.templates import TEMPLATES, named
from vlax.training import checkpoints, wording

OWN = """
like = "instruct"
system = "Be brief."
[prompts]
question = "Q: {question} A:"
"""
CHAT = """
system = "Be brief."
chat_template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
[prompts]
caption = "What is this?"
"""  # noqa: E501
ROW = Row("r", "", "question", (Turn("is it red?", "no"), Turn("blue?", "yes")), None)


@functools.cache
def tokenizer():
    return KINDS["byte level"](extra=("<|user|>", "<|assistant|>", "<|system|>"))


@functools.cache
def model(templates="plain") -> api.Model:
    config = tiny_config(vocab_size=416)
    graphdef, params = weights(config, seed=7)
    return api.Model(config, params, make(tokenizer(), templates), graphdef, sharding.make_mesh((-1, 1, 1)), {})


@pytest.fixture
def written(tmp_path):
    """written(content) -> the path of a templates file"""

    def write(content):
        (tmp_path / "mine.toml").write_text(content)
        return str(tmp_path / "mine.toml")

    return write


def text(encoder, row=ROW):
    tokens, segments = encoder.encode(row)
    learned = [token for token, segment in zip(tokens, segments, strict=True) if segment == ANSWER]
    return encoder.tokenizer.decode(tokens), encoder.tokenizer.decode(learned)


# --- templates of one's own, and system prompts


def test_a_file_says_what_differs_from_a_set(written):
    name, settings, jinja = named(written(OWN))
    assert (name, jinja, settings.system, settings.chat) == ("mine", "", "Be brief.", False)
    assert settings.prompts == {**TEMPLATES["instruct"], "question": "Q: {question} A:"}
    assert named(written(OWN), "Be long.")[1].system == "Be long."
    assert named("plain") == ("plain", Settings(), "")


def test_a_system_prompt_is_said_once_before_all(written):
    encoder = make(tokenizer(), written(OWN))
    assert text(encoder) == ("<s>Be brief.\nQ: is it red? A: no</s>Q: blue? A: yes</s>", " no</s> yes</s>")
    assert encoder.prompt_text("question", "is it red?") == "Be brief.\nQ: is it red? A:"
    assert encoder.encode(ROW)[0][: len(encoder.prompt("question", "is it red?"))] == encoder.prompt("question", "is it red?")
    assert text(make(tokenizer(), "plain", "Hi.")) == (
        "<s>Hi.\nquestion: is it red? answer: no</s>question: blue? answer: yes</s>",
        " no</s> yes</s>",
    )


def test_a_chat_template_of_ones_own(written):
    encoder = make(tokenizer(), written(CHAT))
    assert encoder.is_chat and tokenizer().chat_template is None  # which is as it was
    assert text(encoder) == (
        "<|system|>Be brief.</s><|user|>question: is it red? answer:</s><|assistant|>no</s>"
        "<|user|>question: blue? answer:</s><|assistant|>yes</s>",
        "no</s>yes</s>",
    )
    assert encoder.prompt_text("caption", "").startswith("<|system|>Be brief.</s><|user|>What is this?</s><|assistant|>")


def test_a_template_without_a_system_message_is_refused(written):
    leaves = CHAT.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    with pytest.raises(VlaxError, match="row r: the chat template leaves the system prompt out; say it in the prompts"):
        make(tokenizer(), written(leaves)).encode(ROW)


def test_other_words_are_other_templates(written):
    encoders = [make(tokenizer(), "instruct"), make(tokenizer(), "instruct", "Hi."), make(tokenizer(), written(OWN))]
    assert len({encoder.digest for encoder in encoders}) == 3 and encoders[0].digest == template_hash("instruct")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("colour = 1", "colour = 1; a templates file has the texts like, system, chat_template"),
        ("system = 1", "system = 1; a templates file"),
        ("[prompts]\ncaptoin = 'x'", "not captoin = 'x'"),
        ("[prompts]\nquestion = 'what?'", "the prompt of question leaves the question out"),
        ("like = 'plian'", "unknown prompt template 'plian'; there are plain, instruct, chat, and files"),
        ("oops", "cannot read the templates of .*mine.toml"),
    ],
)
def test_mistakes_in_a_file(written, content, reason):
    with pytest.raises(VlaxError, match=reason):
        named(written(content))


def test_settings_survive_a_record(written):
    settings = make(tokenizer(), written(CHAT)).settings
    assert from_dict(json.loads(settings.as_json())) == settings
    assert Settings().to_dict() == {"version": 2, "date": ""}
    with pytest.raises(VlaxError, match="made by a newer vlax"):
        from_dict({"version": 3, "date": ""})


def test_a_file_that_changed_since_the_run_began(written, monkeypatch, tmp_path):
    run = types.SimpleNamespace(templates=written(OWN), system="", interleaved=False)
    plan = types.SimpleNamespace(run=run, directory=epath.Path(tmp_path), parents={}, name="s")
    begun = wording.encoder(plan, tokenizer(), run.templates)
    monkeypatch.setattr(checkpoints, "recorded", lambda directory: {"text": begun.settings.to_dict()})
    assert wording.encoder(plan, tokenizer(), run.templates).encode(ROW) == begun.encode(ROW)
    written(OWN.replace("brief", "quick"))
    with pytest.raises(
        VlaxError, match=r"was started with other prompts than run\.templates, run\.system and run\.interleaved give now"
    ):
        wording.encoder(plan, tokenizer(), run.templates)


def test_an_export_carries_them(written, tmp_path):
    made = model(written(CHAT))
    manifest = {"stage": "s", "template_name": made.encoder.templates, "text": made.encoder.settings.to_dict()}
    exports.export(tmp_path / "export", made.params, made.config, made.encoder.tokenizer, manifest)
    (tmp_path / "mine.toml").unlink()
    loaded = api.load(str(tmp_path / "export"))
    assert loaded.encoder.encode(ROW) == made.encoder.encode(ROW)
    assert loaded.caption([None], max_new_tokens=3) == made.caption([None], max_new_tokens=3)


def test_a_run_from_an_export_takes_its_prompts(written, tmp_path):
    """Unless the config names others."""
    before = make(tokenizer(), written(OWN))
    (tmp_path / "manifest.json").write_text(
        json.dumps({"format": 1, "template_name": "mine", "text": before.settings.to_dict()})
    )
    run = types.SimpleNamespace(templates="", system="", interleaved=False)
    plan = types.SimpleNamespace(run=run, directory=epath.Path(tmp_path) / "s", parents={}, name="s")
    assert wording.encoder(plan, tokenizer(), "mine", str(tmp_path)).encode(ROW) == before.encode(ROW)
    run.system = "Be long."
    assert wording.encoder(plan, tokenizer(), "mine", str(tmp_path)).prompt_text("caption", "").startswith("Be long.\nWrite")
    run.templates = "instruct"
    assert wording.encoder(plan, tokenizer(), "instruct", str(tmp_path)).settings == Settings(system="Be long.")


# --- conversations

PICTURE = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "what is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a cat </s>"}]},
    {"role": "user", "content": "of which colour?"},
]


def test_messages_are_understood(tmp_path):
    assert understood(TALK) == Conversation(
        "Be kind.", (("what is it?", "a cat </s>"),), "of which colour?", (PICTURE,), ((0, 0),)
    )
    [only] = [{"role": "user", "content": [{"type": "text", "text": "hi "}, {"type": "text", "text": "you"}]}]
    assert understood([only]) == Conversation(None, (), "hi you", (), ())
    for part in ({"url": f"file://{tmp_path}/a%20b.png"}, {"path": f"{tmp_path}/a b.png"}):
        content = [{"type": "image", **part}]
        assert understood([{"role": "user", "content": content}]).images == (f"{tmp_path}/a b.png",)


def user(*parts):
    return {"role": "user", "content": list(parts)}


IMAGE = {"type": "image", "image": PICTURE}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "the roles are none; user and assistant take turns"),
        (TALK[:3], "the roles are user, assistant; user and assistant take turns, and the user is last"),
        ([TALK[3], TALK[0]], "the roles are user, system"),
        ([user({"type": "image"})], "message 0: {'type': 'image'} is no text and no picture"),
        ([user({"type": "video", "video": "a.mp4"})], "message 0: .*a.mp4.* is no text and no picture"),
        ([{"role": "user", "content": 3}], "message 0: 3 is no text and no picture"),
        ([{"role": "assistant", "content": [IMAGE]}, TALK[3]], "message 0 is the assistant's and has a picture"),
        ([user({"type": "image", "url": "https://x.org/a.png"})], "is on the web, and vlax downloads no pictures"),
        (TALK[3], "a conversation is a list of messages"),
        (["hi"], "a conversation is a list of messages"),
    ],
)
def test_messages_that_are_not_understood(messages, reason):
    with pytest.raises(VlaxError, match=reason):
        understood(messages)


def test_a_conversation_has_the_ids_of_training(written):
    for templates in ("plain", written(CHAT)):
        encoder = make(tokenizer(), templates).says("Be kind.")
        row = Row("r", "", "chat", (Turn("what is it?", "a cat </s>"), Turn("of which colour?", "red")), None)
        tokens, segments = encoder.encode(row)
        asked = understood(TALK)
        prompt = encoder.dialogue(asked.turns, asked.question).tokens
        assert tokens[: len(prompt)] == prompt
        assert encoder.tokenizer.decode(tokens[len(prompt) :]).strip() == "red</s>"
        assert set(segments[len(prompt) :]) == {ANSWER}


def test_a_model_goes_on_with_a_conversation():
    """One message is what `generate` gets; earlier turns, the picture and the system prompt each change the answer."""
    made, options = model(), {"max_new_tokens": 6, "batch_size": 1}
    asked = {"role": "user", "content": [IMAGE, {"type": "text", "text": "what is it?"}]}
    prompt = made.encoder.prompt_text("chat", "what is it?")
    first = made.chat([asked], **options)
    assert first == made.generate(PICTURE, prompt, **options)
    later = [{"role": "assistant", "content": "a cat"}, {"role": "user", "content": "sure?"}]
    blind = [{"role": "user", "content": "what is it?"}]
    said = [first, *(made.chat(m, **options) for m in ([asked, *later], blind, [TALK[0], asked]))]
    assert len(set(said)) == len(said), said


def test_ask_has_a_system_prompt(monkeypatch, capsys, tmp_path):
    PICTURE.save(tmp_path / "a.png")
    made = dataclasses.replace(model())
    monkeypatch.setattr("vlax.load", lambda directory, quantise: made)
    parser = argparse.ArgumentParser()
    ask.add_arguments(parser)
    ask.main(parser.parse_args(["export", str(tmp_path / "a.png"), "--system=Be kind.", "--max_new_tokens=6"]))
    assert made.encoder.settings.system == "Be kind."
    other = Encoder(tokenizer(), "plain", Settings(system="Be kind."))
    assert shown(made.encoder.prompt_text("caption", "")) == other.prompt_text("caption", "") == "Be kind.\ncaption:"
    assert capsys.readouterr().out.strip() == made.caption(str(tmp_path / "a.png"), max_new_tokens=6, batch_size=1)
    monkeypatch.setattr(api.Model, "caption", lambda self, images, **options: [str(options)])
    ask.main(parser.parse_args(["export", "a.png", "--kv_cache=int8"]))
    assert "'kv_cache': 'int8'" in capsys.readouterr().out
