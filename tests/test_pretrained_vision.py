"""Vision towers imported from transformers' checkpoints: same features, positions resampled alike, same preprocessing."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.backbone_cases import VISION
from benchmarks.backbones import TOLERANCE, difference, measure, vision_case, write
from vlax.models.vision import VisionTower
from vlax.params import groups
from vlax.pretrained.families.known import VISION as FAMILIES
from vlax.pretrained.families.known import vision_tower
from vlax.pretrained.reading import positions
from vlax.pretrained.reading.load_plan import abstract
from vlax.pretrained.reading.loader import load_vision, preprocess, vision_source
from vlax.pretrained.reading.tensors import headers
from vlax.storage.hub import read_config

torch = pytest.importorskip("torch", reason="parity needs torch: pip install -r requirements-parity.txt")


@pytest.mark.parametrize("name", VISION)
def test_features_equal_and_every_option_matters(name, tmp_path):
    case = VISION[name]
    exact, off = measure(case, *vision_case(case, tmp_path)[:3])
    assert exact <= TOLERANCE
    assert min(off.values()) >= 10 * TOLERANCE, off


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


RESAMPLED = [("SigLIP", 21), ("CLIP", 56), ("DINOv2", 56), ("DINOv2 registers", 56), ("DINOv2 registers", 21)]


@pytest.mark.parametrize(("name", "image_size"), RESAMPLED)
def test_positions_are_resampled_as_the_reference_does(name, image_size, tmp_path):
    case = VISION[name]
    reference, run, config, report = vision_case(case, tmp_path, image_size)
    assert config.image_size == image_size
    assert report.reshaped[0].startswith("vision/position (") and "reshaped vision/position" in report.summary()
    assert difference(reference, run(config)) <= TOLERANCE


def test_positions_that_are_stored_short_are_not_shortened_again(tmp_path):
    """Of a bfloat16 checkpoint: what is computed is float32 where that is asked for, and as stored where nothing is."""
    write(VISION["SigLIP"], tmp_path).to(torch.bfloat16).save_pretrained(tmp_path)
    _, stored, _ = load_vision(tmp_path, dtype=None)
    _, wide, _ = load_vision(tmp_path, image_size=21, dtype=np.float32)
    _, short, _ = load_vision(tmp_path, image_size=21, dtype=None)
    table, tokens = np.asarray(stored["vision/position"], np.float32), wide["vision/position"].shape[0]
    np.testing.assert_array_equal(wide["vision/position"], positions.resample(table, tokens, 0, antialias=False))
    assert short["vision/position"].dtype == stored["vision/position"].dtype == "bfloat16"
    assert not np.array_equal(wide["vision/position"], np.asarray(short["vision/position"], np.float32))


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
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_parameter_counts_of_real_configs(name, tmp_path):
    import transformers

    model, values, unused, millions = REAL[name]
    (tmp_path / "config.json").write_text(json.dumps(values))
    hf = read_config(tmp_path, FAMILIES)
    config = vision_tower(hf)[0].config(hf)
    with torch.device("meta"):
        reference = getattr(transformers, model)(transformers.AutoConfig.for_model(**values))
    count = groups.count(abstract(lambda rngs: VisionTower(config, rngs=rngs)))
    assert count + unused == sum(value.numel() for value in reference.parameters())
    assert count // 10**6 == millions


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
