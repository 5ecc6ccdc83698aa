"""--inspect: what it shows is the batch that is trained on, and it tells when that batch is not as it should be."""

import copy
import dataclasses
import os
import subprocess
import sys
import types

import numpy as np
import pytest
from conftest import REPO, tiny
from PIL import Image

from vlax import masks
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.pipeline import Collator, HostBatches, ImageCache
from vlax.data.batches.row_plan import Plan, Planned
from vlax.images import Preprocess
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.rows import Picture, Row, Turn
from vlax.text.bpe import train_bpe
from vlax.text.pieces import pieces as token_pieces
from vlax.text.prompts import Encoder
from vlax.training import stages
from vlax.training.inspect import examples, figure, rendered
from vlax.training.inspect.examples import Example

PIXELS, I, LENGTH = 4, 2, 32  # noqa: E741  (I: image tokens)
CHAT = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}<eos>\n"
    "{% else %}<|bot|>{{ m.content }}<eos>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|bot|>{% endif %}"
)
TEXTS = ["caption: a dog and a cat", "question: is it red? answer: no", "question: is it blue? answer: yes"] * 4


def picture():
    return Image.new("RGB", (6, 8), "red")


ROWS = (
    Row("dog", "1", "caption", (Turn("", "a dog"),), Picture("dog.png", picture)),
    Row("talk", "2", "question", (Turn("is it red?", "no"), Turn("is it blue?", "yes")), Picture("talk.png", picture)),
    Row("text", "", "caption", (Turn("", "a cat"),), None),
    Row("long", "3", "caption", (Turn("", "a dog and a cat and a cat and a dog " * 3),), Picture("long.png", picture)),
)


class Listed:
    name, fingerprint = "listed", "f"

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, index):
        return ROWS[index]


@dataclasses.dataclass(frozen=True, eq=False)
class Packed(Plan):
    """The first three rows in one batch row of four slots, the last alone."""

    def batch(self, step):
        ids = np.array([[0, 1, 2, -1], [3, -1, -1, -1]])
        return Planned(ids, ids, self.text_length)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXTS, 300)


@pytest.fixture
def make(tokenizer):
    """make(overlong=, templates=, length=, kind=, packed=) -> (what stands for a Session, its first batch, its examples)"""

    def build(overlong="drop", templates="plain", length=LENGTH, kind="image_bidirectional", packed=False):
        own = copy.deepcopy(tokenizer)
        own.chat_template = CHAT
        encoder = Encoder(own, templates)
        mixture = Mixture([Listed()], [1.0], 0, shuffle=False)
        preprocess = Preprocess(PIXELS)
        collate = Collator(mixture, encoder, length, preprocess, ImageCache(1 << 20), overlong)
        plan = Packed(mixture, 2, length, 4) if packed else Plan(mixture, 4, length)
        stage = types.SimpleNamespace(text_length=length, overlong=overlong, packing=4 * packed, buckets=())
        vision, projector = VisionConfig(PIXELS, 2, 8, 1, 1, 8), ProjectorConfig("linear", 8, 8, pool=2, newline=True)
        config = VLMConfig(DecoderConfig(300, 8, 1, 1, 1, 8, 8), vision, projector, kind, preprocess)
        assert config.tokens_per_image == I
        s = types.SimpleNamespace(plan=types.SimpleNamespace(stage=stage, name="s"), config=config, encoder=encoder,
                                  batches=HostBatches(collate, plan, 1))  # fmt: skip
        batch = examples.flat(s.batches[0])
        return s, batch, examples.examples(batch)

    return build


def faults(s, batch, rows=None):
    found = examples.checks(batch, examples.examples(batch) if rows is None else rows, s)
    return {check.holds: check.faults for check in found if check.faults}


def test_pieces(tokenizer):
    ids = tokenizer("caption: a dog ü\n<eos>")["input_ids"]
    pieces = token_pieces(tokenizer, ids)
    assert len(pieces) == len(ids) and "".join(pieces) == "caption: a dog ü\n<eos>"
    assert pieces[-4:] == ["", "ü", "\n", "<eos>"]  # two bytes, two tokens: the character comes with the last one
    broken = token_pieces(tokenizer, ids[:-3])  # cut in the middle of a character
    assert broken[-1] == "\ufffd" and len(broken) == len(ids) - 3


