"""Rows of several pictures: what they become in a batch, what depends on them, and what is decoded about them."""

import dataclasses
import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image
from test_conversation import model

from configs import base
from vlax import images, masks
from vlax.commands.data.checks import Limits
from vlax.commands.data.picture_shards import Encoding
from vlax.commands.data.prepare import prepare
from vlax.commands.data.scan import scan
from vlax.data.batches import arrange
from vlax.data.batches.budget import DropBudget
from vlax.data.batches.lengths import Lengths
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.packing import PackedPlan, pack
from vlax.data.batches.pipeline import Collator, HostBatches, ImageCache
from vlax.data.readers import leaks
from vlax.data.sources import open_source
from vlax.decoding.options import DecodeConfig
from vlax.errors import VlaxError
from vlax.evaluation import samples
from vlax.evaluation.runner import derange
from vlax.images import Preprocess
from vlax.models.vlm import VLMConfig, token_losses
from vlax.params import groups
from vlax.rows import Picture, Row, Turn
from vlax.text.bpe import train_bpe
from vlax.text.prompts import make

SIDE = 8
SMALL = Preprocess(SIDE)


def picture(shade: int) -> Picture:
    return Picture(f"p{shade}", functools.partial(Image.new, "RGB", (SIDE, SIDE), (shade, shade, shade)))


ROWS = [
    Row("two", "1 2", "question", (Turn("same as ?", "no"),), picture(1), others=(picture(2),), places=((0, 0), (0, 8))),
    Row("none", "", "question", (Turn("is it so?", "yes"),), None),
    Row("one", "3", "question", (Turn("is it red?", "no"),), picture(3), places=((0, 0),)),
    Row("talk", "4 5", "chat", (Turn("first?", "no"), Turn("then?", "yes")), picture(4), others=(picture(5),),
        places=((0, 0), (1, 0))),
    Row("three", "6", "question", (Turn("all?", "no"),), picture(6), others=(picture(7), picture(8))),
]  # fmt: skip


class Several:
    name, fingerprint = "several", "several"

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, index):
        return ROWS[index]


@functools.cache
def encoder(interleaved=False):
    text = [f"{turn.question} {turn.answer}" for row in ROWS for turn in row.turns] + ["question: answer: user: assistant:"]
    return make(train_bpe(text * 3, 100), "plain", interleaved=interleaved)


def collator(interleaved=False, **options) -> Collator:
    mixture = Mixture([Several()], [1.0], 0, shuffle=False)
    return Collator(mixture, encoder(interleaved), 60, SMALL, ImageCache(1 << 20), **options)


def shades(batch) -> list:
    """The pictures of each slot by their shade, -1 for a hidden one."""
    return np.where(batch["has_image"], batch["image"][..., 0, 0, 0].astype(int), -1).tolist()


def test_pictures_take_slots_side_by_side_and_text_only_rows_keep_one():
    batch = collator(images=2)(np.array([[0], [1], [2]]), 60)
    assert shades(batch) == [[1, 2], [-1, -1], [3, -1]]
    assert batch["owner"].tolist() == [[1, 1], [0, 0], [1, 0]] and not batch["before"].any()
    assert batch["row"].tolist() == [[0, -1], [1, -1], [2, -1]]
    packed = collator(images=2)(np.array([[2, 0, 1, -1], [1, 0, -1, -1], [0, 2, -1, -1]]), 150)
    assert shades(packed) == [[3, 1, 2, -1], [-1, 1, 2, -1], [1, 2, 3, -1]]
    assert packed["owner"].tolist() == [[1, 2, 2, 0], [0, 2, 2, 0], [1, 1, 2, 0]]
    assert packed["row"].tolist() == [[2, 0, 1, -1], [1, 0, -1, -1], [0, 2, -1, -1]]


def test_more_pictures_than_the_stage_takes_are_a_fault_that_names_the_field():
    with pytest.raises(VlaxError, match=r"several:two has 2 pictures, and stage.images=1 .*; raise --config.stage.images"):
        collator()(np.array([[0]]), 60)
    left_out = DropBudget(0.5, 4)
    batch = collator(images=2, left_out=left_out)(np.array([[4], [2]]), 60)
    assert batch["row"].tolist() == [[-1, -1], [2, -1]] and left_out.counts["bad"] == 1


