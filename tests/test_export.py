"""Whole models out: transformers computes the same from what `vlax.export` writes, and vlax reads it back bit-equal."""

import contextlib
import dataclasses
import functools
import io
import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest
from export_cases import DECODERS, SIZES, TEXT, TEXT_SIZES, TOWERS, VOCAB, assert_same, drawn
from hub_stand_in import standing_in
from huggingface_hub import ModelCard

import vlax
from vlax.commands import front
from vlax.commands.export import export
from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Request
from vlax.errors import VlaxError
from vlax.evaluation import evaluate, stock_mask
from vlax.evaluation.options import Options
from vlax.images import Preprocess
from vlax.model import exports
from vlax.models.build import abstract_model
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLM, VLMConfig
from vlax.pretrained.reading import loader
from vlax.pretrained.reading.tensors import file_header
from vlax.pretrained.writing import cards, logit_check, push, whole
from vlax.text.bpe import train_bpe

MLP, LINEAR = {"kind": "mlp"}, {"kind": "linear"}
MODELS = {  # name: (layout, mask, decoder, tower, projector, other fields of the VLMConfig)
    "LLaVA, SigLIP + Qwen2": ("llava", "causal", "qwen2", "siglip_vision_model", MLP),
    "LLaVA, CLIP + Llama": ("llava", "causal", "llama, untied", "clip_vision_model", MLP | {"bias": False}),
    "PaliGemma": ("paligemma", "prefix_lm", "gemma", "siglip_vision_model", LINEAR),
    "image_bidirectional": ("llava", "image_bidirectional", "qwen2", "siglip_vision_model", MLP),
    "image_bidirectional, grown": (
        "llava",
        "image_bidirectional",
        "llama, biases",
        "siglip_vision_model, not post-normed",
        MLP,
    ),
    "image_sees_prompt": ("apart", "image_sees_prompt", "gemma2", "dinov2", MLP),
    "prefix_lm": ("apart", "prefix_lm", "gpt2", "clip_vision_model", LINEAR | {"pixel_shuffle": 2}),
}
SEEING = {"LLaVA, SigLIP + Qwen2": "image_bidirectional", "PaliGemma": "causal", "image_bidirectional": "causal"}
MANIFEST = {
    "stage": "stage3", "template_name": "plain", "micro_steps": 40, "created": "today", "versions": {"jax": "0.10.2"},
    "trained": {"projector": "^projector/"}, "data": {"sources": {"scenes-ai-train": "f00d" * 16}},
    "config": {"stage": {"init": {"vision": "stage2"}, "batch_size": 8, "accumulate": 4, "accumulation": "multisteps"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXT * 4, 300)


def dear(names, *kept):
    """The names, of which `make test` runs those that are kept."""
    return [name if name in kept else pytest.param(name, marks=pytest.mark.slow) for name in names]


def native(name: str, tokenizer, directory) -> tuple[VLMConfig, dict]:
    """Writes a redrawn model as a vlax export."""
    _, mask, decoder, tower, projector = MODELS[name]
    vocab = len(tokenizer) if "grown" in name else VOCAB
    text = DecoderConfig(**TEXT_SIZES | DECODERS[decoder] | {"vocab_size": vocab})
    vision = VisionConfig(**SIZES | TOWERS[tower])
    crop = Preprocess(30, "crop", 34, mean=vision.mean, std=vision.std) if "CLIP" in name else None
    config = VLMConfig(text, vision, ProjectorConfig(vision_width=32, width=32, **projector), mask, crop)
    params = drawn(lambda c, rngs: VLM(c, rngs=rngs), config, "")
    exports.export(directory, params, config, tokenizer, MANIFEST)
    return config, params


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    """name -> (native directory, exported directory, config, parameters, what was written, the check's sentence), made once."""
    pytest.importorskip("torch", reason="parity needs torch: pip install -r requirements-parity.txt").set_num_threads(1)

    @functools.cache
    def make(name):
        root = tmp_path_factory.mktemp("model")
        config, params = native(name, tokenizer, root / "stage3" / "export")
        return root / "stage3" / "export", root / "hf", config, params, *export(str(root / "stage3" / "export"), root / "hf")

    return make


@pytest.mark.parametrize("name", dear(MODELS, "LLaVA, SigLIP + Qwen2", "PaliGemma", "image_bidirectional"))
def test_models_compute_the_same_in_transformers_and_come_back_bit_equal(name, exported):
    """`export` itself raises where logits differ by more than 1e-4 of their range."""
    _, out, config, params, written, sentence = exported(name)
    assert written.layout == MODELS[name][0] and sentence.startswith("Logit check passed")
    card = (out / "README.md").read_text()
    assert f"`{config.mask}`" in card and sentence in card
    if written.layout == "apart":
        assert all(f"- {obstacle}" in card for obstacle in written.obstacles) and config.mask in written.obstacles[0]
        loaded, values = whole.load_apart(out)
    else:
        loaded, values, _ = loader.load_vlm(out, dtype=None)
    if "grown" in name:
        rows = config.decoder.vocab_size
        assert loaded.decoder.vocab_size == 320 > rows and "grown from" in card
        table = values["decoder/embedding"]
        np.testing.assert_allclose(table[rows:], np.repeat(table[:rows].mean(0)[None], 320 - rows, 0), rtol=1e-5)
        loaded, values["decoder/embedding"] = dataclasses.replace(loaded, decoder=config.decoder), table[:rows]
    assert loaded == config
    assert_same(values, params)


@pytest.mark.parametrize("name", SEEING)
def test_the_check_sees_another_mask(name, exported):
    source, out, config, *_ = exported(name)
    model = vlax.load(str(source))
    other = dataclasses.replace(config, mask=SEEING[name])
    model.config, model.graphdef = other, abstract_model(other, np.float32)[0]
    assert logit_check.check(out, MODELS[name][0], model) > 100 * logit_check.TOLERANCE


@pytest.mark.parametrize("name", dear([name for name, values in MODELS.items() if values[0] != "apart"], "PaliGemma"))
def test_generate_py_gives_the_same_tokens(name, exported):
    source, out, *_ = exported(name)
    model, run = vlax.load(str(source)), logit_check.script(out)
    parts, images, prompts = run.load(out), logit_check.pictures(30), ["caption:", "question: is it red? answer:"]
    predictor = model.predictor(DecodeConfig(max_new_tokens=8), 2)
    ids = [[1, *model.encoder.ids(prompt)] for prompt in prompts]
    batch = predictor.batch([Request(p, model.pixels(i)) for p, i in zip(ids, images, strict=True)], 16)
    ours = np.asarray(predictor.generate(model.params, batch)[0]).tolist()
    theirs = [run.generate_ids(*parts, image, prompt, 8) for image, prompt in zip(images, prompts, strict=True)]
    assert [row[: len(other)] for row, other in zip(ours, theirs, strict=True)] == theirs
    assert len({token for row in theirs for token in row}) > 3  # a loop over one token would show nothing
    assert run.generate(*parts, images[0], prompts[0], 8) == model.generate(images[:1], prompts[:1], max_new_tokens=8)[0]
    assert run.generate_ids(*parts, None, prompts[0], 2)  # a prompt without a picture


@pytest.mark.slow  # test_export_pairs.py has another
def test_the_stock_processor_and_generate_of_a_causal_model(exported):
    torch = pytest.importorskip("torch")
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    for name in ("LLaVA, SigLIP + Qwen2", "LLaVA, CLIP + Llama"):
        _, out, config, *_ = exported(name)
        run = logit_check.script(out)
        parts, image = run.load(out), logit_check.pictures(30)[1]
        inputs = AutoProcessor.from_pretrained(out)(
            images=image, text="<image><bos>caption:", add_special_tokens=False, return_tensors="pt"
        )
        wanted = run.inputs(*parts, image, "caption:")
        assert torch.equal(inputs["input_ids"], wanted["input_ids"]) and config.tokens_per_image == 16
        assert torch.equal(inputs["pixel_values"], wanted["pixel_values"])
        stock = LlavaForConditionalGeneration.from_pretrained(out, dtype=torch.float32)
        made = stock.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert made.tolist() == run.generate_ids(*parts, image, "caption:", 8)


def test_the_stock_processor_and_generate_of_paligemma(exported):
    torch = pytest.importorskip("torch")
    from transformers import AutoProcessor

    _, out, config, *_ = exported("PaliGemma")
    run = logit_check.script(out)
    parts, image = run.load(out), logit_check.pictures(30)[1]
    inputs = run.inputs(*parts, image, "caption:")
    processor = AutoProcessor.from_pretrained(out)
    stock = processor(images=image, text="<image>caption:", return_tensors="pt")
    assert torch.equal(stock["pixel_values"], inputs["pixel_values"])
    assert (stock["input_ids"] == processor.image_token_id).sum() == config.tokens_per_image
    made = parts[0].generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert made.tolist() == run.generate_ids(*parts, image, "caption:", 8)


@pytest.mark.parametrize("name", ("LLaVA, SigLIP + Qwen2", "PaliGemma"))
def test_names_that_other_engines_look_for(name, exported):
    """docs/backbones.md says which engine looks for what."""
    _, out, config, *_ = exported(name)
    values = json.loads((out / "config.json").read_text())
    names = set(file_header(out / "model.safetensors"))
    llava = name != "PaliGemma"
    between = {"linear_1", "linear_2"} if llava else {"linear"}
    assert {n.split(".")[1] for n in names if n.startswith("multi_modal_projector.")} == between
    towers = ("vision_tower.vision_model.", "language_model.model.", "language_model.lm_head.", "multi_modal_projector.")
    assert all(n.startswith(towers) for n in names)
    assert values["text_config"]["architectures"] == ["Qwen2ForCausalLM" if llava else "GemmaForCausalLM"]
    assert values["architectures"][0].startswith("Llava" if llava else "PaliGemma")
    tokens = json.loads((out / "tokenizer.json").read_text())["added_tokens"]
    assert {x["content"]: x["id"] for x in tokens}["<image>"] == values["image_token_index"]
    if llava:
        assert (values["vision_feature_layer"], values["vision_feature_select_strategy"]) == (-1, "full")
        assert values["projector_hidden_act"] == "gelu" and values["multimodal_projector_bias"] is True
        return
    assert values["text_config"]["num_image_tokens"] == config.tokens_per_image
    assert values["vision_config"]["projection_dim"] == values["projection_dim"] == values["hidden_size"] == 32


def test_parts_alone(exported, tmp_path):
    source, _, config, params, *_ = exported("LLaVA, SigLIP + Qwen2")
    written, sentence = export(str(source), tmp_path / "decoder", part="decoder")
    assert sentence.startswith("Logit check passed") and "Qwen2Tokenizer" in written.notes[0]  # the BPE is not Qwen2's
    loaded, values, _ = loader.load_decoder(tmp_path / "decoder", dtype=None)
    _, sentence = export(str(source), tmp_path / "vision", part="vision")
    assert sentence.startswith("Logit check passed") and "features" in sentence
    tower, features, _ = loader.load_vision(tmp_path / "vision", dtype=None)
    assert (loaded, tower) == (config.decoder, config.vision)
    assert_same(values | features, {path: value for path, value in params.items() if not path.startswith("projector")})


def test_shards_and_their_index(exported, tmp_path):
    from transformers import LlavaForConditionalGeneration

    source, _, config, params, *_ = exported("LLaVA, SigLIP + Qwen2")
    _, sentence = export(str(source), tmp_path / "out", limit=30_000)
    assert "passed" in sentence and len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 3
    assert loader.load_vlm(tmp_path / "out")[0] == config
    assert_same(loader.load_vlm(tmp_path / "out", dtype=None)[1], params)
    _, report = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    """A work directory whose stage4 was trained and then evaluated, each by vlax itself."""
    config, workdir = trained
    copy = tmp_path_factory.mktemp("scored") / "w"
    shutil.copytree(workdir, copy, ignore=shutil.ignore_patterns("checkpoints", "eval*"))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluate.run(config, str(copy), Options(suites=(), report_samples=0))
    return copy


def test_a_trained_and_evaluated_model_by_relative_paths(scored, monkeypatch, capsys):
    """The README's command; the card tells stages, data and scores from what training and evaluation left."""
    monkeypatch.chdir(scored.parent)
    monkeypatch.setattr(logit_check, "missing", lambda: "torch is not installed")
    assert front.main(["export", "w/stage4/export", "--to=hf", "--out=mymodel"]) == 0
    assert "skipped: torch is not installed" in capsys.readouterr().out
    text = (scored.parent / "mymodel" / "README.md").read_text()
    scores = json.loads((scored / "stage4" / "eval" / "scores.json").read_text())
    assert loader.load_vlm("mymodel", dtype=None)[2].loaded
    row = scores["sets"]["captions"]["CIDEr"]
    spans = [f"[{row[key][1]:.3f}, {row[key][2]:.3f}]" for key in ("interval", "over_twin")]
    over = f"{row['over_twin'][0]:+.3f} {spans[1]}"
    numbers = f"{row['score']:.3f} | {spans[0]} | {row['twin']:.3f} | {row['prior']:.3f} | {over}"
    assert "**In a stock class alone this is another model.**" in text and text.index("**In a stock") < text.index(
        "generate.py"
    )
    assert re.search(r"On 24 of its own test rows \d+ greedy answers stay the same without the mask", text)  # 8 and 16
    for wanted in (f"| captions CIDEr | {numbers} |", f"protocol {scores['protocol']['hash']}", "captions: 8 rows",
                   "| stage0_vision | ", "| stage2 | ", "| stage4 | ", "Not evaluated with these weights: stage",
                   *json.loads((scored / "stage4/export/manifest.json").read_text())["data"]["sources"]):  # fmt: skip
        assert wanted in text, wanted
    for line in re.findall(r"    (from vlax.* import .*)", text):
        exec(line, {})
    assert "skipped: torch" in text and str(scored.parent) not in text
    assert sorted(path.name for path in scored.parent.iterdir()) == ["mymodel", "w"]


def test_pushed_to_the_hub_by_its_own_client(scored, monkeypatch, capsys, tmp_path):
    """A stand-in takes what huggingface_hub sends: a private repository, every file, a card with scores and their protocol."""
    monkeypatch.setattr(logit_check, "missing", lambda: "torch is not installed")
    export = str(scored / "stage4" / "export")
    command = ["export", export, "--to=hf", "--push=me/mine", "--mask_rows=0"]
    with monkeypatch.context() as without:
        without.setattr("huggingface_hub.get_token", lambda: None)
        assert front.main(command) == 2
        assert "--push needs a token of the Hugging Face hub that may write: run `hf auth login`" in capsys.readouterr().err
    assert front.main([*command[:-2], "--push=mine"]) == 2
    assert "--push=mine: a repository of the hub is USER/NAME" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    with standing_in() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        assert front.main([*command, "--license=apache-2.0", "--datasets=me/scenes"]) == 0
        assert f"pushed to {hub.address}/me/mine" in capsys.readouterr().out
        [made] = hub.made  # newer clients say visibility
        assert (made["name"], made["organization"]) == ("mine", "me")
        assert made.get("private") is True or made.get("visibility") == "private"
        assert set(hub.tokens) == {"Bearer hf_stand_in"}
        card = ModelCard(hub.files["README.md"].decode())
        scores = json.loads((scored / "stage4" / "eval" / "scores.json").read_text())
        assert (card.data.license, card.data.datasets, card.data.pipeline_tag) == (
            "apache-2.0", ["me/scenes"], "image-text-to-text",
        )  # fmt: skip
        cider = next(r for r in card.data.eval_results if (r.dataset_name, r.metric_type) == ("captions", "CIDEr"))
        assert cider.metric_value == round(scores["sets"]["captions"]["CIDEr"]["score"], 4)
        assert cider.metric_config == f"vlax protocol {scores['protocol']['sets']['captions']['hash']}"
        assert "beside its own, apache-2.0." in card.text
        for name, content in hub.files.items():
            (tmp_path / "got" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "got" / name).write_bytes(content)
        assert loader.load_vlm(str(tmp_path / "got"), dtype=None)[2].loaded
        hub.refuses = True
        with pytest.raises(VlaxError, match=r"hub refused me/mine \(you may not\); the token must be allowed to write there"):
            push.push(tmp_path / "got", "me/mine")


def test_a_failing_export_leaves_nothing_that_looks_whole(scored, monkeypatch, tmp_path):
    def broken(*_):
        raise KeyError("model")

    monkeypatch.setattr(cards, "card", broken)
    with pytest.raises(KeyError):
        export(str(scored / "stage4" / "export"), tmp_path / "out", check=False)
    assert not list(tmp_path.iterdir())


def test_scores_of_other_weights_are_left_out(scored, tokenizer, tmp_path):
    shutil.copytree(scored, tmp_path / "w")
    config, _ = native("image_bidirectional", tokenizer, tmp_path / "w" / "stage4" / "export")
    export(str(tmp_path / "w" / "stage4" / "export"), tmp_path / "out", check=False)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Nothing was measured of these weights" in text and "| captions CIDEr |" not in text and config.mask in text
    assert "not measured: eval/scores.json is of other weights" in text


def test_what_the_mask_costs(scored, tokenizer, tmp_path):
    """Random weights show it: answers differ, and both kinds of masks are those of the count."""
    native("image_bidirectional", tokenizer, tmp_path / "stage4" / "export")
    model = vlax.load(str(tmp_path / "stage4" / "export"))
    scores = json.loads((scored / "stage4" / "eval" / "scores.json").read_text())
    scores["model"]["checksums"] = model.manifest["checksums"]
    (tmp_path / "stage4" / "eval").mkdir()
    (tmp_path / "stage4" / "eval" / "scores.json").write_text(json.dumps(scores))
    said = stock_mask.cost(tmp_path / "stage4" / "export", model, 2)
    count, same = map(int, re.match(r"On (\d+) of its own test rows (\d+) greedy answers stay the same", said).groups())
    assert count == 4 and same < 4 and '" in place of "' in said
    assert stock_mask.cost(tmp_path, model, 0) == "What that costs was not measured: it was switched off."


def test_the_card_tells_the_stages(tokenizer, tmp_path):
    source = tmp_path / "stage3" / "export"
    config, params = native("image_bidirectional", tokenizer, source)
    earlier = MANIFEST | {"stage": "stage2", "trained": {"adapter": "^projector/"}}
    exports.export(tmp_path / "stage2" / "export", params, config, tokenizer, earlier)
    manifest = MANIFEST | {"parents": {"vision": {"stage": "stage2", "path": "moved/stage2/export"}}}
    exports.export(source, params, config, tokenizer, manifest)
    export(str(source), tmp_path / "out", check=False)
    card = (tmp_path / "out" / "README.md").read_text()
    for text in ("| stage2 | adapter (`^projector/`) |", "| stage3 | projector (`^projector/`) | vision: stage2 | 10 x 8 |",
                 "scenes-ai-train", "jax 0.10.2", "`image_bidirectional` (image tokens see each other",
                 "Not evaluated with these weights: stage2",
                 "then `<bos>`, then the text", "'question: {question} answer:'", "python generate.py"):  # fmt: skip
        assert text in card, text
    assert str(tmp_path) not in card


def test_errors_of_the_command(exported, tmp_path, monkeypatch, capsys):
    source, out, *_ = exported("image_bidirectional")
    capsys.readouterr()  # what making it printed, where this test runs alone

    def command(*arguments):
        code = front.main(["export", *map(str, arguments)])
        text = capsys.readouterr().err
        assert code == 2 and text.startswith("vlax: error: ") and text.count("\n") == 1
        return text

    assert "not a finished vlax export" in command(tmp_path, "--out", tmp_path / "a")
    assert "is not empty" in command(source, "--out", out)
    assert "local directory" in command(source, "--out", "gs://bucket/x")
    monkeypatch.setattr(logit_check, "check", lambda *_: float("nan"))
    assert "FAILED" in command(source, "--out", tmp_path / "b")
    assert "FAILED" in (tmp_path / "b" / "README.md").read_text()


def test_several_pictures_within_the_text(exported):
    """What the receiver's tokenizer makes of a text with two <image>, and transformers of that, is what vlax makes of it."""
    import torch
    import transformers

    native_directory, out, config, *_ = exported("LLaVA, SigLIP + Qwen2")
    made = vlax.load(str(native_directory))
    made.encoder = dataclasses.replace(made.encoder, settings=dataclasses.replace(made.encoder.settings, interleaved=True))
    rng = np.random.default_rng(3)
    images = [PIL.Image.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)) for _ in range(2)]
    prompt = made.encoder.prompt_text("question", "is <image> a <image> square?")
    answer = made.encoder.answer("no")
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(out).eval()
    text = f"{theirs.bos_token or ''}question: is <image> a <image> square? answer:"
    ids = theirs(text, add_special_tokens=False)["input_ids"] + answer
    image_id, count = model.config.image_token_id, config.tokens_per_image
    stands = [at for at, token in enumerate(ids) if token == image_id]
    asked = made.encoder.asked(prompt, 2)
    assert [token for token in ids if token != image_id] == asked.tokens + answer
    assert [at - n for n, at in enumerate(stands)] == asked.before
    spread = [token for one in ids for token in [one] * (count if one == image_id else 1)]
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    with torch.no_grad():
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        reference = model(input_ids=torch.tensor([spread]), pixel_values=pixels).logits[0].numpy()
    ours = made.logits([images], [prompt], ["no"])[0]
    theirs_of_answer = reference[-len(answer) - 1 : -1]
    spread_of = theirs_of_answer.max() - theirs_of_answer.min()
    assert np.abs(ours[: len(answer)] - theirs_of_answer).max() <= 1e-4 * spread_of
    swapped = made.logits([images[::-1]], [prompt], ["no"])[0]
    assert np.abs(swapped[: len(answer)] - theirs_of_answer).max() > 1e-3 * spread_of
