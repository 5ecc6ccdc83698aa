"""Answers from a list against brute force over the uncached model: by trie and by likelihood."""

import functools
import itertools

import numpy as np
import pytest
from PIL import Image
from tiny import EOS, PAD, ROWS, answer_logits, build, log_softmax, prompts, weights
from tiny import config as tiny_config

from vlax.decoding import constrain
from vlax.decoding.generator import Generator
from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Predictor, Request
from vlax.errors import VlaxError
from vlax.model import api
from vlax.params import sharding
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder

ANSWERS = ("dog", "dog house", "yes", "no", "red cat", "doghouse")
QUESTIONS = ("is it red?", "what?", "a dog or a cat?", "is the house red?", "which?")


@functools.cache
def tokenizer():
    return train_bpe(["a dog", "dog house", "red cat", "question: what is it? answer: yes no"] * 4, 290)


@functools.cache
def toy(**fields) -> api.Model:
    """A tiny model of random weights with a tokenizer of its own: `vlax.load` without a directory."""
    return wrap(tiny_config(vocab_size=290, **fields))


def wrap(config) -> api.Model:
    """The Model of a config: seed 7 gives several different answers to the questions below."""
    graphdef, params = weights(config, seed=7)
    encoder = Encoder(tokenizer(), "plain")
    return api.Model(config, params, encoder, graphdef, sharding.make_mesh((-1, 1, 1)), {"stage": "toy"})


@functools.cache
def pictures():
    rng = np.random.default_rng(5)
    images = [Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)) for _ in QUESTIONS]
    return [*images[:-1], None]  # the last question has no picture


@functools.cache
def table(answers=ANSWERS) -> list[list[np.ndarray]]:
    """By question and answer: f32[tokens,V], the uncached model's log-probabilities at each token of the answer."""
    model, pairs = toy(), list(itertools.product(range(len(QUESTIONS)), answers))
    asked = [model.encoder.prompt_text("question", QUESTIONS[q]) for q, _ in pairs]
    logits = model.logits([pictures()[q] for q, _ in pairs], asked, [answer for _, answer in pairs])
    sizes = [len(constrain.answer_ids(model.encoder, answer)) for _, answer in pairs]
    found = [log_softmax(one[:size]) for one, size in zip(logits, sizes, strict=True)]
    return [found[q * len(answers) : (q + 1) * len(answers)] for q in range(len(QUESTIONS))]


def by_likelihood(answers=ANSWERS):
    ids = [constrain.answer_ids(toy().encoder, answer) for answer in answers]
    sums = [[logp[np.arange(len(i)), i].sum() for logp, i in zip(row, ids, strict=True)] for row in table(answers)]
    return [answers[int(np.argmax(row))] for row in sums]


def by_trie(answers=ANSWERS):
    """Greedy: among the answers that begin with what was chosen, the likeliest next token, until one has ended."""
    ids, out = [constrain.answer_ids(toy().encoder, answer) for answer in answers], []
    for row in table(answers):
        left, t = set(range(len(answers))), 0
        while not any(len(ids[a]) == t for a in left):
            token = max({ids[a][t] for a in left}, key=lambda token: row[min(left)][t][token])
            left = {a for a in left if ids[a][t] == token}
            t += 1
        out.append(answers[left.pop()])
    return out


def test_the_trie_of_the_docstring():
    eos, c, d, h = 0, 1, 2, 3
    trie = constrain.build_trie([[d, eos], [d, h, eos], [c, eos]])
    # Nodes are numbered in the order of the sequences: 1 is "dog", 2 "dog house", 3 "cat".
    assert trie.children.tolist() == [[c, d], [eos, h], [eos, -1], [eos, -1]]
    assert trie.next.tolist() == [[3, 1], [0, 2], [0, 0], [0, 0]]
    assert trie.children.dtype == trie.next.dtype == np.int32
    logits = np.array([[9.0, 1, 2, 3], [0, 9, 9, 1], [0, 9, 9, 1], [-50, 9, 9, 9]], np.float32)
    token, node = constrain.choose(trie, np.array([0, 1, 2, 3]), logits)
    assert token.tolist() == [d, h, eos, eos] and node.tolist() == [1, 2, 0, 0]  # never a token beside the trie


def test_answers_are_tokenised_as_in_training():
    from vlax.rows import Row, Turn

    encoder = toy().encoder
    for answer in ANSWERS:
        row = Row("1", "", "question", (Turn("is it red?", answer),), None)
        assert encoder.encode(row)[0] == [*encoder.prompt("question", "is it red?"), *constrain.answer_ids(encoder, answer)]
    made = constrain.AnswerList.make(encoder, ANSWERS)
    assert [made.text(row) for row in made.tokens] == list(ANSWERS)
    dog, house = (constrain.answer_ids(encoder, text)[:-1] for text in ("dog", "dog house"))
    assert house[: len(dog)] == dog  # or the list below has no answer that begins another


@pytest.mark.parametrize("by", constrain.WAYS)
def test_answers_equal_brute_force(by):
    want = by_trie() if by == "trie" else by_likelihood()
    assert len(set(want)) > 1 and by_trie() != by_likelihood()  # or the test says little
    found = toy().answer(pictures(), QUESTIONS, answers=ANSWERS, by=by, batch_size=4)
    assert found == want