def test_interleaved_pictures_stand_where_their_rows_say():
    made = encoder(True)
    batch = collator(True, images=2)(np.array([[0], [2], [3]]), 60)
    for row, at in zip(batch["tokens"], batch["before"], strict=True):
        text = [made.tokenizer.decode(row[: int(n)]).strip() for n in at]
        assert text[0] in ("<bos>question:", "<bos>user:")
    said = made.tokenizer.decode(batch["tokens"][0][: int(batch["before"][0, 1])])
    assert said.strip() == "<bos>question: same as"
    last = int(batch["before"][2, 1])  # behind the first answer and its EOS
    assert batch["segment"][2, :last].tolist().count(masks.ANSWER) > 1 and batch["segment"][2, last] == masks.PROMPT
    plain = collator(images=2)(np.array([[0], [2], [3]]), 60)
    assert not plain["before"].any()
    # A picture at the very end of a prompt goes before its last token: the loss of the answer falls there.
    end = made.asked("same as <image>", 1)
    assert end.before == [len(end.tokens) - 1]
    with pytest.raises(VlaxError, match=r"has 1 <image> and 2 pictures; give as many of both"):
        made.asked("same as <image>", 2)
    assert made.asked("same as?", 2).before == [0, 0]


@functools.cache
def losses(kind: str):
    """Two jitted functions of a batch: losses f32[B,T], and which of them depend on which image token: bool[B,T,N*I]."""
    _, graphdef, params = tiny.build(mask=kind, vocab_size=512, layers=2)

    def of(features, batch):
        model = groups.rebuild(graphdef, params)
        embeddings, positions, mask = model.sequence(batch)
        embeddings = embeddings.at[:, : features.shape[1]].add(features)
        hidden = model.decoder(embeddings, positions, mask)
        return token_losses(model.decoder.logits(hidden[:, -batch["tokens"].shape[1] :]), batch)[0]

    def nothing(batch):
        return jnp.zeros((batch["tokens"].shape[0], batch["owner"].shape[1] * 4, 16))

    def depends(batch):
        jacobian = jax.jacrev(lambda f: of(f, batch).sum(0))(nothing(batch))  # [T,B,N*I,D]
        return (jnp.abs(jacobian).max(-1) > 0).transpose(1, 0, 2)

    return jax.jit(lambda batch: of(nothing(batch), batch)), jax.jit(depends)


def arrays(batch):
    return {key: value for key, value in batch.items() if key != "row"}


@pytest.mark.parametrize("kind", masks.KINDS)
@pytest.mark.parametrize("interleaved", (False, True))
def test_no_loss_depends_on_a_picture_that_comes_after_it(kind, interleaved):
    """A dialogue whose second picture belongs to its second question."""
    batch = collator(interleaved, images=2)(np.array([[3]]), 60)
    depends = losses(kind)[1](arrays(batch))
    at = np.flatnonzero(np.asarray(masks.loss_mask(batch["segment"], batch["example"]))[0])
    first, second = depends[0][:, :4], depends[0][:, 4:]
    assert first[at].all()
    later = batch["before"][0, 1]
    assert (np.asarray(second)[at] == (at >= later)[:, None]).all()
    assert (at < later).any() == interleaved


@pytest.mark.parametrize("interleaved", (False, True))
def test_packed_losses_are_those_of_rows_alone(interleaved):
    made = collator(interleaved, images=2)
    alone = made(np.array([[0], [1], [2], [3]]), 60)
    packed = made(np.array([[2, 0, 1, -1], [3, -1, -1, -1]]), 150)
    one, both = (losses("image_bidirectional")[0](arrays(each)) for each in (alone, packed))
    for at, number, row in ((0, 1, 2), (0, 2, 0), (0, 3, 1), (1, 1, 3)):
        mine = np.asarray(both)[at][packed["example"][at] == number]
        np.testing.assert_allclose(mine, np.asarray(one)[row][alone["example"][row] > 0], atol=1e-5)


