"""Decoders imported from transformers' checkpoints: same logits with padding, at odd lengths, for GQA and MQA shapes."""

import copy
import json

import numpy as np
import pytest

from benchmarks.backbone_cases import DECODER, VOCAB
from benchmarks.backbones import TOLERANCE, decoder_case, measure, write
from vlax.models.decoder import Decoder
from vlax.params import groups
from vlax.pretrained.families.known import DECODER as FAMILIES
from vlax.pretrained.reading.load_plan import abstract
from vlax.pretrained.reading.loader import decoder_source, load_decoder
from vlax.storage.hub import read_config

torch = pytest.importorskip("torch", reason="parity needs torch: pip install -r requirements-parity.txt")


@pytest.mark.parametrize("name", DECODER)
def test_logits_equal_and_every_option_matters(name, tmp_path):
    case = DECODER[name]
    exact, off = measure(case, *decoder_case(case, tmp_path)[:3])
    assert exact <= TOLERANCE
    assert min(off.values()) >= 10 * TOLERANCE, off
    steps, stored, report = decoder_source(tmp_path, None).plan()
    assert not report.ignored and len(report.loaded) == len(stored)
    for step in steps:  # the name map works both ways
        arrays = [stored[tensor].read() for tensor in step.tensors]
        for before, after in zip(arrays, step.rule.write(step.rule.read(arrays)), strict=True):
            unused = 2 if "embed_positions" in step.tensors[0] else 0
            np.testing.assert_array_equal(before[unused:], after[unused:])


def test_bfloat16_checkpoints_and_dtypes_by_path(tmp_path):
    model = write(DECODER["Qwen2"], tmp_path).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    _, stored, report = load_decoder(tmp_path, dtype=None)
    assert {str(value.dtype) for value in stored.values()} == {"bfloat16"} and not report.cast
    _, mixed, report = load_decoder(tmp_path, dtype=lambda path: np.float32 if "norm" in path else "bfloat16")
    assert len(report.cast) == 7 and "cast 7 bfloat16 -> float32" in report.summary()
    for path, value in mixed.items():
        assert str(value.dtype) == ("float32" if "norm" in path else "bfloat16")
        np.testing.assert_array_equal(value.astype(np.float32), stored[path].astype(np.float32))


def test_larger_vocabulary_keeps_the_old_rows(tmp_path):
    write(DECODER["Qwen2"], tmp_path)
    _, small, _ = load_decoder(tmp_path)
    config, large, report = load_decoder(tmp_path, vocab_size=128)
    assert config.vocab_size == 128 and len(report.reshaped) == 2
    np.testing.assert_array_equal(large["decoder/embedding"][:VOCAB], small["decoder/embedding"])
    np.testing.assert_array_equal(large["decoder/head"][:, :VOCAB], small["decoder/head"])
    np.testing.assert_allclose(
        large["decoder/embedding"][VOCAB:], small["decoder/embedding"].mean(0)[None].repeat(61, 0), rtol=1e-6
    )


SCALING = {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
           "rope_type": "llama3"}  # fmt: skip
REAL = {  # as in the hub's config.json, older key names included
    "Qwen2.5-0.5B": (
        "Qwen2ForCausalLM",
        {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
         "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "rope_theta": 1000000.0,
         "tie_word_embeddings": True, "rms_norm_eps": 1e-06, "max_position_embeddings": 32768, "sliding_window": 32768,
         "max_window_layers": 24, "use_sliding_window": False, "torch_dtype": "bfloat16", "hidden_act": "silu"}, 494,
    ),
    "SmolLM2-360M": (
        "LlamaForCausalLM",
        {"model_type": "llama", "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32,
         "num_attention_heads": 15, "num_key_value_heads": 5, "vocab_size": 49152, "rope_theta": 100000, "rope_scaling": None,
         "tie_word_embeddings": True, "rms_norm_eps": 1e-05, "max_position_embeddings": 8192}, 361,
    ),
    "Llama-3.2-1B": (
        "LlamaForCausalLM",
        {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
         "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "rope_theta": 500000.0,
         "rope_scaling": SCALING, "tie_word_embeddings": True, "rms_norm_eps": 1e-05, "max_position_embeddings": 131072}, 1235,
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}, 124,
    ),
    "gemma-2b": (
        "GemmaForCausalLM",
        {"model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
         "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000, "hidden_act": "gelu",
         "rope_theta": 10000.0}, 2506,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_parameter_counts_of_real_configs(name, tmp_path):
    import transformers

    model, values, millions = REAL[name]
    (tmp_path / "config.json").write_text(json.dumps(values))
    hf = read_config(tmp_path, FAMILIES)
    config = FAMILIES[hf["model_type"]].config(hf)
    with torch.device("meta"):
        reference = getattr(transformers, model)(transformers.AutoConfig.for_model(**copy.deepcopy(values)))
    count = groups.count(abstract(lambda rngs: Decoder(config, rngs=rngs)))
    assert count == sum(value.numel() for value in reference.parameters())
    assert count // 10**6 == millions
    assert config.rope_theta == values.get("rope_theta") and config.rope_scaling == values.get("rope_scaling")
    assert config.window is None and (config.activation == "gelu_tanh") == (name in ("gpt2", "gemma-2b"))
