"""Decoders imported from transformers' checkpoints: same logits with padding, at odd lengths, for GQA and MQA shapes."""

import copy
import dataclasses
import json

import numpy as np
import pytest

from benchmarks.backbone_cases import DECODER, VOCAB, YARN
from benchmarks.backbones import TOLERANCE, decoder_case, measure, write
from vlax.models import rope
from vlax.models.build import abstract_part
from vlax.models.decoder import Decoder
from vlax.params import groups
from vlax.pretrained.families.known import DECODER as FAMILIES
from vlax.pretrained.reading.loader import decoder_source, load_decoder
from vlax.storage.hub import read_config

torch = pytest.importorskip("torch", reason="parity needs torch: pip install -r requirements-parity.txt")


def missed(case, directory, seed=0):
    """Parity of one checkpoint, and what it misses by with options off: at least ten times the tolerance."""
    exact, off = measure(case, *decoder_case(case, directory, seed)[:3])
    assert exact <= TOLERANCE
    assert min(off.values(), default=np.inf) >= 10 * TOLERANCE, off


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in DECODER.items() if case.own is not None])
def test_every_option_matters(name, tmp_path):
    missed(DECODER[name], tmp_path)


OTHERWISE = {  # other shapes
    "Gemma 3": [
        {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": 2,
         "layer_types": None, "sliding_window_pattern": 2, "final_logit_softcapping": 3.0},
        {"num_key_value_heads": 4, "num_hidden_layers": 3, "layer_types": ["full_attention"] * 3, "attention_bias": True},
    ],
    "SmolLM3": [
        {"num_hidden_layers": 5, "no_rope_layers": None, "no_rope_layer_interval": 2, "tie_word_embeddings": True},
        {"num_key_value_heads": 4, "attention_bias": True, "use_sliding_window": True, "sliding_window": 5},
    ],
    "Qwen2, YaRN": [
        {"rope_parameters": YARN},
        {"rope_parameters": YARN | {"mscale": 2.0, "mscale_all_dim": 0.5}, "num_key_value_heads": 1},
        {"rope_parameters": YARN | {"attention_factor": 0.7, "truncate": False}, "hidden_size": 64},
    ],
    "Phi-3": [{"rope_parameters": None, "sliding_window": None}, {"num_key_value_heads": 4, "tie_word_embeddings": True}],
    "Phi-4-mini": [{"num_key_value_heads": 1, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.75}}],
    "OLMo 2": [{"num_key_value_heads": 4, "attention_bias": True, "tie_word_embeddings": True}, {"num_key_value_heads": 1}],
    "Granite": [{"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 1}],
    "StableLM 2": [
        {"use_qkv_bias": False, "partial_rotary_factor": 0.25, "hidden_size": 64, "num_key_value_heads": 4},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}, "partial_rotary_factor": 1.0},
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERWISE)
def test_logits_equal_at_other_shapes_and_seeds(name, tmp_path):
    case = DECODER[name]
    for seed, values in enumerate([{}, *OTHERWISE[name]], 1):
        missed(dataclasses.replace(case, values=case.values | values, off={}), tmp_path / str(seed), seed)


SEEN_ELSEWHERE = ("Phi-3", "Qwen2, YaRN")  # Phi-4-mini is of the same family; of YaRN the tables are compared below


@pytest.mark.parametrize("name", [pytest.param(x, marks=pytest.mark.slow) if x in SEEN_ELSEWHERE else x for x in DECODER])
def test_logits_equal_and_every_option_matters(name, tmp_path):
    case = DECODER[name].quick()
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