def test_answers_about_several_pictures():
    """Cached decoding predicts what the uncached model does, whatever other rows show; the order of pictures matters."""
    made = model()
    a, b, c = (Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue", "white"))
    prompts = [made.encoder.prompt_text("question", text) for text in ("same?", "what is it?", "is it so?")]
    options = {"max_new_tokens": 3, "batch_size": 4}
    answers = made.generate([[a, b], c, None], prompts, **options)
    assert made.generate([[b, a], None, [a, b]], [prompts[0], prompts[2], prompts[0]], **options)[1:] == [
        answers[2],
        answers[0],
    ]
    assert made.generate([a, b], prompts[0], **options) == answers[0]
    asked = [{"type": "image", "image": a}, {"type": "text", "text": "same?"}, {"type": "image", "image": b}]
    predictor = made.predictor(DecodeConfig(3), 4)
    each = zip(prompts, ([a, b], [b, a], [c]), strict=True)
    requests = [made._request(made.encoder.asked(prompt, len(images)), images) for prompt, images in each]
    batch = predictor.batch(requests, 32)
    forced = np.array([[5, 6, 7]] * 4, np.int32)
    cached = np.asarray(predictor.generate.forced_logits(made.params, batch, forced))
    full = tiny.with_answers(batch, forced, 3)
    logits = np.asarray(made._forward(made.params, {k: v for k, v in full.items() if k != "row"}))
    for row, request in enumerate(requests):
        first = len(request.prompt) - 1
        np.testing.assert_allclose(cached[row], logits[row, first : first + 3], atol=2e-5)
    swapped = predictor.batch([requests[0], dataclasses.replace(requests[0], image=requests[0].image[::-1])], 32)
    one, other = np.asarray(predictor.generate.forced_logits(made.params, swapped, forced))[:2]
    assert np.abs(one - other).max() > 1e-3
    shared = made.predictor(DecodeConfig(3), 4, shared=True)  # each row's pictures through the decoder before its prompt
    once = shared.generate.forced_logits(made.params, shared.placed(made.params, requests, 32, 2), forced)
    np.testing.assert_allclose(once[:3], cached[:3], atol=2e-5)
    assert isinstance(made.chat([{"role": "user", "content": asked}], **options), str)


def test_a_report_shows_pictures_side_by_side_with_a_line_between_them():
    shown = np.asarray(samples._seen(None, ROWS[0]).convert("L"))
    side = shown.shape[0]
    assert shown.shape == (side, 2 * side)  # nothing is added between: attention is drawn over this from edge to edge
    assert (shown[:, side - 1 : side + 1] == 255).all() and set(shown[:, 0]) == {1} and set(shown[:, -1]) == {2}


def test_a_twin_exchanges_pictures_that_belong_together():
    rows = [ROWS[0], ROWS[3], ROWS[2], ROWS[4], dataclasses.replace(ROWS[2], image_id="9", picture=picture(9)), ROWS[1]]
    names = [[p.name for p in row.pictures] for row in derange(rows, 0)]
    assert names == [["p4", "p5"], ["p1", "p2"], ["p9"], ["p3", "p9", "p1"], ["p3"], []]


def test_packing_counts_slots():
    assert pack([5, 3, 9, 2, 1], 10, 3, [1, 2, 1, 1, 1]) == [[2, 4], [0, 1], [3]]
    rng = np.random.default_rng(0)
    lengths, takes = rng.integers(1, 20, 200), rng.integers(1, 4, 200)
    packed = pack(lengths, 40, 4, takes)
    assert sorted(at for row in packed for at in row) == list(range(200))
    assert all(lengths[row].sum() <= 40 and takes[row].sum() <= 4 for row in packed)
    assert pack(lengths, 40, 4, np.ones(200, int)) == pack(lengths, 40, 4)
    mixture = Mixture([Several()], [1.0], 0, shuffle=False)
    plan = PackedPlan(mixture, 2, 60, 3, lengths=Lengths(encoder()), images=2, window=1, stop=4)
    batches = HostBatches(collator(images=2), plan, plan.batches(4))
    seen = []
    for batch in (batches[step] for step in range(len(batches))):
        assert batch["owner"].shape == (2, 3)
        seen += [int(row) for row in batch["row"].ravel() if row >= 0]
        assert all(list(row[row > 0]) == sorted(row[row > 0]) for row in batch["owner"])
    assert sorted(seen) == [0, 1, 2, 3]
    assert Lengths(encoder()).pictures(mixture, np.array([0, 4, -1, 1])).tolist() == [2, 3, 0, 0]


SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "cases"


@pytest.mark.skipif(not SHARED.exists(), reason="the small misread inputs lie beside the project, not in it")
def test_a_list_of_pictures_is_a_row_of_several():
    source = open_source({"path": str(SHARED / "llava_two.json")})
    assert [len(source[at].pictures) for at in range(5)] == [2, 1, 1, 1, 1]
    row = source[0]
    assert row.turns == (Turn("What differs?", "the colour"),) and row.places == ((0, 0), (0, 0))
    assert [p.path.rpartition("/")[2] for p in row.pictures] == ["p0.png", "p1.png"]


def dialogue(folder, *messages, image=("a.png", "b.png")):
    for shade, name in enumerate(("a.png", "b.png", "c.png")):
        Image.new("RGB", (4, 4), (shade,) * 3).save(folder / name)
    turns = [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(messages)]
    (folder / "rows.json").write_text(json.dumps([{"id": "7", "image": list(image), "conversations": turns}]))
    return {"path": str(folder / "rows.json")}


def test_readers_keep_where_placeholders_stood(tmp_path):
    spec = dialogue(tmp_path, "first <image>,\nthen <image>", "no", "and?", "yes")
    row = open_source(spec)[0]
    assert [turn.question for turn in row.turns] == ["first ,\nthen", "and?"]
    assert row.places == ((0, 6), (0, 12))  # the blank before the second one went with the end of the question
    row = open_source(dialogue(tmp_path, "<image> one?", "no", "<image>\nand this?", "yes"))[0]
    assert row.places == ((0, 0), (1, 0)) and row.turns[1].question == "and this?"
    assert open_source(dialogue(tmp_path, "<image> one?", "no"))[0].places == ()  # of two pictures: both first
    same = open_source(dialogue(tmp_path, "<image><image> same?", "yes", image=("a.png", "a.png")))[0]
    assert (
        len(same.pictures) == 2
        and len(open_source(dialogue(tmp_path, "same?", "yes", image=("a.png", "a.png")))[0].pictures) == 1
    )


def test_one_evaluation_picture_drops_a_row(tmp_path):
    spec = dialogue(tmp_path, "<image><image> same?", "no")
    with pytest.raises(VlaxError, match=r"no rows are left \(1 read, 1 dropped by the leak filter\)"):
        open_source(spec, drop_image_ids={str(tmp_path / "b.png")})
    with pytest.raises(VlaxError, match=r"no rows are left"):  # by its id
        open_source(spec, drop_image_ids={"b.png"})
    assert len(open_source(spec, drop_image_ids={str(tmp_path / "c.png")})) == 1
    keys = leaks.evaluation_pictures([open_source(spec)])
    assert {str(tmp_path / "a.png"), str(tmp_path / "b.png")} <= keys


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((64, 64))


def test_the_look_of_every_picture_of_a_row_counts(tmp_path, monkeypatch):
    """The second picture is one of an evaluation set under another name: known once the doctor has looked at both sets."""
    monkeypatch.setenv("VLAX_CACHE", str(tmp_path / "cache"))
    spec = dialogue(tmp_path, "<image><image> same?", "no")
    for seed, name in enumerate(("a.png", "b.png")):
        noise(seed).save(tmp_path / name)
    other = tmp_path / "other"
    other.mkdir()
    dialogue(other, "<image> what?", "it", image=("c.png",))
    noise(1).save(other / "c.png")
    mine, theirs = open_source(spec), open_source({"path": str(other / "rows.json")})
    for source in (mine, theirs):
        scan(source, Limits(), progress=False)
    assert mine.near_to(theirs.all_looks()).tolist() == [0] and theirs.near_to(mine.all_looks()).tolist() == [0]
    assert mine.seen_in(theirs.left_looks()) == [0] and len(mine.all_looks().hashes) == 2
    noise(5).save(other / "c.png")
    scan(theirs, Limits(), progress=False)
    assert mine.near_to(theirs.all_looks()).tolist() == []


def test_a_prepared_set_has_rows_of_several_pictures(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    spec = dialogue(folder, "first <image>, then <image>?", "no")
    source = open_source(spec)
    prepare(source, tmp_path / "out", Encoding(SMALL, "png", 95), spec=spec, train=True, progress=False)
    row, want = open_source({"kind": "prepared", "path": str(tmp_path / "out")})[0], source[0]
    assert (row.turns, row.places, row.image_id, len(row.pictures)) == (want.turns, want.places, want.image_id, 2)
    for mine, theirs in zip(row.pictures, want.pictures, strict=True):
        np.testing.assert_array_equal(mine.pixels(SMALL), theirs.pixels(SMALL))
    with pytest.raises(VlaxError, match="no rows are left"):
        open_source({"kind": "prepared", "path": str(tmp_path / "out")}, drop_image_ids={str(folder / "b.png")})


def test_the_doctor_looks_at_every_picture_of_a_row(tmp_path):
    spec = dialogue(tmp_path, "<image><image> same?", "no")
    (tmp_path / "b.png").write_bytes(b"no picture")
    found = scan(open_source(spec), Limits(min_side=1), progress=False)
    kinds = {finding.kind: (finding.rows, finding.image.rpartition("/")[2]) for finding in found.findings}
    assert kinds["not a picture"] == (("7#0",), "b.png") and kinds["several pictures"][0] == ("7#0",)
    assert found.shown == [0] and found.others == [(0, 1)]


def test_pairs_are_a_fair_coin_and_their_pictures_tell(tmp_path):
    source = open_source({"kind": "pairs", "split": "val", "size": 60})
    answers = [source[at].turns[0].answer for at in range(60)]
    assert 20 < answers.count("yes") < 40
    for at in range(12):
        first, second = (np.asarray(p.open()) for p in source[at].pictures)
        assert (first == second).all() == (answers[at] == "yes")
    assert open_source({"kind": "pairs", "split": "val", "size": 60}).fingerprint == source.fingerprint


def test_documented_grids():
    text = re.search(r"^ +(\[grid\(.*\)\])$", images.grid.__doc__, flags=re.MULTILINE)[1]
    assert eval(text, {"grid": images.grid})
    assert images.grid((64, 64), 8, 0) == (1, 1)


def test_tiles_are_parts_in_reading_order_beside_the_whole():
    wide = Image.fromarray(
        np.repeat(np.arange(24, dtype=np.uint8)[None, :, None], 8, 0).repeat(3, 2)
    )  # 24 x 8: shades by column
    views = SMALL.views(wide, 4)
    assert views.shape == (4, SIDE, SIDE, 3)
    np.testing.assert_array_equal(views[0], SMALL.apply(wide))
    np.testing.assert_array_equal(np.concatenate([*views[1:]], axis=1), np.asarray(wide))
    assert SMALL.views(wide.resize((8, 8)), 4).shape[0] == 1
    tall = SMALL.views(Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)), 4)
    np.testing.assert_array_equal(tall[3][:, 0], np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)[8:, 0])


