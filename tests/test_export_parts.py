"""Towers and decoders out: read back bit-equal from Hugging Face layout, and transformers computes the same."""

import dataclasses

import numpy as np
import pytest
from export_cases import DECODERS, LEARNED, SIZES, TEXT, TEXT_SIZES, TOWERS, assert_same, drawn
from PIL import Image

import vlax
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.models.build import abstract_model
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.models.lora import LoRAConfig
from vlax.models.vision import VisionConfig, VisionTower
from vlax.models.vlm import VLMConfig
from vlax.params import groups
from vlax.pretrained.reading import loader
from vlax.pretrained.writing import adapter, logit_check, writer
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder
from vlax.text.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXT * 4, 300)


RARE = ("phi3, window", "llama, yarn", "olmo2", "granite", "aimv2_vision_model", "internvl_vision")


@pytest.mark.parametrize("name", [pytest.param(x, marks=pytest.mark.slow) if x in RARE else x for x in DECODERS])
def test_decoders_come_back_bit_equal(name, tokenizer, tmp_path):
    config = DecoderConfig(**TEXT_SIZES | DECODERS[name])
    params = drawn(Decoder, config, "decoder/", "bfloat16" if name == "qwen2" else "float32")
    written = writer.write_decoder(tmp_path, config, params, tokenizer)
    assert written["model_type"] == name.split(",")[0]
    loaded, values, report = loader.load_decoder(tmp_path, dtype=None)
    assert loaded == config and not report.ignored
    assert_same(values, params)
    again = load_tokenizer(tmp_path, config.vocab_size)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert (again.pad_token_id, again.bos_token_id, again.eos_token_id) == (0, 1, 2)


@pytest.mark.parametrize("name", [pytest.param(x, marks=pytest.mark.slow) if x in RARE else x for x in TOWERS])
def test_towers_come_back_bit_equal(name, tmp_path):
    config = VisionConfig(**SIZES | TOWERS[name])
    params = drawn(VisionTower, config, "vision/")
    assert writer.write_vision(tmp_path, config, params)["model_type"] == name.split(",")[0]
    loaded, values, _ = loader.load_vision(tmp_path, dtype=None)
    assert loaded == config
    assert_same(values, params)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 41, 3), dtype=np.uint8))
    np.testing.assert_array_equal(loader.preprocess(tmp_path).apply(image), Preprocess(30).apply(image))
    crop = Preprocess(30, "crop", 36, 2)
    writer.write_vision(tmp_path, config, params, preprocess=crop)
    assert loader.preprocess(tmp_path) == dataclasses.replace(crop, mean=config.mean, std=config.std)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"embed_scale": True}, ("gemma, the nearest", "norm_offset=0.0 (there 1.0)")),
        ({"norm": "layer", "qk_norm": True}, ("qwen3, the nearest", "norm='layer' (there 'rms')")),
        (LEARNED | {"kv_heads": 2}, ("kv_heads=2 (there 4)",)),
    ],
)
def test_decoders_that_no_family_expresses(fields, words, tokenizer, tmp_path):
    config = DecoderConfig(**TEXT_SIZES | fields)
    with pytest.raises(VlaxError) as error:
        writer.write_decoder(tmp_path / "out", config, drawn(Decoder, config, "decoder/"), tokenizer)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words)
    assert not (tmp_path / "out").exists()


def alone(config: VLMConfig, params: dict, tokenizer) -> vlax.Model:
    """A Model that was never on disk; a tower or a decoder is enough for its part of the check."""
    graphdef = abstract_model(config, np.float32)[0]
    values = {path: np.asarray(value, np.float32) for path, value in params.items()}
    return vlax.Model(config, values, Encoder(tokenizer, "plain"), graphdef, None, {})


QUICK = ("llama, untied", "qwen2", "gemma3_text", "gpt2")  # RoPE, biases, windows, learned positions


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in DECODERS])
def test_decoders_compute_the_same_in_transformers(name, tokenizer, tmp_path):
    pytest.importorskip("torch", reason="parity needs torch: pip install -r requirements-parity.txt")
    config = DecoderConfig(**TEXT_SIZES | DECODERS[name])
    params = drawn(Decoder, config, "decoder/")
    writer.write_decoder(tmp_path, config, params, tokenizer)
    assert logit_check.check(tmp_path, "decoder", alone(VLMConfig(config), params, tokenizer)) <= logit_check.TOLERANCE


def test_no_adapter_is_written_for_a_class_that_fuses_its_matrices(tmp_path):
    for name in ("phi3", "gpt2"):
        config = DecoderConfig(**TEXT_SIZES | DECODERS[name], lora=LoRAConfig(rank=3, alpha=6.0, targets=("q", "down")))
        assert not adapter.write(tmp_path / "adapter", config, {"decoder/layers/0/attention/q/lora_a": np.zeros((32, 3))})
    assert not (tmp_path / "adapter").exists()


@pytest.mark.slow  # test_lora.py has the layout
@pytest.mark.parametrize(
    "name", ("llama, untied", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "olmo2", "granite", "stablelm")
)
def test_the_adapter_is_loaded_by_peft(name, tokenizer, tmp_path):
    """Decoder and adapter, each as written, put together by PEFT: the logits of the decoder with its adapters."""
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install -r requirements-parity.txt")
    peft = pytest.importorskip("peft", reason="PEFT reads the adapter: pip install -r requirements-parity.txt")
    from transformers import AutoModelForCausalLM

    plain = DecoderConfig(**TEXT_SIZES | DECODERS[name])
    config = dataclasses.replace(plain, lora=LoRAConfig(rank=3, alpha=6.0, targets=("q", "k", "v", "o", "up", "gate", "down")))
    params = drawn(Decoder, config, "decoder/")
    adapters = {path: value for path, value in params.items() if "/lora_" in path}
    base = {path: value for path, value in params.items() if path not in adapters}
    writer.write_decoder(tmp_path / "decoder", plain, base, tokenizer)
    assert adapters and adapter.write(tmp_path / "adapter", config, adapters)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "decoder", dtype=torch.float32)
    ids = np.asarray([tokenizer(TEXT[1])["input_ids"]])
    with torch.no_grad():
        without = stock(torch.tensor(ids)).logits.numpy()
        theirs = peft.PeftModel.from_pretrained(stock, tmp_path / "adapter")(torch.tensor(ids)).logits.numpy()
    language = groups.rebuild(abstract_model(VLMConfig(config), np.float32)[0], params).decoder
    sees, positions = np.tril(np.ones((1, ids.shape[1], ids.shape[1]), bool)), np.arange(ids.shape[1])[None]
    ours = np.asarray(language.logits(language(language.embed(ids), positions, sees)))
    assert np.abs(ours - theirs).max() / np.ptp(ours) <= logit_check.TOLERANCE
    assert np.abs(ours - without).max() / np.ptp(ours) > 0.05
