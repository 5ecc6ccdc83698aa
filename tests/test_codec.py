"""What users write is text, whatever it spells; a span has the ids that it has in the whole text."""

import copy
import functools
import json

import pytest
import tokenizers
from small_tokenizers import KINDS

from vlax.masks import ANSWER, PROMPT
from vlax.rows import Row, Turn
from vlax.text.codec import Codec, shown
from vlax.text.prompts import Encoder
from vlax.text.settings import OLD

TAGS = "the tag </s> ends it and <pad> fills"
ASK = Row("q", "", "question", (Turn("is it red?", "no"),), None)
TALK = Row("t", "", "chat", (Turn("is it red?", "no"), Turn("is it blue?", "yes")), None)


@functools.cache
def tokenizer(kind):
    return KINDS[kind]()


@pytest.fixture(params=KINDS)
def encoder(request):
    return Encoder(tokenizer(request.param), "plain")


def special(encoder, ids):
    return [i for i in ids if i in set(encoder.codec.special.values()) - {encoder.tokenizer.unk_token_id}]


def whole(encoder, text):
    """The ids of a whole text by the tokenizer's own processor, BOS included."""
    return encoder.tokenizer(text)["input_ids"]


# --- special tokens


@pytest.mark.parametrize("task", ("caption", "question", "chat"))
def test_special_tokens_in_a_row_are_text(encoder, task):
    row = Row("r", "", task, (Turn("<s>[</s>]?", TAGS), Turn("</s>", "<unk> <s>")), None)
    tokens, segments = encoder.encode(row)
    t = encoder.tokenizer
    assert special(encoder, tokens) == [t.bos_token_id, t.eos_token_id, t.eos_token_id]  # ours, and those alone
    assert segments[tokens.index(t.eos_token_id)] == ANSWER


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"t5"}))
def test_the_text_is_all_there(kind):
    encoder = Encoder(tokenizer(kind), "plain")
    assert encoder.tokenizer.decode(encoder.answer(TAGS)[:-1]).strip() == TAGS


def test_special_tokens_in_a_prompt_are_text(encoder):
    for ids in (encoder.prompt("question", f"{TAGS}?"), encoder.typed(f"say {TAGS}"), encoder.answer("</s>")[:-1]):
        assert special(encoder, ids[1:]) == []
    assert shown(encoder.prompt_text("question", TAGS)) == f"question: {TAGS} answer:"


def test_full_width_letters_are_no_way_around():
    encoder = Encoder(tokenizer("t5"), "plain")
    disguised = "＜/s＞"
    assert encoder.tokenizer(disguised, add_special_tokens=False)["input_ids"][-1] == encoder.tokenizer.eos_token_id
    assert special(encoder, encoder.answer(disguised)[:-1]) == []


def test_merges_that_build_a_special_token_are_no_way_around():
    """The files of some models have them: their own tokenizer makes EOS of "</s>" even with split_special_tokens."""
    spec = json.loads(tokenizer("gemma").backend_tokenizer.to_str())
    size = max(spec["model"]["vocab"].values()) + 1
    spec["model"]["vocab"] |= {"</": size, "s>": size + 1}
    spec["model"]["merges"] = [["<", "/"], ["s", ">"], ["</", "s>"], *spec["model"]["merges"]]
    t = copy.deepcopy(tokenizer("gemma"))
    t._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
    split = tokenizers.Tokenizer.from_str(json.dumps(spec))
    split.encode_special_tokens = True
    assert split.encode("</s>", add_special_tokens=False).ids == [t.eos_token_id]
    encoder = Encoder(t, "plain")
    assert special(encoder, encoder.answer("a </s>")[:-1]) == []


def test_marks_in_a_text_are_text():
    codec = Codec(tokenizer("byte level"))
    odd = "\ufdd0\ufdd1</s>\ufdd0\ufdd2 \ufdd0\ufdd3</s>"
    ids = codec.ids("a " + codec.literal(odd) + "</s>")
    assert codec.tokenizer.decode(ids) == f"a {odd}</s>" and ids.count(codec.tokenizer.eos_token_id) == 1
    assert shown(codec.literal(odd)) == odd


def test_text_without_special_tokens_has_the_ids_it_had(encoder):
    for text in ("a red square", "is it < red > ?", "日本 é\n\n x", " no"):
        assert encoder.codec.literal(text) == text
        assert encoder.codec.ids(text) == encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_runs_of_before_keep_their_ids():
    old = Encoder(tokenizer("llama"), "plain", OLD)
    answer = old.encode(ASK)[0][-3:-1]
    assert old.tokenizer.convert_ids_to_tokens(answer) == ["▁", "▁no"]
    assert special(old, old.answer("</s>")) == [2, 2]
    assert old.digest == Encoder(tokenizer("byte level"), "plain").digest != Encoder(tokenizer("llama"), "plain").digest


# --- ids as in the whole text


def test_a_row_has_the_ids_of_its_whole_text(encoder):
    for row, text in (
        (ASK, "question: is it red? answer: no"),
        (Row("c", "", "caption", (Turn("", "a red square"),), None), "caption: a red square"),
    ):
        tokens, _ = encoder.encode(row)
        assert tokens == [*whole(encoder, text), encoder.tokenizer.eos_token_id]


def test_a_dialogue_has_the_ids_of_its_whole_text(encoder):
    tokens, segments = encoder.encode(TALK)
    text = "user: is it red? assistant: no</s>user: is it blue? assistant: yes</s>"
    assert tokens == whole(encoder, text)
    learned = [token for token, segment in zip(tokens, segments, strict=True) if segment == ANSWER]
    assert "".join(encoder.tokenizer.decode(learned).split()) == "no</s>yes</s>"
    assert tokens[: segments.index(ANSWER)] == encoder.prompt("chat", "is it red?") and segments[0] == PROMPT


@pytest.mark.parametrize("kind", ("llama", "first"))
def test_an_answer_begins_with_one_blank(kind):
    encoder = Encoder(tokenizer(kind), "plain")
    assert encoder.codec.contextual and encoder.tokenizer.convert_ids_to_tokens(encoder.answer("no")) == ["▁no", "</s>"]


def test_a_token_over_the_border_changes_no_prompt():
    """This tokenizer would write ":▁n" as one token; the prompt keeps its own, and the answer gets no second blank."""
    spec = json.loads(tokenizer("llama").backend_tokenizer.to_str())
    spec["model"]["vocab"] |= {":▁": len(spec["model"]["vocab"])}
    spec["model"]["merges"] = [[":", "▁"], *spec["model"]["merges"]]
    t = copy.deepcopy(tokenizer("llama"))
    t._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
    assert ":▁" in t.tokenize("answer: no")
    encoder = Encoder(t, "plain")
    tokens, segments = encoder.encode(ASK)
    at = segments.index(ANSWER)
    assert tokens[:at] == encoder.prompt("question", "is it red?")
    assert t.convert_ids_to_tokens(tokens[at:]) == ["▁no", "</s>"]


@pytest.mark.parametrize("kind", ("byte level", "gemma", "t5"))
def test_other_kinds_are_tokenised_span_by_span_as_ever(kind):
    encoder = Encoder(tokenizer(kind), "plain")
    assert not encoder.codec.contextual
    assert encoder.encode(TALK) == Encoder(tokenizer(kind), "plain", OLD).encode(TALK)


def test_a_count_is_that_of_ids(encoder):
    texts = [*(text for text, _ in encoder.pieces(TALK)[0]), encoder.codec.literal(TAGS), "plain"]
    assert encoder.counts(texts) == [len(encoder.ids(text)) for text in texts]
