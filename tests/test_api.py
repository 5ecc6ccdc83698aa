"""`vlax.load` on the shared chain's exports: shapes, consistency of logits with decoding, independence of the batch."""

import re

import numpy as np
import pytest
from PIL import Image

import vlax
from vlax.data.sources import open_source
from vlax.images import as_rgb

ROWS, NEW = 7, 5


@pytest.fixture(scope="module")
def model(trained):
    return vlax.load(trained[1] / "stage4" / "export")


@pytest.fixture(scope="module")
def images():
    source = open_source({"kind": "scenes", "split": "test", "style": "human", "size": ROWS})
    return [source[i].picture.open() for i in range(ROWS)]


@pytest.fixture(scope="module")
def questions():
    return ["what colour is the circle?", "is it red?", "how many?", "what?", "is the square left of the cross?", "x", "is it?"]


@pytest.fixture(scope="module")
def answers(model, images, questions):
    return model.answer(images, questions, max_new_tokens=NEW, batch_size=8)


def test_a_loaded_model_knows_what_it_is(model, trained):
    assert model.manifest["stage"] == "stage4" and model.config.mask == "image_bidirectional"
    assert model.encoder.templates == "plain" and len(model.encoder.tokenizer) <= model.config.decoder.vocab_size
    assert {str(value.dtype) for value in model.params.values()} == {"float32"}


def test_one_text_a_prompt(model, images, questions, answers):
    captions = model.caption(images, max_new_tokens=NEW, batch_size=8)
    assert len(captions) == len(answers) == ROWS and all(isinstance(text, str) for text in captions + answers)
    prompts = [model.encoder.prompt_text("question", q) for q in questions]
    assert prompts[1] == "question: is it red? answer:"
    assert model.generate(images, prompts, max_new_tokens=NEW, batch_size=8) == answers
    assert model.generate([], []) == []


def test_a_rows_tokens_do_not_depend_on_its_batch(model, images, questions):
    """Requests of one, three and all rows; prompts of one padded length, as one evaluation has."""
    from vlax.decoding.options import DecodeConfig
    from vlax.decoding.predict import Request

    predictor = model.predictor(DecodeConfig(NEW), 8)
    asked = [Request(model.encoder.prompt("question", q), model.pixels(i)) for q, i in zip(questions, images, strict=True)]
    found = {}
    for size in (1, 3, ROWS):
        parts = [asked[begin : begin + size] for begin in range(0, ROWS, size)]
        tokens = [np.asarray(predictor.generate(model.params, predictor.batch(part, 32))[0]) for part in parts]
        found[size] = [row for part, ids in zip(parts, tokens, strict=True) for row in ids[: len(part)].tolist()]
    assert found[1] == found[3] == found[ROWS]
    assert len({tuple(row) for row in found[1]}) > 1  # or the test says little


def test_few_prompts_are_decoded_in_a_small_batch_with_the_same_answers(model, images, questions, answers, monkeypatch):
    from vlax.decoding import sure
    from vlax.decoding.predict import Predictor

    made, sizes = Predictor.batch, []

    def batch(self, requests, length, slots=0, rows=0):
        sizes.append((len(requests), rows))
        return made(self, requests, length, slots, rows)

    monkeypatch.setattr(Predictor, "batch", batch)
    assert model.answer(images[:1], questions[:1], max_new_tokens=NEW, batch_size=8) == answers[:1]
    assert sizes == [(1, 1)]
    monkeypatch.setattr(sure, "MARGIN", np.inf)  # nothing is sure: the whole batch decides
    assert model.answer(images[:1], questions[:1], max_new_tokens=NEW, batch_size=8) == answers[:1]
    assert sizes == [(1, 1), (1, 1), (1, 0)]


