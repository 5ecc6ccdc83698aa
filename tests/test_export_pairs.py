"""Exports as a receiver meets them: the text that the card prints, transformers' processor and `generate`, generate.py."""

import dataclasses
import json

import numpy as np
import pair_cases
import pytest
from export_cases import assert_same
from pair_cases import LINEAR, MLP, SHORT
from PIL import Image
from transformers import AutoProcessor

import vlax
from vlax.commands.export import export
from vlax.decoding.predict import Request
from vlax.model import opening
from vlax.pretrained.reading import loader
from vlax.pretrained.writing import logit_check, whole
from vlax.text.prompts import Encoder
from vlax.text.tokenizer import load_tokenizer

SIGLIP, CLIP, AIM = "siglip_vision_model", "clip_vision_model", "aimv2_vision_model"
OWN = """
system = "Be brief."
[prompts]
caption = "What is to be seen?"
question = "Q: {question} A:"
"""
SHUFFLED = LINEAR | {"pixel_shuffle": 2, "bias": False}
# name: (layout, mask, decoder, tower, projector, tokenizer kind, templates, dtype)
PAIRS = {
    "llama 2 and clip, its chat": ("llava", "causal", "llama", CLIP, MLP, "llama", "llama", "bfloat16"),
    "mistral and dinov2, gemma's chat": ("apart", "image_bidirectional", "mistral", "dinov2", MLP, "first", "gemma", "float32"),
}
SLOW = {
    "paligemma": ("paligemma", "prefix_lm", "gemma", SIGLIP, LINEAR, "gemma", "plain", "bfloat16"),
    "paligemma 2, gemma's chat": ("paligemma", "prefix_lm", "gemma2, wide window", SIGLIP, LINEAR, "gemma", "gemma", "float32"),
    "llama and siglip": ("llava", "causal", "llama, untied", SIGLIP, MLP, "first", "plain", "float32"),
    "llama and siglip, own templates": ("llava", "causal", "llama", SIGLIP, MLP, "llama", "own", "float32"),
    "mistral and clip, instruct": ("llava", "causal", "mistral", CLIP, MLP, "llama", "instruct", "float32"),
    "qwen 2 and siglip, its chat": ("llava", "causal", "qwen2", SIGLIP, MLP, "byte level", "qwen base", "float32"),
    "qwen 3 and siglip, its chat": (
        "llava", "image_bidirectional", "qwen3", SIGLIP, MLP, "byte level", "qwen3", "bfloat16",
    ),
    "gemma and siglip, its chat": ("llava", "causal", "gemma", SIGLIP, MLP, "gemma", "gemma", "float32"),
    "llama and clip, smollm 3's chat": ("llava", "causal", "llama", CLIP, MLP, "byte level", "smollm3", "float32"),
    "llama and siglip, phi's chat": ("llava", "causal", "llama", SIGLIP, MLP, "llama", "phi", "float32"),
    "qwen 2, t5's pieces": ("llava", "causal", "qwen2", SIGLIP, MLP, "t5", "plain", "float32"),
    "llama sees the prompt": ("apart", "image_sees_prompt", "llama", SIGLIP, MLP, "llama", "llama", "bfloat16"),
    "gpt 2, one layer between": ("apart", "causal", "gpt2", CLIP, LINEAR, "byte level", "plain", "float32"),
    "opt, shuffled": ("apart", "prefix_lm", "opt", "dinov2", MLP | {"pixel_shuffle": 2}, "byte level", "instruct", "float32"),
    "gemma 2 and registers": (
        "apart", "image_bidirectional", "gemma2", "dinov2_with_registers", MLP, "gemma", "gemma", "float32",
    ),
    "gemma 2 without a cap": ("llava", "causal", "gemma2, no cap", SIGLIP, MLP, "gemma", "gemma", "float32"),
    "gemma 3": ("llava", "causal", "gemma3_text", SIGLIP, MLP, "gemma", "gemma", "bfloat16"),
    "gemma 3, masked otherwise": ("apart", "image_bidirectional", "gemma3_text", SIGLIP, MLP, "gemma", "gemma", "float32"),
    "smollm 3": ("llava", "image_bidirectional", "smollm3", SIGLIP, MLP, "byte level", "smollm3", "float32"),
    "llama and siglip, smolvlm's chat": ("llava", "causal", "llama", SIGLIP, MLP, "byte level", "smolvlm", "float32"),
    "smolvlm": ("apart", "causal", "llama, untied", SIGLIP, SHUFFLED, "byte level", "smolvlm", "bfloat16"),
    "phi 4 and aimv2": ("llava", "causal", "phi3", AIM, MLP, "byte level", "phi", "bfloat16"),
    "phi 3's window": ("apart", "image_bidirectional", "phi3, window", SIGLIP, MLP, "llama", "phi", "float32"),
    "olmo 2 and internvit": ("llava", "image_bidirectional", "olmo2", "internvl_vision", MLP, "byte level", "plain", "float32"),
    "stablelm and internvit": ("llava", "causal", "stablelm", "internvl_vision", MLP, "byte level", "plain", "float32"),
    "granite and aimv2": ("apart", "image_bidirectional", "granite", AIM, MLP, "byte level", "plain", "float32"),
    "qwen 2's window": (
        "apart", "image_bidirectional", "qwen2, window", SIGLIP, MLP, "byte level", "qwen base", "float32",
    ),
}  # fmt: skip
ALL = [*PAIRS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.mark.parametrize("name", ALL)
def test_a_receiver_gets_the_same(name, tmp_path):
    pytest.importorskip("torch", reason="parity needs torch: pip install -r requirements-parity.txt").set_num_threads(1)
    layout, mask, decoder, tower, projector, kind, templates, dtype = {**PAIRS, **SLOW}[name]
    (tmp_path / "own.toml").write_text(OWN)
    encoder = pair_cases.encoder(kind, str(tmp_path / "own.toml") if templates == "own" else templates)
    source, out = tmp_path / "stage3" / "export", tmp_path / "hf"
    config, params = pair_cases.native(source, encoder, mask, decoder, tower, projector, dtype)
    written, sentence = export(str(source), out)  # which refuses logits that differ
    assert written.layout == layout and sentence.startswith("Logit check passed")

    loaded, values = whole.load_apart(out) if layout == "apart" else loader.load_vlm(out, dtype=None)[:2]
    assert loaded == config and {str(value.dtype) for value in values.values()} == {dtype}
    assert_same(values, params)

    model, image = vlax.load(str(source)), pair_cases.picture(tmp_path)
    said, prompt = encoder.prompts["question"].replace("{question}", "is it red?"), encoder.prompt("question", "is it red?")
    ours = pair_cases.greedy(model, prompt, image)
    run = logit_check.script(out)
    parts = run.load(out)
    assert run.prompt_ids(run.own_settings(parts[0]), parts[1], said) == prompt
    assert run.generate_ids(*parts, image, said, SHORT.max_new_tokens) == ours
    own = run.own_settings(parts[0])
    assert (own["templates"], own["stops"]) == (encoder.templates, list(encoder.stops))
    own["stops"] = [encoder.stops[0], ours[3]]  # these weights end nowhere by themselves
    assert run.generate_ids(*parts, image, said, SHORT.max_new_tokens) == ours[: ours.index(ours[3]) + 1]
    where = out / "decoder" if layout == "apart" else out
    ends = json.loads((where / "generation_config.json").read_text())["eos_token_id"]
    assert ends == (list(encoder.stops) if len(encoder.stops) > 1 else encoder.stops[0])
    if layout == "apart":
        assert not pair_cases.card_code(out, "from PIL import Image, ImageOps")
        return
    inputs, ids = pair_cases.receive(out, tmp_path, said)
    images = config.tokens_per_image
    assert inputs["input_ids"][0, images:].tolist() == prompt
    np.testing.assert_allclose(inputs["pixel_values"][0].numpy(), pair_cases.pixels(model, image), atol=1e-5)
    if mask != "image_bidirectional":
        assert ids == ours
    if "add_generation_prompt=True)` writes the same text" in (out / "README.md").read_text():
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": said}]}]
        text = AutoProcessor.from_pretrained(out).apply_chat_template(messages, add_generation_prompt=True)
        assert text == pair_cases.card_text(out, said)
    else:
        assert templates in ("plain", "instruct", "own", "qwen3", "smollm3") or layout == "paligemma" or kind == "t5"
    tokens = load_tokenizer(out, config.decoder.vocab_size)
    again = Encoder(tokens, opening.templates_of(str(out), tokens), opening.text_of(str(out), tokens))
    assert (again.prompt("question", "is it red?"), again.stops) == (prompt, encoder.stops)
    assert again.answer("no", again.prompt_text("caption", "")) == encoder.answer("no", encoder.prompt_text("caption", ""))


@pytest.mark.slow
@pytest.mark.parametrize("case", ("in tiles", "within the text, apart", "within the text", "first"))
def test_generate_py_with_several_pictures(case, tmp_path):
    """Two pictures, one of them transparent, in front or where the prompt has them, whole or in tiles beside the whole."""
    pytest.importorskip("torch", reason="parity needs torch: pip install -r requirements-parity.txt").set_num_threads(1)
    encoder = pair_cases.encoder("first", "gemma")
    inside = case.startswith("within")
    encoder = Encoder(encoder.tokenizer, "chat", dataclasses.replace(encoder.settings, interleaved=inside))
    mask, decoder = ("image_bidirectional", "llama") if case in ("within the text", "first") else ("image_sees_prompt", "qwen2")
    source, out = tmp_path / "stage3" / "export", tmp_path / "hf"
    tiles = 4 if case == "in tiles" else 0
    config, _ = pair_cases.native(source, encoder, mask, decoder, SIGLIP, MLP, tiles=tiles)
    written, _ = export(str(source), out)
    assert written.layout == ("llava" if mask == "image_bidirectional" else "apart")
    if written.layout == "apart":
        assert whole.load_apart(out)[0] == config
    images = logit_check.pictures(30)
    images[0] = images[0].resize((80, 31))
    images[1].putalpha(Image.linear_gradient("L").resize(images[1].size))
    said = "is <image> like <image>" if inside else "are they alike?"
    model, run = vlax.load(str(source)), logit_check.script(out)
    parts = run.load(out)
    asked = model.encoder.asked(model.encoder.prompt_text("chat", said), 2)
    views = [model.views(image) for image in images]
    assert [len(each) for each in views] == ([4, 5] if tiles else [1, 1])
    before = [at for at, each in zip(asked.before, views, strict=True) for _ in each]
    request = Request(asked.tokens, [view for each in views for view in each], 0, before)
    ours = pair_cases.decoded(model, request)
    assert run.generate_ids(*parts, images, said, SHORT.max_new_tokens) == ours
    assert len(set(ours)) > 3 and run.generate_ids(*parts, images[::-1], said, SHORT.max_new_tokens) != ours
    if inside:
        with pytest.raises(ValueError, match="has 2 <image> and there are 1 pictures"):
            run.inputs(*parts, images[0], said)
    with pytest.raises(ValueError, match="the prompt has a special token in it"):
        run.inputs(*parts, images, "is it </s> red?")
