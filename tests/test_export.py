"""Models out: what is written in Hugging Face layout is read back bit-equal, and transformers computes the same from it."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from vlax.data.tokenizer import train_bpe
from vlax.errors import VlaxError
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.models.vision import VisionConfig, VisionTower
from vlax.pretrained import loader, writer
from vlax.pretrained.images import Preprocess
from vlax.pretrained.plan import abstract
from vlax.pretrained.tokenizer import load_tokenizer

VOCAB = 304
TEXT = ["caption: a red dog", "question: is it red? answer: no, it isn't 2024"]
TEXT_SIZES = {"vocab_size": VOCAB, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_dim": 44}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8}  # fmt: skip
GEMMA = {"norm_offset": 1.0, "embed_scale": True, "activation": "gelu_tanh"}
GEMMA2 = GEMMA | {"post_norms": True, "attention_scale": 20**-0.5, "attention_softcap": 2.0, "logit_softcap": 3.0,
                  "window": 5, "window_layers": (0,)}  # fmt: skip
LEARNED = {"norm": "layer", "gated_mlp": False, "mlp_bias": True, "qkv_bias": True, "out_bias": True, "rope_theta": None,
           "max_positions": 64, "kv_heads": 4}  # fmt: skip
DECODERS = {
    "llama": {"eps": 1e-5},
    "llama, untied": {"tied": False, "head_dim": 12, "rope_scaling": LLAMA3},
    "llama, biases": {"qkv_bias": True, "out_bias": True, "mlp_bias": True},
    "mistral": {"window": 5, "window_layers": (0, 1)},
    "qwen2": {"qkv_bias": True},
    "qwen2, window": {"qkv_bias": True, "head_dim": 12, "tied": False, "window": 5, "window_layers": (1,)},
    "qwen3": {"qk_norm": True, "head_dim": 12},
    "gpt2": LEARNED | {"activation": "gelu_tanh"},
    "opt": LEARNED | {"activation": "relu", "eps": 1e-5},
    "gemma": GEMMA,
    "gemma2": GEMMA2,
}
SIZES = {"image_size": 30, "patch_size": 7, "width": 32, "layers": 2, "heads": 4, "mlp_dim": 64}
CLIP = {"class_token": True, "pre_norm": True, "post_norm": False, "patch_bias": False, "activation": "quick_gelu"}
DINO = {"class_token": True, "layer_scale": True, "activation": "gelu"}
TOWERS = {
    "dinov2, raw": DINO | {"post_norm": False},
    "siglip_vision_model": {"mean": (0.4, 0.5, 0.6)},
    "siglip_vision_model, not post-normed": {"post_norm": False},
    "clip_vision_model": CLIP,
    "dinov2": DINO | {"gated_mlp": True, "activation": "silu", "mlp_dim": 48},
    "dinov2_with_registers": DINO | {"registers": 3, "post_norm": False},
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXT * 4, 300)


def drawn(module, config, path: str, dtype="float32") -> dict:
    """{path: array}, every parameter redrawn: zero biases and unit norms hide faults."""
    rng = np.random.default_rng(0)
    shapes = abstract(lambda rngs: module(config, rngs=rngs))
    values = {name: rng.standard_normal(leaf.shape) * (0.3 if leaf.ndim > 1 else 0.2) for name, leaf in sorted(shapes.items())}
    return {path + name: (value + name.endswith("scale")).astype(np.dtype(dtype)) for name, value in values.items()}


def assert_same(have: dict, want: dict) -> None:
    assert have.keys() == want.keys()
    for name, value in want.items():
        assert have[name].dtype == value.dtype
        np.testing.assert_array_equal(have[name], value, err_msg=name)


@pytest.mark.parametrize("name", DECODERS)
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


@pytest.mark.parametrize("name", TOWERS)
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
        ({"norm": "layer"}, ("llama, the nearest", "norm='layer'")),
        (LEARNED | {"kv_heads": 2}, ("kv_heads=2 (there 4)",)),
    ],
)
def test_decoders_that_no_family_expresses(fields, words, tokenizer, tmp_path):
    config = DecoderConfig(**TEXT_SIZES | fields)
    with pytest.raises(VlaxError) as error:
        writer.write_decoder(tmp_path / "out", config, drawn(Decoder, config, "decoder/"), tokenizer)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words)
    assert not (tmp_path / "out").exists()
