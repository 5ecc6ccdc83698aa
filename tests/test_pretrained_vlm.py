"""Whole models imported: same logits as transformers under each one's mask, same greedy tokens."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.backbone_wholes import WHOLE
from benchmarks.backbones import TOLERANCE, build, difference, measure, whole_batch, whole_case, whole_inputs, write
from vlax.errors import VlaxError
from vlax.models.build import abstract_part
from vlax.models.decoder import Decoder
from vlax.models.vision import VisionTower
from vlax.models.vlm import VLM
from vlax.params import groups
from vlax.pretrained.reading.loader import load_decoder, load_vision, load_vlm

torch = pytest.importorskip("torch", reason="parity needs torch: pip install -r requirements-parity.txt")
PROMPT, NEW = 7, 20


def slow(names, *found):
    return [pytest.param(name, marks=pytest.mark.slow) if name in found else name for name in names]


@pytest.mark.parametrize("name", slow(WHOLE, "Idefics3", "InternVL", "PaliGemma", "LLaVA-OneVision"))
def test_logits_equal_and_the_mask_matters(name, tmp_path):
    exact, off = measure(WHOLE[name], *whole_case(WHOLE[name], tmp_path)[:3])
    assert exact <= TOLERANCE
    assert min(off.values()) >= 10 * TOLERANCE, off


def greedy(model: VLM, pictures, prompt) -> np.ndarray:
    """The most likely NEW tokens, by running the whole model anew for each of them. pictures: what a batch says of them."""
    rows, length = len(prompt), PROMPT + NEW
    index = np.arange(length)
    tokens = np.pad(prompt, ((0, 0), (0, NEW)))
    run = jax.jit(lambda batch: model(batch))
    for end in range(PROMPT, length):
        segment = np.broadcast_to(np.where(index < PROMPT, 1, np.where(index < end, 2, 0)), (rows, length))
        batch = pictures | {"tokens": tokens, "segment": segment, "example": np.minimum(segment, 1)}
        tokens[:, end] = np.asarray(run(batch))[:, end - 1].argmax(-1)
    return tokens[:, PROMPT:]


# Without the cap the random Gemma 2 repeats one token, which shows nothing.
@pytest.mark.parametrize(
    "name",
    slow(
        [n for n in WHOLE if n != "LLaVA, SigLIP + Gemma 2"],
        "Idefics3",
        "SmolVLM",
        "Gemma 3, whole",
        "InternVL",
        "LLaVA-OneVision",
        "PaliGemma",
    ),
)
def test_greedy_generation_gives_the_same_twenty_tokens(name, tmp_path):
    case = WHOLE[name]
    model = write(case, tmp_path, gain=5.0)
    config, params, _ = load_vlm(tmp_path)
    batch = whole_batch(config)
    prompt = batch["tokens"][:, :PROMPT]
    short = batch | {"tokens": prompt, "segment": np.ones_like(prompt), "example": np.ones_like(prompt)}
    inputs = whole_inputs(short, config, case)
    model.generation_config.eos_token_id = None
    model.generation_config.suppress_tokens = None
    with torch.no_grad():
        theirs = model.generate(**inputs, do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW)[:, -NEW:].numpy()
    pictures = {name: batch[name] for name in ("image", "has_image", "shown") if name in batch}
    ours = greedy(build(VLM, config, params, ""), pictures, prompt)
    assert len(np.unique(theirs)) > 5  # a loop over one token would show nothing
    np.testing.assert_array_equal(ours, theirs)


def test_a_row_without_image(tmp_path):
    case = WHOLE["LLaVA, CLIP + Llama"]
    model = write(case, tmp_path, gain=5.0)
    config, params, _ = load_vlm(tmp_path)
    batch = whole_batch(config) | {"has_image": np.zeros((2, 1), bool)}
    with torch.no_grad():
        reference = model(torch.tensor(batch["tokens"][:1])).logits.numpy()
    ours = build(VLM, config, params, "")({name: jnp.asarray(value) for name, value in batch.items()})
    assert difference(reference, np.asarray(ours)[:1]) <= TOLERANCE


def test_the_towers_of_a_whole_model_can_be_taken_out(tmp_path):
    write(WHOLE["PaliGemma"], tmp_path)
    whole, params, _ = load_vlm(tmp_path)
    vision, vision_params, report = load_vision(tmp_path)
    decoder, decoder_params, _ = load_decoder(tmp_path)
    assert (vision, decoder) == (whole.vision, whole.decoder)
    assert any("language_model" in name for name in report.ignored)
    for path, value in (vision_params | decoder_params).items():
        np.testing.assert_array_equal(value, params[path])
    assert len(params) == len(vision_params) + len(decoder_params) + 2
    build(VisionTower, vision, params, "vision/"), build(Decoder, decoder, params, "decoder/")


SMOL = {
    "model_type": "llama", "architectures": ["VLlama3ForCausalLM"], "vocab_size": 49280, "head_dim": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 100000, "max_position_embeddings": 8192, "is_llama_config": True, "qk_layer_norms": False,
}  # fmt: skip
BASE = {"model_type": "smolvlm_vision", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "image_size": 512, "patch_size": 16, "max_image_size": {"longest_edge": 512}}  # fmt: skip
LARGE = {"model_type": "idefics3", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
         "num_attention_heads": 16, "image_size": 384, "patch_size": 14}  # fmt: skip
QWEN = {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 152000, "tie_word_embeddings": True}  # fmt: skip
REAL = {  # name: (config, millions of parameters, tokens of a picture)
    "SmolVLM-256M": ({"model_type": "smolvlm", "scale_factor": 4, "vision_config": BASE, "text_config": SMOL | {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3}}, 256, 64),
    "SmolVLM-500M": ({"model_type": "smolvlm", "scale_factor": 4, "vision_config": BASE, "text_config": SMOL | {
        "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
        "num_key_value_heads": 5}}, 507, 64),
    "SmolVLM": ({"model_type": "idefics3", "scale_factor": 3, "vision_config": LARGE, "text_config": SMOL | {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
        "vocab_size": 49155, "rope_theta": 273768.0}}, 2246, 81),
    "Gemma 3 4B": ({"model_type": "gemma3", "mm_tokens_per_image": 256, "boi_token_index": 255999, "eoi_token_index": 256000,
        "image_token_index": 262144, "vision_config": LARGE | {"model_type": "siglip_vision_model", "image_size": 896,
        "vision_use_head": False}, "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
        "num_hidden_layers": 34, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
        "sliding_window": 1024, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}}, 4300, 256),
    "LLaVA-OneVision 0.5B": ({"model_type": "llava_onevision", "vision_config": LARGE | {"model_type": "siglip_vision_model",
        "num_hidden_layers": 26, "vision_use_head": False}, "text_config": QWEN, "tie_word_embeddings": True,
        "image_token_id": 151646}, 893, 8829),
    "InternVL3-1B": ({"model_type": "internvl", "image_token_id": 151667, "vision_config": {"model_type": "internvl_vision",
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": [448, 448], "patch_size": [14, 14], "attention_bias": True}, "tie_word_embeddings": False,
        "text_config": QWEN | {"vocab_size": 151674, "tie_word_embeddings": False}}, 938, 256),
}  # fmt: skip


@pytest.mark.parametrize("name", slow(REAL, *REAL))
def test_parameter_counts_of_real_configs(name, tmp_path):
    import transformers

    values, millions, tokens = REAL[name]
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = vlm_config_without_weights(tmp_path)
    with torch.device("meta"):
        kinds = {"smolvlm": "SmolVLM", "idefics3": "Idefics3", "gemma3": "Gemma3", "llava_onevision": "LlavaOnevision"}
        kind = (kinds | {"internvl": "InternVL"})[values["model_type"]]
        hf = transformers.AutoConfig.for_model(**copy.deepcopy(values))
        reference = getattr(transformers, f"{kind}ForConditionalGeneration")(hf)
    count = groups.count(abstract_part(VLM, config))
    unused = 2 * 1152 if kind == "LlavaOnevision" else 0  # the tower's last norm, which its features leave out
    assert count == sum(value.numel() for value in reference.parameters()) - unused
    mask = "image_bidirectional" if kind == "Gemma3" else "causal"
    assert (count // 10**6, config.tokens_per_image, config.mask) == (millions, tokens, mask)


def vlm_config_without_weights(directory, **sizes):
    from vlax.pretrained.reading import loader

    return loader.whole_source(directory, **sizes, weights=False).config


def test_patches_that_cannot_be_joined_are_refused_with_a_size_that_can(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(REAL["SmolVLM-256M"][0]))
    assert vlm_config_without_weights(tmp_path, image_size=320).tokens_per_image == 25
    with pytest.raises(VlaxError, match=r"25 x 25 patches can't be joined 4 x 4: .* multiple of 64 pixels, such as 384"):
        vlm_config_without_weights(tmp_path, image_size=400)
