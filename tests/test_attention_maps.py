"""The maps of an answer's tokens against `VLM.attention_weights` by hand; the grid against single patches."""

import dataclasses

import jax
import numpy as np
import pytest
from test_constrain import QUESTIONS, pictures, tokenizer, toy, wrap
from tiny import config as tiny_config

from vlax.decoding import constrain
from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Request
from vlax.errors import VlaxError
from vlax.evaluation.report.attention import END, answer_attention, grid, readable
from vlax.params import groups
from vlax.text.prompts import Encoder

TEXTS = ("dog house", "yes", "", "a red cat", "no")  # the last row has no image


def requests(model):
    return [
        Request(model.encoder.prompt("question", question), model.pixels(image), row)
        for row, (question, image) in enumerate(zip(QUESTIONS, pictures(), strict=True))
    ]


def by_hand(model, request, ids):
    """f32[A,I]: one row by itself, without padding, from the whole [H,S,S] of every layer."""
    predictor = model.predictor(DecodeConfig(1), 1)
    size, total = len(request.prompt), len(request.prompt) + len(ids)
    batch = predictor.batch([Request([*request.prompt, *ids], request.image)], total)
    batch["segment"][0, size:] = 2
    weights = jax.jit(lambda params, batch: groups.rebuild(model.graphdef, params).attention_weights(batch))
    layers = np.stack([np.asarray(w)[0] for w in weights(model.params, {k: v[:1] for k, v in batch.items()})])
    images = model.config.tokens_per_image
    rows = layers.mean((0, 1))[images + size - 1 : images + total - 1, :images]
    return rows / rows.sum(-1, keepdims=True)


@pytest.mark.parametrize("fields", ({"layers": 2}, {"mask": "prefix_lm"}), ids=("two layers", "prefix_lm"))
def test_maps_equal_the_weights_by_hand(fields):
    model = toy(**fields)
    asked = requests(model)
    found = answer_attention(model, asked, TEXTS)
    assert [len(row) for row in found[:3]] == [len(constrain.answer_ids(model.encoder, text)) for text in TEXTS[:3]]
    assert found[4] == [] and [token for token, _ in found[2]] == [END]
    for i in (0, 3):
        ids = constrain.answer_ids(model.encoder, TEXTS[i])
        want = by_hand(model, asked[i], ids).reshape(-1, 2, 2)
        np.testing.assert_allclose(np.stack([one for _, one in found[i]]), want, atol=1e-5)
    maps = np.stack([one for row in found for _, one in row])
    assert maps.dtype == np.float32 and maps.shape[1:] == (2, 2)
    np.testing.assert_allclose(maps.sum((1, 2)), 1, atol=1e-5)
    assert maps.std(0).max() > 1e-3  # tokens differ in where they look


def test_generated_ids_and_their_text_give_the_same_maps():
    model = toy(layers=2)
    ids = [constrain.answer_ids(model.encoder, text) for text in TEXTS]
    padded = [[*one, 0, 0] for one in ids]
    assert model.encoder.tokenizer.pad_token_id == 0
    for left, right in zip(
        answer_attention(model, requests(model), padded), answer_attention(model, requests(model), TEXTS), strict=True
    ):
        assert [token for token, _ in left] == [token for token, _ in right]
        for (_, a), (_, b) in zip(left, right, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    (cut,) = answer_attention(model, requests(model)[:1], [[*ids[0][:2], 0]])  # max_new_tokens ended it before its EOS
    assert len(cut) == 2 and cut[-1][0] != END


def test_a_map_is_zero_where_the_window_ends_before_the_image():
    model = toy(window=2, window_layers=(0,))
    (row,) = answer_attention(model, requests(model)[:1], ["yes"])
    assert all(not one.any() for _, one in row)


def test_the_grid_is_the_pictures():
    """One patch changes: of the tokens that reach the decoder only the one at its place in the grid does."""
    plain = tiny_config(vocab_size=290)
    vision = dataclasses.replace(plain.vision, image_size=16, class_token=True, registers=2)
    projector = dataclasses.replace(plain.projector, pixel_shuffle=2)
    model = wrap(dataclasses.replace(plain, vision=vision, projector=projector, preprocess=None))
    assert grid(model.config) == (2, 2) and model.config.tokens_per_image == 4
    silent = {path: 0 * value if "/attention/o/" in path else value for path, value in model.params.items()}
    assert any("vision" in path and not value.any() for path, value in silent.items())  # no patch sees another
    tokens = jax.jit(lambda params, image: groups.rebuild(model.graphdef, params).image_tokens(image))
    blank = np.zeros((1, 1, 16, 16, 3), np.uint8)
    for row, column in ((0, 1), (1, 0)):
        dot = blank.copy()
        dot[0, 0, row * 8 + 5, column * 8 + 2] = 255
        changed = np.abs(np.asarray(tokens(silent, dot) - tokens(silent, blank))[0]).max(-1) > 1e-6
        assert np.argwhere(changed.reshape(2, 2)).tolist() == [[row, column]]


def test_tokens_are_readable():
    encode = tokenizer()
    ids = [*Encoder(encode, "plain").ids(" dog é日\n x"), encode.eos_token_id]
    shown = readable(encode, ids)
    assert shown[-1] == END and "dog" in "".join(shown)
    assert shown[ids.index(encode("\n", add_special_tokens=False)["input_ids"][0])] == "\\n"
    assert [t for t in shown if t in ("…", "é", "日")] == ["…", "é", "…", "…", "日"]  # two and three bytes
    assert not any("�" in text or "Ġ" in text or not text for text in shown)


def test_text_only_models_and_errors():
    model = toy(text_only=True)
    assert answer_attention(model, [Request([1, 5], None)], ["yes"]) == [[]]
    with pytest.raises(VlaxError, match="1 requests and 2 answers; give one answer a request"):
        answer_attention(model, [Request([1, 5], None)], ["yes", "no"])
