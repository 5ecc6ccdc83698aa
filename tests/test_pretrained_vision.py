"""Vision towers imported from transformers' checkpoints: same features, positions resampled alike, same preprocessing."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.backbone_cases import VISION
from benchmarks.backbones import TOLERANCE, difference, measure, vision_case, write
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.models.build import abstract_part
from vlax.models.vision import VisionTower
from vlax.params import groups
from vlax.pretrained.families.known import VISION as FAMILIES
from vlax.pretrained.families.known import vision_tower
from vlax.pretrained.reading import positions
from vlax.pretrained.reading.loader import load_vision, preprocess, vision_source
from vlax.pretrained.reading.tensors import headers
from vlax.storage.hub import read_config

torch = pytest.importorskip("torch", reason="parity needs torch: pip install -r requirements-parity.txt")


SEEN_ELSEWHERE = ("DINOv2", "DINOv2 SwiGLU", "CLIP in CLIPModel")  # options that DINOv2 registers, DINOv3 SwiGLU and CLIP have


@pytest.mark.parametrize("name", [pytest.param(x, marks=pytest.mark.slow) if x in SEEN_ELSEWHERE else x for x in VISION])
def test_features_equal_and_every_option_matters(name, tmp_path):
    case = VISION[name].quick()
    exact, off = measure(case, *vision_case(case, tmp_path)[:3])
    assert exact <= TOLERANCE
    assert min(off.values(), default=np.inf) >= 10 * TOLERANCE, off


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in VISION.items() if case.own is not None])
def test_every_option_matters_at_other_seeds_and_sizes_too(name, tmp_path):
    case = VISION[name]
    off = measure(case, *vision_case(case, tmp_path / "0", seed=1)[:3])[1]
    assert min(off.values()) >= 10 * TOLERANCE, off
    for seed, size in ((2, None), (3, 21), (4, 56)):
        if name == "AIMv2" and size:
            continue  # its reference takes pictures of one size alone
        reference, run, config, _ = vision_case(case, tmp_path / str(seed), size, seed)
        assert difference(reference, run(config)) <= TOLERANCE


@pytest.mark.parametrize("name", ["SigLIP in SiglipModel", "CLIP in CLIPModel", "DINOv2 registers"])
def test_report_lists_what_is_left_out_and_rules_are_reversible(name, tmp_path):
    report = vision_case(VISION[name], tmp_path)[3]
    kinds = {entry.split(".")[0] for entry in report.ignored}
    expected = {"SigLIP": {"text_model", "vision_model", "logit_scale", "logit_bias"}, "DINOv2": {"embeddings"}}
    expected["CLIP"] = {"text_model", "vision_model", "text_projection", "visual_projection", "logit_scale"}
    assert kinds == expected[name.split(" ")[0]]
    if name.startswith("CLIP"):  # the features of the last layer but one: the last does not run
        assert sum(".layers.2." in entry for entry in report.ignored) == 16
    stored = headers(tmp_path)
    steps, _, _ = vision_source(tmp_path, None, None).plan()
    for step in steps:
        arrays = [stored[tensor].read() for tensor in step.tensors]
        for before, after in zip(arrays, step.rule.write(step.rule.read(arrays)), strict=True):
            np.testing.assert_array_equal(before, after)


RESAMPLED = [("SigLIP", 21), ("CLIP", 56), ("DINOv2", 56), ("DINOv2 registers", 56), ("DINOv2 registers", 21),
             ("SigLIP 2 NaFlex", 21), ("SigLIP 2 NaFlex", 56), ("DINOv3", 56)]  # fmt: skip


QUICK_SIZES = [("SigLIP", 21), ("DINOv2", 56), ("SigLIP 2 NaFlex", 56)]


@pytest.mark.parametrize(
    ("name", "image_size"), [pytest.param(*one, marks=() if one in QUICK_SIZES else pytest.mark.slow) for one in RESAMPLED]
)
def test_positions_are_resampled_as_the_reference_does(name, image_size, tmp_path):
    case = VISION[name]
    reference, run, config, report = vision_case(case, tmp_path, image_size)
    assert config.image_size == image_size
    if name != "DINOv3":  # whose patches turn by where they lie: it has no table
        assert report.reshaped[0].startswith("vision/position (") and "reshaped vision/position" in report.summary()
    assert difference(reference, run(config)) <= TOLERANCE


def test_positions_that_are_stored_short_are_not_shortened_again(tmp_path):
    """Of a bfloat16 checkpoint: what is computed is float32 where that is asked for, and as stored where nothing is."""
    write(VISION["SigLIP"], tmp_path).to(torch.bfloat16).save_pretrained(tmp_path)
    _, stored, _ = load_vision(tmp_path, dtype=None)
    _, wide, _ = load_vision(tmp_path, image_size=21, dtype=np.float32)
    _, short, _ = load_vision(tmp_path, image_size=21, dtype=None)
    table, tokens = np.asarray(stored["vision/position"], np.float32), wide["vision/position"].shape[0]
    np.testing.assert_array_equal(wide["vision/position"], positions.resample(table, tokens, 0, "bicubic"))
    assert short["vision/position"].dtype == stored["vision/position"].dtype == "bfloat16"
    assert not np.array_equal(wide["vision/position"], np.asarray(short["vision/position"], np.float32))


DINO3 = {
    "model_type": "dinov3_vit", "patch_size": 16, "image_size": 224, "num_register_tokens": 4, "key_bias": False,
    "layer_norm_eps": 1e-05, "layerscale_value": 1.0, "rope_theta": 100.0, "pos_embed_rescale": 2.0,
}  # fmt: skip
REAL = {
    "siglip-so400m-patch14-224": (
        "SiglipVisionModel",
        {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
         "num_attention_heads": 16, "patch_size": 14, "image_size": 224, "vision_use_head": False},
        0, 412,
    ),
    "clip-vit-large-patch14-336": (
        "CLIPVisionModel",
        {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
         "num_attention_heads": 16, "patch_size": 14, "image_size": 336, "projection_dim": 768},
        2 * 1024, 303,  # the pooled class token's norm is the one thing that vlax has not
    ),
    "dinov3-vitb16-pretrain-lvd1689m": (  # the token of masked patches is used in pretraining only
        "DINOv3ViTModel", DINO3 | {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                                   "num_attention_heads": 12, "hidden_act": "gelu", "use_gated_mlp": False}, 768, 85,
    ),
    "dinov3-vith16plus-pretrain-lvd1689m": (
        "DINOv3ViTModel", DINO3 | {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
                                   "num_attention_heads": 20, "hidden_act": "silu", "use_gated_mlp": True}, 1280, 840,
    ),
    "aimv2-large-patch14-224": (
        "Aimv2VisionModel",
        {"model_type": "aimv2_vision_model", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24,
         "num_attention_heads": 8, "patch_size": 14, "image_size": 224, "use_head": False}, 0, 309,
    ),
    "InternViT-300M-448px": (
        "InternVLVisionModel",
        {"model_type": "internvl_vision", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
         "num_attention_heads": 16, "patch_size": [14, 14], "image_size": [448, 448], "attention_bias": True}, 0, 304,
    ),
    "siglip2-base-patch16-naflex": (
        "Siglip2VisionModel", {"model_type": "siglip2_vision_model", "vision_use_head": False}, 0, 85,
    ),
    "siglip2-so400m-patch16-naflex": (
        "Siglip2VisionModel",
        {"model_type": "siglip2_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
         "num_attention_heads": 16, "patch_size": 16, "num_patches": 256, "vision_use_head": False}, 0, 412,
    ),
}  # fmt: skip


QUICK = ("siglip-so400m-patch14-224",)


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in REAL])
def test_parameter_counts_of_real_configs(name, tmp_path):
    import transformers

    model, values, unused, millions = REAL[name]
    (tmp_path / "config.json").write_text(json.dumps(values))
    hf = read_config(tmp_path, FAMILIES)
    config = vision_tower(hf)[0].config(hf)
    with torch.device("meta"):
        reference = getattr(transformers, model)(transformers.AutoConfig.for_model(**values))
    count = groups.count(abstract_part(VisionTower, config))
    assert count + unused == sum(value.numel() for value in reference.parameters())
    assert count // 10**6 == millions
    assert config.image_size == {"siglip2": 256, "InternV": 448}.get(name[:7], values.get("image_size"))


def noise(width, height):
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


PROCESSORS = {
    "siglip": ("SiglipImageProcessorPil", {"size": {"height": 30, "width": 30}}, "squash"),
    "clip": ("CLIPImageProcessorPil", {"size": {"shortest_edge": 30}, "crop_size": {"height": 30, "width": 30}}, "crop"),
    "dinov2": ("BitImageProcessorPil", {"size": {"shortest_edge": 41}, "crop_size": {"height": 30, "width": 30}}, "crop"),
    "llava": ("LlavaImageProcessorPil", {"size": {"shortest_edge": 30}, "crop_size": 30, "do_pad": True}, "pad"),
    "scaled": ("SiglipImageProcessorPil", {"size": {"height": 30, "width": 30}, "rescale_factor": 1 / 127.5}, "squash"),
    "plain": ("SiglipImageProcessorPil", {"size": {"height": 30, "width": 30}, "do_normalize": False, "resample": 2}, "squash"),
}


@pytest.mark.parametrize("composite", [False, True])
@pytest.mark.parametrize("name", PROCESSORS)
def test_preprocessing_equals_the_image_processor(name, composite, tmp_path):
    import transformers

    kind, values, mode = PROCESSORS[name]
    processor = getattr(transformers, kind)(**values)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip_vision_model", "image_size": 30}))
    written = processor.to_dict()
    file = tmp_path / ("processor_config.json" if composite else "preprocessor_config.json")
    file.write_text(json.dumps({"image_processor": written, "processor_class": "X"} if composite else written))
    ours = preprocess(tmp_path)
    assert (ours.mode, ours.size) == (mode, 30)
    for image in (noise(100, 61), noise(47, 90), noise(20, 20), noise(64, 64).convert("L")):
        theirs = processor(image.convert("RGB"), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        value = (ours.apply(image) / 255.0 - np.asarray(ours.mean)) / np.asarray(ours.std)
        assert np.abs(value - theirs).max() <= 1 / 255 / min(ours.std)
    assert ours.at(60).apply(noise(100, 61)).shape == (60, 60, 3)


def test_idefics3s_processor_shows_the_tower_a_square(tmp_path):
    """It resizes twice, to the longest edge and then to the square, also the whole picture that stands beside the parts."""
    import transformers

    made = transformers.Idefics3ImageProcessorPil(size={"longest_edge": 120}, max_image_size={"longest_edge": 30})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "idefics3_vision", "image_size": 30, "patch_size": 5}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(made.to_dict()))
    ours = preprocess(tmp_path)
    assert ours == Preprocess(30, "squash", resample=1)
    image = noise(9, 7).resize((100, 61), Image.Resampling.BICUBIC)
    theirs = made(image, return_tensors="np")["pixel_values"][0]
    assert len(theirs) == 4 * 3 + 1
    apart = np.abs((theirs[-1].transpose(1, 2, 0) * 0.5 + 0.5) * 255 - ours.apply(image))
    assert apart.mean() < 1 and apart.max() < 10
    written = {name: value for name, value in made.to_dict().items() if name != "max_image_size"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    assert preprocess(tmp_path) == ours


def test_naflex_without_a_size_in_its_processor_takes_its_own_grid(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip2", "vision_config": {"patch_size": 14}}))
    written = {"image_processor_type": "Siglip2ImageProcessor", "do_resize": True, "size": None, "max_num_patches": 256,
               "patch_size": 14, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # fmt: skip
    for size in ({"size": None}, {}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({k: v for k, v in written.items() if k != "size"} | size))
        assert preprocess(tmp_path) == Preprocess(16 * 14, resample=2)
    assert preprocess(tmp_path, image_size=56).apply(noise(100, 61)).shape == (56, 56, 3)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip2_vision_model", "num_patches": 250}))
    with pytest.raises(VlaxError, match="num_patches=250 is no square"):
        preprocess(tmp_path)