def test_tiles_take_slots_of_their_example():
    rows = [dataclasses.replace(ROWS[0], picture=Picture("wide", functools.partial(Image.new, "RGB", (24, 8), (9, 9, 9))))]
    source = Several()
    source.__class__ = type("Wide", (Several,), {"__getitem__": lambda self, at: rows[0] if at == 0 else ROWS[at]})
    mixture = Mixture([source], [1.0], 0, shuffle=False)
    for interleaved in (False, True):
        made = Collator(mixture, encoder(interleaved), 60, SMALL, ImageCache(1 << 20), images=2, tiles=3)
        batch = made(np.array([[0], [2]]), 60)
        assert shades(batch) == [[9, 9, 9, 9, 2, -1, -1, -1], [3, *[-1] * 7]]
        assert batch["owner"].tolist() == [[1] * 5 + [0] * 3, [1] + [0] * 7]
        first, second = encoder(interleaved).placed(rows[0]).before
        assert batch["before"][0].tolist() == [first] * 4 + [second, 0, 0, 0]
    stage = base.stage("s")
    with stage.unlocked():
        stage.packing, stage.images = 4, 2
    with pytest.raises(VlaxError, match=r"stage.packing=4 and stage.images=2 and run.tiles=2: .* --config.stage.packing=6"):
        arrange.check_slots(stage, 3, 2)
    stage.augment = ("flip", "colour")
    with pytest.raises(VlaxError, match=r"stage.augment has flip, and run.tiles=1"):
        arrange.check_slots(stage, 2, 1)


def test_a_model_with_tiles_sees_them_when_it_decodes(tmp_path):
    made = model()
    config = dataclasses.replace(made.config, tiles=3)
    assert VLMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert "tiles" not in made.config.to_dict()
    tiled = dataclasses.replace(made, config=config)
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 24, 3), dtype=np.uint8))
    prompt = made.encoder.prompt_text("question", "what?")
    request = tiled._request(tiled.encoder.asked(prompt, 1), [wide])
    assert len(request.images) == 4 and tiled._request(tiled.encoder.asked(prompt, 1), [wide.resize((8, 8))]).before == [0]
    batch = tiled.predictor(DecodeConfig(2), 2).batch([request], 32, config.views)
    assert batch["owner"].tolist() == [[1] * 4, [0] * 4]