def example(tokenizer, *spans, loss=None):
    ids = [tokenizer(text)["input_ids"] for text, _ in spans]
    learned = np.concatenate([np.full(len(i), own) for i, (_, own) in zip(ids, spans, strict=True)])
    return Example(0, 1, 0, 0, np.concatenate(ids), learned, np.append(learned[1:], False), learned, (), ())


def test_tokens_and_the_positions_where_a_loss_falls(tokenizer):
    e = example(tokenizer, ("caption:", False), (" a dog<eos>", True), ("question:", False), (" no<eos>", True))
    assert rendered.token_lines(tokenizer, e, False, 120) == [
        "  tokens   caption│:│« a│ dog│<eos>»│question│:│« no│<eos>»",
        "  loss             ^ ^^^ ^^^^                 ^ ^^^^",
    ]
    assert rendered.token_lines(tokenizer, e, False, 1) == [  # as narrow as it gets
        "  tokens   caption│:│« a│ dog│<eos>»│question│:",
        "  loss             ^ ^^^ ^^^^                 ^",
        "           « no│<eos>»",
        "           ^^^^",
    ]
    colours = rendered.token_lines(tokenizer, e, True, 120)
    assert colours[0].startswith("  tokens   caption│:│\x1b[32m a\x1b[0m│") and "«" not in colours[0]
    assert colours[1] == "  loss             ^ ^^ ^^^^                ^ ^^^"


def test_a_batch_in_text(make):
    s, batch, rows = make()
    text = "\n".join(rendered.described(s, 0, batch, rows, False, 200))
    assert "row 0  listed:dog  (caption)\n  picture  dog.png, 6 x 8 -> 4 x 4 pixels (squash), 2 image tokens\n" in text
    assert "answer│:│« no│<eos>»│question│:│" in text  # a turn of a dialogue
    assert "row 2  listed:text  (caption)\n  picture  none: text alone, its image tokens are hidden\n" in text
    tokens = len(s.encoder.encode(ROWS[3])[0])
    assert f"row 3   filler: listed:long was left out ({tokens} tokens, the limit is {LENGTH})" in text
    used, learned = int((batch["segment"] > 0).sum()), int(masks.loss_mask(batch["segment"], batch["example"]).sum())
    size = 4 * LENGTH
    assert f"fill       {learned / size:.0%} supervised, {(used - learned) / size:.0%} prompt, " in text
    assert "2 pictures in 4 slots; 1 of 4 rows filler" in text
    assert text.count("ok    ") == 7 and "FAULT" not in text


@pytest.mark.parametrize("kind", masks.KINDS)
@pytest.mark.parametrize("packed", (False, True))
def test_nothing_is_wrong_with_a_good_batch(make, kind, packed):
    s, batch, _ = make(kind=kind, packed=packed, length=64)
    assert faults(s, batch) == {}


def test_an_answer_that_was_cut(make):
    s, batch, rows = make(overlong="cut", length=16)
    whole = len(s.encoder.encode(ROWS[3])[0])
    (fault,) = faults(s, batch)["every answer ends with a supervised EOS"]
    assert fault.startswith("row 3, listed:long: an answer ends with ") and "and has no EOS" in fault
    assert f"(cut from {whole} to 16 tokens: stage.overlong=cut)" in fault
    text = "\n".join(rendered.described(s, 0, batch, rows, False, 200))
    assert "FAULT      every answer ends with a supervised EOS: not in 1 case\n" in text and fault in text


def test_a_row_whose_prompt_fills_it_is_left_out_and_counted(make):
    """Cut to its prompt, it would be computed and teach nothing."""
    s, batch, _ = make(overlong="cut", length=2)
    assert (batch["row"] == -1).all() and not batch["has_image"].any() and not batch["segment"].any()
    assert s.batches.collate.left_out.counts["cut"] == 4


