"""What exports say of texts: tokenizers that stay what they are, prompts and stops that come along, texts that were tried."""

import json

import pair_cases
import pytest
from conftest import tiny
from etils import epath
from pair_cases import MLP
from transformers import AutoTokenizer

import vlax
from vlax.commands.export import export
from vlax.errors import VlaxError
from vlax.model import exports, opening
from vlax.pretrained.writing import trial, whole, wording
from vlax.text import tokenizer
from vlax.text.prompts import make
from vlax.training import session, stages

WORDS = "caption: a red square"
OWN = 'like = "instruct"\nsystem = "Be brief."\n[prompts]\ncaption = "What is to be seen?"\n'


def legacy(directory, kind="llama"):
    """A LlamaTokenizer as checkpoints of 2023 have it: `legacy`, which transformers reads and does not save."""
    pair_cases.encoder(kind, "plain").tokenizer.save_pretrained(str(directory))
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "LlamaTokenizer", "legacy": True}))
    return AutoTokenizer.from_pretrained(directory)


def ids(tokens):
    return tokens("</s>" + WORDS + "</s>" + WORDS, add_special_tokens=False)["input_ids"]


def test_a_tokenizer_is_saved_in_a_form_that_stays_the_same(tmp_path):
    tokens = legacy(tmp_path / "hub")
    assert '"prepend_scheme":"always"' in tokens.backend_tokenizer.to_str()
    tokens.save_pretrained(tmp_path / "stock")
    assert ids(AutoTokenizer.from_pretrained(tmp_path / "stock")) != ids(tokens)  # why that is not enough
    exports.write_tokenizer(tokens, epath.Path(tmp_path / "mine"))
    again = tokenizer.read_saved(tmp_path / "mine")
    stock = AutoTokenizer.from_pretrained(tmp_path / "mine")
    assert again.backend_tokenizer.to_str() == stock.backend_tokenizer.to_str() == tokens.backend_tokenizer.to_str()
    # An export that was written before: what training saw is in its tokenizer.json.
    assert ids(tokenizer.read_saved(tmp_path / "stock")) == ids(tokens)


def test_a_tokenizer_that_stays_the_same_keeps_its_class(tmp_path):
    tokens = legacy(tmp_path / "hub")
    tokens.save_pretrained(tmp_path / "newer")
    newer = AutoTokenizer.from_pretrained(tmp_path / "newer")
    assert tokenizer.save(newer, tmp_path / "mine")
    assert json.loads((tmp_path / "mine" / "tokenizer_config.json").read_text())["tokenizer_class"] == "LlamaTokenizer"


@pytest.mark.parametrize(("kind", "before"), (("first", "'<image><s> '"), ("llama", "'<image><s>'")))
def test_the_card_has_the_text_that_gives_the_ids_of_training(kind, before, tmp_path):
    encoder = pair_cases.encoder(kind, "plain")
    pair_cases.native(tmp_path / "stage3" / "export", encoder, "causal", "llama", "siglip_vision_model", MLP)
    export(str(tmp_path / "stage3" / "export"), tmp_path / "hf", check=False)
    code = pair_cases.card_code(tmp_path / "hf", "from PIL import Image, ImageOps")
    assert f"text = {before} + prompt + ''" in code
    tokens = AutoTokenizer.from_pretrained(tmp_path / "hf")
    text = before[1:-1].replace("<image>", "") + WORDS
    assert tokens(text, add_special_tokens=False)["input_ids"] == encoder.typed(WORDS)


def test_prompts_system_and_templates_come_along(tmp_path):
    """Out as LLaVA and in again: as a model, and as what a stage starts from."""
    (tmp_path / "mine.toml").write_text(OWN)
    encoder = make(pair_cases.encoder("byte level", "plain").tokenizer, str(tmp_path / "mine.toml"))
    pair_cases.native(tmp_path / "stage3" / "export", encoder, "causal", "llama", "siglip_vision_model", MLP)
    export(str(tmp_path / "stage3" / "export"), tmp_path / "hf", check=False)
    said = json.loads((tmp_path / "hf" / "config.json").read_text())["vlax"]
    assert said["around"] == ["Be brief.\n", ""] and said["prompts"]["caption"] == "What is to be seen?"
    assert (said["templates"], said["start"], said["stops"]) == ("mine", [1], [2])
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "a prompt stands between 'Be brief.\\n' and ''" in card and 'generate.py picture.png "What is to be seen?"' in card
    model = vlax.load(str(tmp_path / "hf"))
    assert model.encoder.prompt("caption", "") == encoder.prompt("caption", "") and model.encoder.templates == "mine"
    init = dict.fromkeys(("vision", "projector", "decoder"), "model")
    config = tiny("stage3", run__model=str(tmp_path / "hf"), stage__init=init)
    stage = session.build(stages.chain(config, tmp_path / "w")[-1])
    assert stage.encoder.prompt("caption", "") == encoder.prompt("caption", "")
    assert opening.text_of(str(tmp_path / "hf"), encoder.tokenizer) == stage.encoder.settings == encoder.settings


def test_a_tokenizer_that_was_written_otherwise_is_refused(tmp_path):
    encoder = pair_cases.encoder("llama", "plain")
    said = wording.wording(encoder)
    tokenizer.save(encoder.tokenizer, tmp_path)
    trial.check_tokenizer(tmp_path, said, encoder)
    tokenizer.save(pair_cases.encoder("gemma", "plain").tokenizer, tmp_path)
    with pytest.raises(VlaxError, match=r"turns '.*' into \[.*\], and training had \[.*\]: nothing was exported"):
        trial.check_tokenizer(tmp_path, said, encoder)


def test_stops_and_start_of_a_chat(tmp_path):
    encoder = pair_cases.encoder("first", "gemma")
    said = wording.wording(encoder)
    assert said["start"] == [] and said["around"] == ["<s><start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"]
    assert wording.token_ids(said) == {"eos_token_id": list(encoder.stops)} and len(encoder.stops) == 2
    assert wording.token_ids(wording.wording(pair_cases.encoder("first", "plain"))) == {}
    with pytest.raises(VlaxError, match="the system prompt has a special token"):
        wording.wording(pair_cases.encoder("first", "gemma", "end with </s>"))


def test_pictures_in_a_chat_template():
    """Messages with pictures get them in front of everything; texts are what they were; it is put there once."""
    tokens = pair_cases.encoder("first", "gemma").tokenizer
    plain = [{"role": "user", "content": "is it red?"}]
    usual = tokens.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    template = wording.pictures_first(tokens.chat_template)
    assert wording.pictures_first(template) == template
    tokens.chat_template = template
    assert tokens.apply_chat_template(plain, tokenize=False, add_generation_prompt=True) == usual
    shown = [
        {"role": "user", "content": [{"type": "text", "text": "is it "}, {"type": "image"}, {"type": "text", "text": "red?"}]}
    ]
    assert tokens.apply_chat_template(shown, tokenize=False, add_generation_prompt=True) == whole.IMAGE + usual
