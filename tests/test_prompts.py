"""Templates, spans and segments; the literal rows are those of vlax/text/prompts.py."""

import dataclasses

import pytest

from vlax.errors import VlaxError
from vlax.masks import ANSWER, PROMPT
from vlax.rows import TASKS, Row, Turn
from vlax.text.bpe import train_bpe
from vlax.text.exchanges import prompt_text, spans, template_hash
from vlax.text.prompts import Encoder
from vlax.text.templates import TEMPLATES

PAD, BOS, EOS = 0, 1, 2
CAPTION = Row("1", "1", "caption", (Turn("", "a dog"),), None)
QUESTION = Row("2", "1", "question", (Turn("is it red?", "no"),), None)
DIALOGUE = Row("3", "1", "describe", (Turn("", "a red dog"), Turn("is it red?", "yes", "question")), None)


@pytest.fixture(scope="module")
def encoder():
    return Encoder(train_bpe(["caption: a dog question: is it red? answer: no yes describe:"] * 4, 300), "plain")


def test_rows_of_the_docstring():
    assert spans(CAPTION, "plain") == [("caption:", False), (" a dog", True)]
    assert spans(QUESTION, "plain") == [("question: is it red? answer:", False), (" no", True)]
    assert prompt_text("question", "is it red?", "plain") == "question: is it red? answer:"


def test_turns_may_have_tasks_of_their_own():
    assert spans(DIALOGUE, "plain") == [
        ("describe:", False), (" a red dog", True), ("question: is it red? answer:", False), (" yes", True),
    ]  # fmt: skip


@pytest.mark.parametrize("row", (CAPTION, QUESTION, DIALOGUE), ids=lambda row: row.task)
def test_segments_follow_the_spans_and_every_answer_ends_with_a_supervised_eos(encoder, row):
    tokens, segments = encoder.encode(row)
    want_tokens, want_segments = [BOS], [PROMPT]
    for text, supervised in spans(row, "plain"):
        ids = encoder.ids(text) + [EOS] * supervised
        want_tokens += ids
        want_segments += [ANSWER if supervised else PROMPT] * len(ids)
    assert (tokens, segments) == (want_tokens, want_segments)
    assert [s for t, s in zip(tokens, segments, strict=True) if t == EOS] == [ANSWER] * len(row.turns)
    assert segments[0] == PROMPT and tokens[-1] == EOS


@pytest.mark.parametrize("row", (CAPTION, QUESTION), ids=lambda row: row.task)
@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - {"chat"}))
def test_the_prompt_has_the_same_ids_at_inference(encoder, row, name):
    encoder = dataclasses.replace(encoder, templates=name)
    tokens, segments = encoder.encode(row)
    prompt = encoder.prompt(row.task, row.turns[0].question)
    assert tokens[: segments.index(ANSWER)] == prompt
    assert encoder.ids(encoder.prompt_text(row.task, row.turns[0].question)) == prompt[1:]


def test_a_tokenizer_without_bos(encoder):
    tokenizer = train_bpe(["a dog"], 300)
    tokenizer.bos_token = None
    bare = Encoder(tokenizer, "plain")
    assert bare.prompt("caption", "") == bare.ids("caption:")
    assert bare.encode(CAPTION)[0] == [*bare.ids("caption:"), *bare.ids(" a dog"), EOS]


def test_decoding_stops_at_the_first_eos(encoder):
    assert encoder.decode([*encoder.ids(" a dog"), EOS, *encoder.ids(" no"), PAD]) == "a dog"


@pytest.mark.parametrize("answer", ("", "  ", "\n"))
def test_an_empty_answer_is_an_error(answer):
    with pytest.raises(VlaxError, match=r"row 7: the answer is empty; remove the row or fill it in"):
        spans(dataclasses.replace(CAPTION, id="7", turns=(Turn("", answer),)), "plain")


def test_a_pad_token_that_is_the_eos_is_refused():
    tokenizer = train_bpe(["a dog"], 300)
    for pad in (tokenizer.eos_token, None):
        tokenizer.pad_token = pad
        with pytest.raises(VlaxError, match=r"pad token is missing or is its EOS.*add_special_tokens"):
            Encoder(tokenizer, "plain")


def test_a_tokenizer_without_eos_is_refused():
    tokenizer = train_bpe(["a dog"], 300)
    tokenizer.eos_token = None
    with pytest.raises(VlaxError, match="no EOS token"):
        Encoder(tokenizer, "plain")


def test_unknown_names_are_errors_that_list_the_valid_ones(encoder):
    with pytest.raises(VlaxError, match=r"unknown prompt template 'plian'; there are plain, instruct"):
        Encoder(encoder.tokenizer, "plian")
    with pytest.raises(VlaxError, match=r"unknown task 'captoin'; the tasks are caption, describe, question"):
        prompt_text("captoin", "", "plain")


def test_every_template_set_has_every_task_and_its_own_hash():
    assert all(set(prompts) == set(TASKS) for prompts in TEMPLATES.values())
    assert len({template_hash(name) for name in TEMPLATES}) == len(TEMPLATES)


def test_bpe_is_a_pure_function_of_its_text():
    texts = [f"a {colour} dog sees a {colour} cat" for colour in ("red", "blue", "green")]
    one, two = train_bpe(texts, 290), train_bpe(iter(texts), 290)
    assert one.get_vocab() == two.get_vocab() != train_bpe(texts[:1], 290).get_vocab()
    assert (one.pad_token_id, one.bos_token_id, one.eos_token_id) == (PAD, BOS, EOS)
    text = "  naïve — 日本 \n a red dog"
    assert one.decode(one(text, add_special_tokens=False)["input_ids"]) == text  # byte-level: nothing is unknown