def test_every_answer_of_a_chat_template_ends_with_eos(make):
    s, batch, rows = make(templates="chat", length=160)
    text = "\n".join(rendered.in_full(s, 1, rows[1], batch, False, 500))
    assert "│«no│<eos>»│\\n│" in text.replace("«n│o", "«no") and text.count("<eos>»") == 2
    assert faults(s, batch) == {} and len(examples.answer_ends(rows[1][0])) == 2


def test_seeded_faults_are_found(make):
    s, batch, rows = make()
    end = examples.answer_ends(rows[0][0])[0]

    def broken(key, at, value):
        changed = batch[key].copy()
        changed[at] = value
        return {**batch, key: changed}

    assert "every answer ends with a supervised EOS" in faults(s, broken("tokens", (0, end), 5))
    assert list(faults(s, broken("segment", (0, slice(0, end + 1)), masks.PROMPT))) == ["every example has a supervised token"]
    first = faults(s, broken("segment", (0, 0), masks.ANSWER))["the answers are supervised, prompts and pads are not"]
    assert first == ("row 0, listed:dog: an answer token without loss, '<bos>' at 0",)
    hidden = faults(s, broken("has_image", (1, 0), False))
    assert hidden == {"every picture is shown to the model": ("row 1, listed:talk: its picture is not in the batch",)}


@pytest.mark.parametrize(("change", "sentence", "fault"), (
    (lambda m, i, p: (m | True, i, p), "no position sees a pad or another example", "row 0: position 0 (example 1) sees"),
    (lambda m, i, p: (m | ((i == 0) & (i[:, None] == 0)), i, p), "no position sees a pad or another example",
     "row 0: position "),
    (lambda m, i, p: (m & (np.arange(len(i)) >= I), i, p), "image tokens come first, and all text of their example sees them",
     "row 0: the text of example 1 does not follow its 2 image tokens"),
    (lambda m, i, p: (m, i, p + (p >= I)), "image tokens come first, and all text of their example sees them",
     "row 0: the text of example 1 does not follow"),
    (lambda m, i, p: (m | ((i > 0) & (i[:, None] > 0)), i, p), "no position sees the token that it is to predict",
     "row 0: a token of example 1 sees the next one, which it is to predict"),
))  # fmt: skip
def test_a_wrong_mask_is_found(make, monkeypatch, change, sentence, fault):
    s, batch, _ = make()
    right = examples.attention
    monkeypatch.setattr(examples, "attention", lambda *args: change(*right(*args)))
    assert any(text.startswith(fault) for text in faults(s, batch)[sentence])


def test_a_packed_row(make):
    s, batch, rows = make(packed=True, length=64)
    assert [[(e.number, e.row, bool(e.images)) for e in row] for row in rows] == [
        [(1, 0, True), (2, 1, True), (3, 2, False)],
        [(1, 3, True)],
    ]
    sizes = [len(s.encoder.encode(row)[0]) for row in ROWS]
    assert [(e.begin, e.end) for e in rows[0]] == [(0, sizes[0]), (sizes[0], sum(sizes[:2])), (sum(sizes[:2]), sum(sizes[:3]))]
    text = "\n".join(rendered.in_full(s, 0, rows[0], batch, False, 200))
    assert text.startswith(f"row 0  3 examples, {sum(sizes[:3])} tokens + {64 - sum(sizes[:3])} pads\n")
    assert f"  example 2, tokens {sizes[0]}..{sum(sizes[:2]) - 1}  listed:talk  (question)\n" in text
    assert "2 image tokens in slot 2" in text
    assert rendered.in_short(s, 0, rows[0], batch, "", 999).startswith("row 0   2 of 3 with picture, ")


def test_micro_batches_of_a_scan_are_shown_as_one(make):
    _, batch, _ = make()
    stacked = {key: value.reshape(2, 2, *value.shape[1:]) for key, value in batch.items()}
    for key, value in examples.flat(stacked).items():
        np.testing.assert_array_equal(value, batch[key], err_msg=key)