def test_rows_that_share_a_picture_look_at_it_once(model, images, questions, monkeypatch):
    """Seven questions on two pictures, one a row without: the tower takes two at a time, once; the answers are the same, and
    those of a row do not depend on what else is asked."""
    from vlax.decoding.options import DecodeConfig
    from vlax.decoding.predict import Request

    one, two, looked = model.pixels(images[0]), model.pixels(images[1]), []
    shown = [one, one.copy(), two, None, one, two.copy(), two]  # the same pixels are the same picture
    asked = [Request(model.encoder.prompt("question", q), image) for q, image in zip(questions, shown, strict=True)]
    alone, shared = (model.predictor(DecodeConfig(NEW), 8, shared=how) for how in (False, True))
    want = [text for batch in alone.texts(model.params, asked, 32) for text in batch]
    see, read = shared.seen._see, shared.seen._read
    monkeypatch.setattr(shared.seen, "_see", lambda *args: looked.append(("tower", len(args[1]))) or see(*args))
    monkeypatch.setattr(shared.seen, "_read", lambda *args: looked.append(("decoder", args[2].sum())) or read(*args))
    assert [text for batch in shared.texts(model.params, asked, 32) for text in batch] == want
    assert looked == [("tower", 2), ("decoder", 2)] and shared.seen.rows == 2
    parts = [shared.placed(model.params, part, 32, 1) for part in (asked, asked[:1])]
    whole, first = (np.asarray(shared.generate(model.params, part)[1]) for part in parts)
    assert whole[0] == first[0] and looked[-2:] == [("tower", 2), ("decoder", 1)]  # of whom one is filler
    assert len({*want}) > 1  # or the test says little


def test_logits_agree_with_greedy_decoding(model, images):
    """The text that greedy decoding wrote, given back as the answer, is at each token the argmax of the logits."""
    prompts = [model.encoder.prompt_text("caption", "")] * 2
    forced = ["a dog", "a small dog sees a cat"]
    logits = model.logits(images[:2], prompts, forced)
    sizes = [len(model.encoder.ids(" " + text)) + 1 for text in forced]  # and the EOS
    assert logits.shape == (2, max(sizes), model.config.decoder.vocab_size) and logits.dtype == np.float32
    assert not logits[0, sizes[0] :].any() and np.isfinite(logits).all() and logits[1].any(-1).all()

    ids = [logits[0, 0].argmax()]  # what greedy decoding says first is what the logits of any answer's first token say
    first = model.generate(images[:1], prompts[:1], max_new_tokens=1, batch_size=8)
    assert first == [model.encoder.decode(ids)]


def test_logits_depend_on_image_and_prompt_and_on_earlier_answer_tokens_only(model, images):
    prompt = model.encoder.prompt_text("caption", "")
    ids = model.encoder.ids
    assert ids(" a dog")[:1] == ids(" a cat")[:1]
    base, answer, image, other = model.logits(
        [images[0], images[0], images[1], images[0]],
        [prompt, prompt, prompt, model.encoder.prompt_text("describe", "")],
        ["a dog", "a cat", "a dog", "a dog"],
    )
    np.testing.assert_allclose(base[:2], answer[:2], atol=1e-5)  # the second token is predicted from the first, the same
    assert np.abs(base[-1] - answer[-1]).max() > 1e-4
    assert np.abs(base[0] - image[0]).max() > 1e-6 and np.abs(base[0] - other[0]).max() > 1e-6


def test_answers_of_a_list_come_back_as_given(model, images, questions):
    listed = ["yes", "no", "two", "left  "]
    for by in ("trie", "likelihood"):
        found = model.answer(images, questions, answers=listed, by=by, batch_size=8)
        assert len(found) == ROWS and set(found) <= set(listed)
    by_order = model.answer(images, questions, answers=listed[::-1], by="likelihood", batch_size=8)
    assert by_order == found  # the order of the list decides nothing


def test_images_may_be_paths_or_absent(model, images, tmp_path):
    images[0].save(tmp_path / "a.png")
    prompt = [model.encoder.prompt_text("caption", "")]
    by_path, by_image, blind = (model.logits([x], prompt, ["a dog"]) for x in (str(tmp_path / "a.png"), images[0], None))
    np.testing.assert_array_equal(by_path, by_image)
    assert np.abs(by_image - blind).max() > 1e-6


def upright_deep_and_clear(folder):
    """Three files that Pillow alone reads otherwise, and the means of their quadrants as people see them."""
    turned = np.zeros((8, 8, 3), np.uint8)
    turned[4:] = 255  # stored upside down: dark on top once it is turned by half
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(turned).save(folder / "turned.png", exif=exif)
    deep = np.repeat([[0x1000, 0x8000]], 8, 0).repeat(4, 1).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray((deep / 65536).astype(np.float32)).save(folder / "float.tiff")
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4, :, 3] = 255
    Image.fromarray(clear).save(folder / "clear.png")
    return {"turned.png": [255, 255, 0, 0], "deep.png": [16, 128, 16, 128], "float.tiff": [16, 128, 16, 128],
            "clear.png": [0, 0, 255, 255]}  # fmt: skip


