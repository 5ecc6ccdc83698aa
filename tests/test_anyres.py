"""LLaVA-OneVision's AnyRes: the parts of a picture, their tokens sewn together, and what the decoder sees of them."""

import dataclasses
import json
import random
import re

import jax.numpy as jnp
import numpy as np
import pytest
import transformers
import whole_cases
from PIL import Image

import vlax
from vlax import masks
from vlax.data.batches.empty import filler, show
from vlax.decoding.options import DecodeConfig
from vlax.errors import VlaxError
from vlax.images import Preprocess, anyres
from vlax.images.anyres import AnyRes, Cut
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.sewing import sew
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.families import onevision
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder
from vlax.training import estimate

POINTS = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]  # of every -hf checkpoint
REAL = AnyRes(tuple((rows // 384, columns // 384) for rows, columns in POINTS), 27)
FEW = AnyRes(((1, 1), (1, 2), (2, 1), (2, 2)), 2)
QUESTION, ANSWER = "is it red?", "no, two children"


def noise(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


class Processor(transformers.LlavaOnevisionProcessor):
    """Without its part for videos, which asks for torchvision."""

    def check_argument_for_proper_class(self, name, argument):
        return type(argument)


def processor(images, side, most=9, tokenizer=None):
    settings = {"num_image_tokens": side**2, "vision_feature_select_strategy": "full"}
    settings["vision_aspect_ratio"] = f"anyres_max_{most}"
    return Processor(images, tokenizer, None, chat_template=whole_cases.ONEVISION_CHAT, **settings)


@pytest.fixture(scope="module")
def tokenizer():
    made = train_bpe(whole_cases.TEXTS * 4, 300)
    made.add_special_tokens({"extra_special_tokens": [*whole_cases.TURNS, "<image>"]})
    return made


TABLE = [  # height and width of a picture; rows and columns of parts; tokens
    ((300, 300), (1, 1), 729 + 27 * 28),
    ((480, 640), (2, 2), 729 + 40 * 55),
    ((640, 480), (2, 2), 729 + 54 * 41),
    ((300, 1200), (1, 4), 729 + 27 * 109),
    ((2000, 100), (6, 1), 729 + 162 * 10),
    ((1080, 1920), (3, 5), 729 + 60 * 109),
    ((5000, 5000), (6, 6), 729 + 81 * 82),
]


def test_as_many_tokens_as_the_processor_writes(tokenizer):
    theirs = processor(transformers.LlavaOnevisionImageProcessorPil(), 27, tokenizer=tokenizer)
    for shape, grid, tokens in TABLE:
        cut = REAL.cut(*shape, 384)
        assert (REAL.best(*shape, 384), 729 + cut.rows * (cut.across + 1)) == (grid, tokens)
        assert theirs._get_number_of_features(*shape, 384, 384) == tokens
    draw, most = random.Random(0), 0
    for shape in [(draw.randint(1, 3000), draw.randint(1, 3000)) for _ in range(300)]:
        cut = REAL.cut(*shape, 384)
        most = max(most, 729 + cut.rows * (cut.across + 1))
        assert 729 + cut.rows * (cut.across + 1) == theirs._get_number_of_features(*shape, 384, 384), shape
    assert most <= REAL.longest == 8829
    assert [REAL.within(parts).longest for parts in (1, 4, 9)] == [1485, 3753, 7371] and REAL.within(4).parts == 4


def test_parts_are_those_of_the_image_processor():
    theirs = transformers.LlavaOnevisionImageProcessorPil(
        size={"height": 16, "width": 16}, image_grid_pinpoints=[[16 * y, 16 * x] for y, x in FEW.grids], do_normalize=False,
        do_rescale=False,
    )  # fmt: skip
    for shape, parts in (((20, 90), 3), ((90, 20), 3), ((16, 16), 2), ((31, 47), 5), ((100, 120), 5), ((3, 9), 2)):
        picture = noise(*shape)
        seen = Preprocess(16, anyres=FEW).views(picture, FEW.parts)
        assert seen.shape == (1, 5 * 16 + 1, 16, 3)
        want = theirs(picture)["pixel_values"][0].transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(anyres.views(seen[0], 2), want)
        assert len(want) == parts and Cut(*anyres.cuts(seen[0])) == FEW.cut(*shape, 16)
        assert anyres.drawn(seen[0], 2).shape == (16 * FEW.best(*shape, 16)[0], 16 * FEW.best(*shape, 16)[1], 3)
    several = Preprocess(16, "pad", 16, anyres=FEW).views(noise(20, 90), FEW.parts, alone=False)
    np.testing.assert_array_equal(anyres.views(several[0], 2)[0], Preprocess(16, "pad", 16).apply(noise(20, 90)))
    assert anyres.tokens(several, 2).tolist() == [5] and len(anyres.views(several[0], 2)) == 1


def test_tokens_are_sewn_cut_and_given_newlines():
    """Part p has the tokens 10p, 10p + 1, ...; the whole 100, 101, ...; a newline is -1."""
    parts = np.arange(4)[:, None] * 10 + np.arange(4)
    features = jnp.asarray(np.concatenate([100 + np.arange(4)[None], parts]), jnp.float32)[None, ..., None]

    def sewn(cut, of):
        out = sew(features, jnp.array([-1.0]), jnp.array([cut], jnp.int32), of)
        assert out.shape == (1, of.longest, 1)
        return out[0, : 4 + cut.rows * (cut.across + 1), 0].tolist()

    whole = [100, 101, 102, 103]
    assert sewn(Cut(2, 1, 0, 2, 4, 2, 4), FEW) == [*whole, 2, 3, 12, 13, -1, 20, 21, 30, 31, -1]
    assert sewn(Cut(1, 0, 0, 4, 2, 4, 2), FEW) == [*whole, 0, 1, -1, 2, 3, -1, 10, 11, -1, 12, 13, -1]
    assert sewn(anyres.WHOLE, FEW) == [*whole, -1]
    shrunk = AnyRes(((2, 2),), 2, most=1)
    assert shrunk.cut(40, 40, 16) == Cut(2, 0, 0, 4, 4, 2, 2)
    assert sewn(shrunk.cut(40, 40, 16), shrunk) == [*whole, 1.5, 11.5, -1, 21.5, 31.5, -1]


def test_tokens_that_a_picture_has_not_are_pads():
    """The table of masks.py, and its positions."""
    [table] = re.findall(r"ii-j--pa     ii-j--pa\n((?:    .*\n){8})", masks.__doc__)
    rows = [line.split()[1:] for line in table.splitlines()]
    one = jnp.ones((1, 2), jnp.int32)
    slots = {"owner": one, "before": one * 0, "shown": jnp.array([[2, 1]])}
    for at, kind in enumerate(("causal", "image_bidirectional")):
        mask = masks.attention_mask(jnp.array([[1, 2]]), one, one > 0, 3, kind, **slots)[0]
        assert ["".join("01"[sees] for sees in row) for row in np.asarray(mask).astype(int)] == [row[at] for row in rows]
    assert masks.positions(one, one > 0, 3, **slots).tolist() == [[0, 1, 2, 2, 3, 4, 3, 4]]
    assert masks.sequence_examples(one, one > 0, 3, one, slots["shown"]).tolist() == [[1, 1, 0, 1, 0, 0, 1, 1]]


def config(**fields):
    decoder = DecoderConfig(vocab_size=64, width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=24)
    vision = VisionConfig(image_size=16, patch_size=8, width=16, layers=1, heads=2, mlp_dim=24)
    between = ProjectorConfig("mlp", 16, 16, newline=True)
    return VLMConfig(decoder, vision, between, "causal", Preprocess(16, anyres=dataclasses.replace(FEW, side=9)), **fields)


def test_the_configs_geometry_and_its_json(tokenizer):
    made = config()
    assert made.anyres == FEW and (made.tiles, made.views, made.looks, made.tokens_per_image) == (4, 1, 5, FEW.longest)
    assert FEW.longest == 4 + 4 * 5 and made.preprocess.height == 81
    assert VLMConfig.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    plain = dataclasses.replace(made, preprocess=Preprocess(16), tiles=0)
    assert "anyres" not in plain.to_dict()["preprocess"] and (plain.tokens_per_image, plain.looks) == (5, 1)
    batch = filler(2, 8, made.preprocess, Encoder(tokenizer, "plain"), slots=2)
    assert batch["image"].shape == (2, 2, 81, 16, 3) and batch["shown"].tolist() == [[0, 0], [0, 0]]
    image = made.preprocess.views(noise(30, 90), 4)[0]
    show(batch, 1, 0, image, made.preprocess)
    assert FEW.cut(30, 90, 16) == Cut(2, 0, 0, 2, 4, 2, 4) and FEW.cut(20, 90, 16).rows == 0  # so thin that nothing is left
    assert batch["shown"].tolist() == [[0, 0], [14, 0]] and made.tokens_of(image) == 14
    assert "shown" not in filler(1, 8, Preprocess(16), Encoder(tokenizer, "plain"))


def test_room_is_reckoned_for_all_pictures_of_a_row():
    """Of the tower as many squares as it sees, of the decoder as many positions as a row has."""
    made, plain = config(), dataclasses.replace(config(), preprocess=Preprocess(16), tiles=0)
    tower = 4 * (14 * 16 + 4 * 24) * 4  # bytes of one square: 4 patches, width 16, an MLP of 24, float32

    def decoder(length):
        return length * (14 * 16 + 4 * 24) * 4 + 2 * length**2 * 8 + 12 * 8 * 64

    for model, slots, squares, tokens in ((plain, 1, 1, 5), (plain, 3, 1, 5), (made, 1, 5, 24), (made, 2, 5, 24)):
        want = slots * squares * tower + decoder(slots * tokens + 8)
        assert estimate.row(model, 8, "float32", remat=False, pictures=slots) == want
    tiled = dataclasses.replace(plain, tiles=2)
    assert estimate.row(tiled, 8, "float32", False) == estimate.row(plain, 8, "float32", False, 3)


def test_what_is_not_implemented_is_refused():
    values = {"vision_config": {"image_size": 384}, "vision_aspect_ratio": "anyres_max_9", "image_grid_pinpoints": POINTS}
    assert onevision.anyres(values, 27) == REAL
    with pytest.raises(VlaxError, match="vision_aspect_ratio='pad' is not implemented, only anyres_max_N is"):
        onevision.anyres(values | {"vision_aspect_ratio": "pad"}, 27)
    with pytest.raises(VlaxError, match=r"multiples of the tower's 384 pixels, and \[384, 500\] is not"):
        onevision.anyres(values | {"image_grid_pinpoints": [[384, 384], [384, 500]]}, 27)
    with pytest.raises(VlaxError, match="give grids of 1 to 64 parts a side"):
        AnyRes((), 27)


SHAPES = ((20, 90), (90, 20), (40, 40), (100, 120), (9, 7), (100, 40))  # wide, tall, square, larger than all, small, cut


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(vlax's model, transformers', its processor)"""
    where = whole_cases.write("onevision", tmp_path_factory.mktemp("whole") / "onevision")
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(where, attn_implementation="eager").eval()
    tokens = transformers.AutoTokenizer.from_pretrained(where)
    images = transformers.LlavaOnevisionImageProcessorPil.from_pretrained(where)
    return vlax.load(str(where)), theirs, processor(images, 2, 4, tokens)


def asked(model, theirs, pictures):
    """What the processor makes of a question about the pictures."""
    text = model.encoder.prompts["question"].replace("{question}", QUESTION)
    parts = [*({"type": "image", "image": picture} for picture in pictures), {"type": "text", "text": text}]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    return theirs.apply_chat_template([{"role": "user", "content": parts}], **options)


@pytest.mark.slow
def test_ids_logits_and_answers_are_those_of_processor_and_stock_class(whole, monkeypatch):
    torch = pytest.importorskip("torch", reason="the reference: pip install -r requirements-parity.txt")
    model, theirs, own = whole
    prompt = model.encoder.prompt_text("question", QUESTION)
    answer = model.encoder.answer(ANSWER, prompt)
    rows = [[noise(*shape)] for shape in SHAPES]
    several = [noise(20, 90), noise(40, 40)]
    wanted, said = [], []
    for pictures in [*rows, several]:
        inputs = asked(model, own, pictures)
        image, mine = inputs["input_ids"][0].numpy() == own.image_token_id, model.encoder.asked(prompt, len(pictures))
        views = [model.views(picture, len(pictures) == 1)[0] for picture in pictures]
        assert image.sum() == sum(map(model.config.tokens_of, views))
        assert inputs["input_ids"][0].numpy()[~image].tolist() == mine.tokens
        assert int(np.flatnonzero(image)[0]) == mine.before[0]
        with torch.no_grad():
            written = theirs.generate(**inputs, do_sample=False, max_new_tokens=6)
            said.append(model.encoder.decode(written[0, len(image) :].numpy()))
            inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([answer])], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            wanted.append(theirs(**inputs).logits[0, len(image) - 1 : -1].numpy())

    def ours(by, shown):
        return by.logits(shown, [prompt] * len(shown), [ANSWER] * len(shown))

    def off(by):
        return [np.abs(a - b).max() / np.ptp(b) for a, b in zip(ours(by, rows), wanted, strict=False)]

    assert max(off(model)) <= 1e-4
    assert np.abs(ours(model, [several])[0] - wanted[-1]).max() <= 1e-4 * np.ptp(wanted[-1])
    assert model.generate(rows, [prompt] * len(rows), max_new_tokens=6) == said[:-1]
    assert model.generate([several], [prompt], max_new_tokens=6) == said[-1:]
    assert sorted(config.tiles for config in model._smaller) == [1]  # two pictures, seen whole; one has all nine parts
    assert model.generate(rows[:2], [prompt] * 2, max_new_tokens=6) == said[:2]  # three parts each
    assert sorted(config.tiles for config in model._smaller) == [1, 4] and model.config.tiles == 9
    shared = model.predictor(DecodeConfig(6), 8, shared=True)  # through the tower once, whoever asks
    requests = [model._request(model.encoder.asked(prompt, 1), each) for each in rows]
    assert [text for part in shared.texts(model.params, requests) for text in part] == said[:-1]

    blank = model.params | {"projector/newline": model.params["projector/newline"] * 0}
    assert max(off(dataclasses.replace(model, params=blank))) >= 1e-2
    monkeypatch.setattr(
        AnyRes, "cut", lambda a, *shape: a._shrunk(a.best(*shape)[1], 0, 0, *(a.side * n for n in a.best(*shape)))
    )
    assert max(off(model)) >= 1e-2  # with the tokens of what is padded