@pytest.mark.parametrize("by", constrain.WAYS)
def test_a_row_does_not_depend_on_its_batch(by):
    model = toy()
    predictor = model.predictor(DecodeConfig(), 4, ANSWERS, by)
    asked = [
        Request(model.encoder.prompt("question", q), model.pixels(i), n)
        for n, (q, i) in enumerate(zip(QUESTIONS, pictures(), strict=True))
    ]
    whole = np.concatenate(list(predictor.tokens(model.params, asked, 32)))
    alone = np.concatenate([next(predictor.tokens(model.params, [one], 32)) for one in asked])
    np.testing.assert_array_equal(whole, alone)
    assert whole.dtype == np.int32 and whole.shape == (len(QUESTIONS), predictor.decode.max_new_tokens)
    assert [predictor.text(row) for row in whole] == [t for batch in predictor.texts(model.params, asked, 32) for t in batch]


@pytest.mark.parametrize("by", constrain.WAYS)
def test_one_answer_leaves_no_choice_and_comes_back_as_given(by):
    assert toy().answer(pictures()[:2], QUESTIONS[:2], answers=["  red cat "], by=by, batch_size=4) == ["  red cat "] * 2


WINDOW = {"mask": "prefix_lm", "window": 3, "window_layers": (1,), "layers": 2}
LEARNED = {"norm": "layer", "rope_theta": None, "max_positions": 16, "gated_mlp": False, "activation": "gelu_tanh"}


@pytest.mark.parametrize("fields", (WINDOW, LEARNED), ids=("window", "learned"))
def test_likelihood_equals_the_uncached_model(fields):
    """Alternatives that differ by row and in length; a row without an image and a filler row among them."""
    config, graphdef, params = build(**fields)
    generate = Generator(graphdef, config, DecodeConfig(6), (EOS,), PAD)
    batch, rng = prompts(), np.random.default_rng(4)
    answers = rng.integers(2, 6, (3, ROWS, 5)).astype(np.int32)  # no EOS yet
    for a, size in enumerate((1, 4, 2)):
        answers[a, :, size], answers[a, :, size + 1 :] = EOS, PAD
    greedy = np.asarray(generate(params, batch)[0])[:, :5]
    ended = (greedy == EOS).any(-1)
    answers[2] = np.where(ended[:, None], greedy, answers[2])
    sums, same = (np.asarray(x) for x in generate.likelihood(params, batch, answers))
    assert sums.shape == same.shape == (ROWS, 3) and np.isfinite(sums).all()
    for a in range(3):
        logp = log_softmax(answer_logits(batch, answers[a], 6, **fields))
        for row in range(ROWS - 1):
            size = answers[a, row].tolist().index(EOS) + 1
            want = sum(logp[row, t, answers[a, row, t]] for t in range(size))
            np.testing.assert_allclose(sums[row, a], want, atol=1e-4)
            assert same[row, a] == (logp[row, :size].argmax(-1) == answers[a, row, :size]).all()
    assert same[ended, 2].all() and (ended.any() or fields == LEARNED) and not same[:-1].all()


def test_the_free_answer_is_chosen_where_the_list_has_it():
    """A trie that holds what greedy decoding writes changes neither tokens nor scores."""
    config, graphdef, params = build()
    batch = prompts()
    tokens, scores = (np.asarray(x) for x in Generator(graphdef, config, DecodeConfig(6, chunk=2), (EOS,), PAD)(params, batch))
    ended = np.flatnonzero((tokens[:-1] == EOS).any(-1))
    sequences = {tuple(row[: row.index(EOS) + 1]) for row in tokens[ended].tolist()}
    trie = constrain.build_trie([*sorted(sequences), (9, 9, 9, 9, EOS)])
    generate = Generator(graphdef, config, DecodeConfig(6, chunk=2), (EOS,), PAD, trie)
    for seed in (0, 1):
        found = [np.asarray(x) for x in generate(params, prompts(seed=seed))]
        if seed == 0:
            np.testing.assert_array_equal(found[0][ended], tokens[ended])
            np.testing.assert_allclose(found[1][ended], scores[ended], atol=1e-5)
            assert len(ended) > 1 and found[0][-1].tolist() == [PAD] * 6  # the filler row
    assert (generate._start._cache_size(), generate._advance._cache_size()) == (1, 1)


@pytest.mark.parametrize(
    ("answers", "options", "text"),
    [
        ([], {}, r"answers=\[\] is no list of answers; give at least one"),
        ("yes,no", {}, "answers='yes,no' is no list of answers"),
        (["yes", "", "no"], {}, "answer 2 of 3 is empty"),
        (["yes", " yes"], {}, "answers 'yes' and ' yes' are the same tokens"),
        (["yes"], {"by": "guess"}, "by='guess' is not one of trie, likelihood"),
        (["yes"], {"num_beams": 3}, "num_beams=3 with a list of answers: by='likelihood' compares all of them"),
        (["yes"], {"temperature": 1.0}, "temperature=1.0 with a list of answers: they are chosen, not sampled"),
    ],
)
def test_errors_by_text(answers, options, text):
    with pytest.raises(VlaxError, match=text):
        toy().answer([None], ["what?"], answers=answers, **options)


def test_a_predictor_without_answers_is_free():
    model = toy()
    free = Predictor(model.graphdef, model.config, model.encoder, DecodeConfig(3), 2, model.mesh)
    assert free.answers is None and free.decode.max_new_tokens == 3
    asked = [Request(model.encoder.prompt("question", "what?"), None)]
    (tokens,) = free.tokens(model.params, asked)
    assert next(free.texts(model.params, asked)) == [model.encoder.decode(tokens[0])]
    with pytest.raises(VlaxError, match=r"a prompt has .* tokens; there are 4 slots"):
        next(free.tokens(model.params, asked, 4))