def test_the_mask_is_drawn_in_the_colours_of_what_is_seen(make):
    s, batch, rows = make(length=16)
    mask, ids, _ = examples.attention(batch, 0, I, "image_bidirectional")
    names = {figure.rgb(colour): kind for kind, colour in figure.KINDS.items()}
    drawn = figure.mask_pixels(batch, 0, mask, ids)
    shown = ["".join(names.get(tuple(int(v) for v in pixel), ".")[0] for pixel in line) for line in drawn]
    prompt, answer = (int((batch["segment"][0] == kind).sum()) for kind in (masks.PROMPT, masks.ANSWER))
    pads = 16 - prompt - answer
    assert shown[0] == shown[1] == "ii" + "." * 16
    assert shown[I] == "iip" + "." * 15
    assert shown[I + prompt + answer - 1] == "ii" + "p" * prompt + "a" * answer + "." * pads
    assert shown[-1] == "." * 17 + "p" and drawn[-1, -1].tolist() == list(figure.rgb("#b9bec4"))  # a pad
    sheet = figure.draw(s, batch, rows)
    assert sheet.mode == "RGB" and min(sheet.size) > 1000
    assert {figure.rgb(c) for c in (*figure.KINDS.values(), figure.LOSS)} <= {colour for _, colour in sheet.getcolors(1 << 24)}


def test_of_large_images_a_part_is_drawn():
    assert figure.drawn_positions(2, 2, 7).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert figure.drawn_positions(1, 0, 3).tolist() == [0, 1, 2]
    kept = figure.drawn_positions(2, 100, 205).tolist()
    assert len(kept) == 2 * figure.DRAWN + 5 and kept == sorted(set(kept)) and kept[-5:] == [200, 201, 202, 203, 204]
    assert {0, 99, 100, 199} <= set(kept)


def test_a_sheet_of_filler_only_is_drawn(make):
    s, batch, _ = make()
    nothing = {key: np.zeros_like(value) for key, value in batch.items()} | {"row": np.full_like(batch["row"], -1)}
    rows = examples.examples(nothing)
    assert rows == [[]] * 4
    assert figure.draw(s, nothing, rows).height > 0
    assert "4 of 4 rows filler" in rendered.fill(nothing, rows)[0] and rendered.histogram(rows) == []


def test_parents_that_are_not_trained_stand_for_what_they_start_from(tmp_path):
    plans = stages.chain(tiny("stage3"), tmp_path)
    plan, waiting = stages.resolved(plans)
    assert dict(plan.stage.init) == {"vision": "fresh", "projector": "fresh", "decoder": "fresh"} and plan.parents == {}
    assert waiting == ["stage2", "stage1", "stage0_decoder", "stage0_vision"]
    (tmp_path / "stage1" / "export").mkdir(parents=True)
    (tmp_path / "stage1" / "export" / "manifest.json").write_text("{}")
    plan, waiting = stages.resolved(plans)
    assert set(plan.stage.init.values()) == {"stage1"} and set(plan.parents.values()) == {tmp_path / "stage1"}
    assert waiting == ["stage2"] and dict(plans[-1].stage.init)["vision"] == "stage2"  # the plan itself is as it was


@pytest.mark.slow  # the README's walk has the command
def test_the_command(tmp_path):
    head = f"import sys\nsys.path[:0] = [{str(REPO)!r}, {str(REPO / 'tests')!r}]\nfrom conftest import tiny\n"
    (tmp_path / "packed.py").write_text(
        head + "def get_config():\n    return tiny('stage3', stage__packing=3, stage__augment=('flip', 'shift'))\n"
    )
    command = [sys.executable, "train.py", f"--config={tmp_path}/packed.py", f"--workdir={tmp_path}/w", "--inspect"]
    done = subprocess.run([*command, "--inspect_batches=2"], cwd=REPO, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert "=== stage3: its first batches ===" in done.stdout and "not trained yet: stage2, stage1, " in done.stdout
    assert "--- batch 1 of 4: 8 rows of 40 text tokens, up to 3 examples a row ---" in done.stdout
    assert done.stdout.count("ok         no position sees a pad or another example") == 2
    assert "\x1b" not in done.stdout and "example 1, tokens 0.." in done.stdout
    assert [str(path.relative_to(tmp_path / "w")) for path in (tmp_path / "w").rglob("*")] == ["stage3", "stage3/inspect.png"]
    with Image.open(tmp_path / "w" / "stage3" / "inspect.png") as sheet:
        assert sheet.format == "PNG"