@pytest.mark.parametrize("more", OTHERWISE["Qwen2, YaRN"])
def test_yarns_frequencies_and_attention_factor(more):
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    found = transformers.Qwen2Config(**{"num_attention_heads": 2} | more | {"hidden_size": 64})
    theirs, amplitude = ROPE_INIT_FUNCTIONS["yarn"](found)
    values = found.rope_parameters
    np.testing.assert_allclose(rope.rope_frequencies(32, values["rope_theta"], values), theirs.numpy(), rtol=1e-6)
    assert rope.rope_amplitude(values) == pytest.approx(amplitude) != 1.0


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
GEMMA3 = {
    "model_type": "gemma3_text", "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144,
    "sliding_window": 512, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "rope_scaling": None,
    "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "max_position_embeddings": 32768, "rms_norm_eps": 1e-06,
    "attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": False,
}  # fmt: skip
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
    "SmolLM3-3B": (
        "SmolLM3ForCausalLM",
        {"model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
         "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 128256, "rope_theta": 5000000.0,
         "rope_scaling": None, "no_rope_layers": [1, 1, 1, 0] * 9, "no_rope_layer_interval": 4, "sliding_window": None,
         "max_window_layers": 28, "use_sliding_window": False, "rms_norm_eps": 1e-06, "max_position_embeddings": 65536}, 3075,
    ),
    "gemma-3-270m": ("Gemma3ForCausalLM", GEMMA3 | {
        "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "_sliding_window_pattern": 6}, 268),
    "gemma-3-1b": ("Gemma3ForCausalLM", GEMMA3 | {
        "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26, "sliding_window_pattern": 6}, 999),
    "Phi-3-mini-128k": (
        "Phi3ForCausalLM",
        {"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "rope_theta": 10000.0,
         "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}, "rms_norm_eps": 1e-05,
         "max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "tie_word_embeddings": False,
         "attention_bias": False, "sliding_window": 262144}, 3821,
    ),
    "Phi-4-mini": (
        "Phi3ForCausalLM",
        {"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
         "num_attention_heads": 24, "num_key_value_heads": 8, "vocab_size": 200064, "rope_theta": 10000.0,
         "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}, "rms_norm_eps": 1e-05,
         "max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "tie_word_embeddings": True,
         "partial_rotary_factor": 0.75, "attention_bias": False, "sliding_window": 262144}, 3836,
    ),
    "OLMo-2-0425-1B": (
        "Olmo2ForCausalLM",
        {"model_type": "olmo2", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
         "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 100352, "rope_theta": 500000.0,
         "rope_scaling": None, "max_position_embeddings": 4096, "rms_norm_eps": 1e-06, "tie_word_embeddings": False}, 1484,
    ),
    "granite-3.1-2b": (
        "GraniteForCausalLM",
        {"model_type": "granite", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 40,
         "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 49155, "rope_theta": 5000000.0,
         "embedding_multiplier": 12.0, "attention_multiplier": 0.015625, "residual_multiplier": 0.22, "logits_scaling": 8.0,
         "rope_scaling": None, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "tie_word_embeddings": True}, 2533,
    ),
    "stablelm-2-1_6b": (
        "StableLmForCausalLM",
        {"model_type": "stablelm", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
         "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 100352, "rope_theta": 10000,
         "partial_rotary_factor": 0.25, "use_qkv_bias": True, "layer_norm_eps": 1e-05, "max_position_embeddings": 4096,
         "tie_word_embeddings": False}, 1644,
    ),
}  # fmt: skip
QUICK = ("Qwen2.5-0.5B", "gemma-2b")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in REAL])
def test_parameter_counts_of_real_configs(name, tmp_path):
    import transformers

    model, values, millions = REAL[name]
    (tmp_path / "config.json").write_text(json.dumps(values))
    hf = read_config(tmp_path, FAMILIES)
    config = FAMILIES[hf["model_type"]].config(hf)
    with torch.device("meta"):
        reference = getattr(transformers, model)(transformers.AutoConfig.for_model(**copy.deepcopy(values)))
    count = groups.count(abstract_part(Decoder, config))
    assert count == sum(value.numel() for value in reference.parameters())
    assert count // 10**6 == millions
    assert config.rope_theta == values.get("rope_theta")
    if name.startswith("Phi"):  # 96 dimensions turn in both: all of them, or three quarters of 128
        assert (config.rotary_dim or config.head_dim) == 96
        assert (config.rope_scaling["factor"], config.rope_scaling["original_max_position_embeddings"]) == (32.0, 4096)
    else:
        assert config.rope_scaling == values.get("rope_scaling")
    assert (config.activation == "gelu_tanh") == (name == "gpt2" or name.startswith("gemma"))
    if name.startswith("gemma-3"):
        assert (config.window, config.window_rope_theta) == (512, 10000.0)
        assert [i for i in range(config.layers) if i not in config.window_layers] == list(range(5, config.layers, 6))
    else:
        assert config.window == (262144 if name.startswith("Phi") else None)
    assert config.nope_layers == (tuple(range(3, 36, 4)) if name == "SmolLM3-3B" else ())
