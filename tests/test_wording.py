"""How a stage turns text into ids: what it was started with, else what its parents were trained with."""

import json
import types

import pytest
from etils import epath
from small_tokenizers import KINDS

from configs import base
from vlax.text.settings import OLD, Settings
from vlax.training import checkpoints, wording

DATED = "{% for m in messages %}{{ strftime_now('%d %b') }}<s>{{ m.content }}</s>{% endfor %}"


@pytest.fixture
def plan(tmp_path):
    """plan(kind, parent's record) -> (a plan with that parent, a tokenizer, the templates' name)"""

    def make(kind, **record):
        export = epath.Path(tmp_path) / "before" / "export"
        export.mkdir(parents=True, exist_ok=True)
        (export / "manifest.json").write_text(json.dumps({"format": 1, "data": {}, **record}))
        run = base.run()
        run.templates = "chat" if kind == "chat" else "plain"
        tokenizer = KINDS["byte level" if kind == "chat" else kind]()
        tokenizer.chat_template = DATED
        stage = epath.Path(tmp_path) / "stage"
        return (
            types.SimpleNamespace(directory=stage, parents={"decoder": export.parent}, run=run, name="stage"),
            tokenizer,
            run.templates,
        )

    return make


@pytest.mark.parametrize(("record", "version"), [({}, 1), ({"text": Settings().to_dict()}, 2)])
def test_a_stage_that_has_started_keeps_its_settings(plan, monkeypatch, record, version):
    asked = plan("llama", text=Settings().to_dict())
    monkeypatch.setattr(checkpoints, "recorded", lambda directory: {"step": 4, **record})
    assert wording.encoder(*asked).settings.version == version


def test_an_export_says_what_it_was_made_with(plan):
    asked, tokenizer, _ = plan("chat", text=Settings(date="2025-12-24").to_dict())
    asked.directory = asked.parents["decoder"]
    assert wording.encoder(asked, tokenizer, "chat").settings == Settings(date="2025-12-24")
    asked, *_ = plan("chat")
    assert checkpoints.recorded(asked.parents["decoder"])["text"] is None


def test_a_date_goes_on_to_children(plan):
    encoder = wording.encoder(*plan("chat", text=Settings(date="2025-12-24").to_dict()))
    assert encoder.settings == Settings(date="2025-12-24") and "24 Dec" in encoder.prompt_text("caption", "")


def test_children_of_an_older_vlax(plan, caplog):
    """They keep its ids where those were others, and say so."""
    assert wording.encoder(*plan("byte level")).settings == Settings() and not caplog.messages
    assert wording.encoder(*plan("llama")).settings == OLD
    assert "answers began with a blank too many" in caplog.text


def test_a_fork_goes_on_with_what_it_was_forked_from(plan):
    asked = plan("llama", text=Settings().to_dict())
    forked = asked[0].directory / "forked"
    forked.mkdir(parents=True)
    (forked / "manifest.json").write_text(json.dumps({"format": 1, "data": {}}))
    assert wording.encoder(*asked).settings == OLD