def test_a_picture_is_the_same_however_it_is_handed_over(model, tmp_path):
    for name, want in upright_deep_and_clear(tmp_path).items():
        path = tmp_path / name
        with Image.open(path) as image, path.open("rb") as file:
            raw = [str(path), path, image, path.read_bytes(), file, as_rgb(image), np.asarray(as_rgb(image))]
            seen = [model.pixels(picture) for picture in raw]
        for pixels in seen:
            np.testing.assert_array_equal(pixels, seen[0], err_msg=name)
        middle = len(seen[0]) // 2
        quarters = [seen[0][y : y + middle, x : x + middle] for y in (0, middle) for x in (0, middle)]
        np.testing.assert_allclose([part[2:-2, 2:-2].mean() for part in quarters], want, atol=2, err_msg=name)


def test_one_picture_gives_one_text(model, images):
    assert model.caption(images[0], max_new_tokens=NEW) == model.caption(images[:1], max_new_tokens=NEW)[0]
    assert isinstance(model.answer(np.asarray(images[0]), "what?", max_new_tokens=NEW), str)
    assert len(model.caption(np.stack([np.asarray(image) for image in images[:2]]), max_new_tokens=NEW)) == 2
    for wrong, said in ((3, "int"), (np.zeros((4, 4, 3)), r"float64\[4, 4, 3\]"), ([images[0]], "list")):
        with pytest.raises(vlax.VlaxError, match=f"a picture is a path, a PIL image, uint8.*, not {said}$"):
            model.pixels(wrong)
    with pytest.raises(vlax.VlaxError, match=r"its grey values \(int32\) run from -5 to 3, where 16 bits have 0 to 65,535"):
        model.pixels(Image.fromarray(np.array([[-5, 3]], np.int32)))


def test_a_bfloat16_copy(trained, model, images):
    small = vlax.load(str(trained[1] / "stage4" / "export"), dtype="bfloat16")
    assert {str(value.dtype) for value in small.params.values()} == {"bfloat16"}
    prompt = [small.encoder.prompt_text("caption", "")]
    want, got = (m.logits(images[:1], prompt, ["a dog"]) for m in (model, small))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=0.05 * np.abs(want).max())


def test_errors_by_text(model, images, tmp_path, trained):
    with pytest.raises(vlax.VlaxError, match="2 images and 1 prompts; give one image"):
        model.generate(images[:2], ["x"])
    with pytest.raises(vlax.VlaxError, match=r"nothing.png: the picture is missing; give the path"):
        model.caption([tmp_path / "nothing.png"])
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(
        vlax.VlaxError, match=r"bad.png: the picture does not decode .it is of no format that Pillow knows.; replace the file$"
    ):
        model.caption([tmp_path / "bad.png"])
    with pytest.raises(vlax.VlaxError, match=re.escape(f"{tmp_path} is not a finished vlax export")):
        vlax.load(tmp_path)
    with pytest.raises(vlax.VlaxError, match="dtype='float8' is not one of float32, bfloat16"):
        vlax.load(trained[1] / "stage4" / "export", dtype="float8")
    with pytest.raises(vlax.VlaxError, match="num_beams=2 searches and temperature=1"):
        model.caption(images[:1], num_beams=2, temperature=1.0)
    with pytest.raises(vlax.VlaxError, match="2 images, 1 prompts and 1 answers"):
        model.logits(images[:2], ["x"], ["y"])


def test_a_text_only_export_ignores_images(trained, images):
    decoder = vlax.load(trained[1] / "stage0_decoder" / "export")
    assert decoder.config.vision is None and decoder.config.tokens_per_image == 0
    with_image, without = (decoder.logits([x], ["caption:"], ["a dog"]) for x in (images[0], None))
    np.testing.assert_array_equal(with_image, without)


def test_squares_and_modes(model):
    for mode in ("L", "RGBA", "P"):
        pixels = model.pixels(Image.new(mode, (5, 40)))
        assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
