"""Chat templates: spans, loss on answers and their EOS, and the refusals."""

import pytest

from vlax.errors import VlaxError
from vlax.masks import ANSWER
from vlax.rows import Row, Turn
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}<eos>\n"
    "{% else %}<|bot|>{{ m.content }}<eos>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|bot|>{% endif %}"
)
ROW = Row("r", "", "chat", (Turn("is it red?", "no"), Turn("is it blue?", "yes")), None)


@pytest.fixture
def tokenizer():
    tokenizer = train_bpe(["is it red? no is it blue? yes <|user|> <|bot|>"], 300)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_spans_follow_the_template(tokenizer):
    tokens, segments = Encoder(tokenizer, "chat").encode(ROW)
    assert tokenizer.decode(tokens) == "<|user|>is it red?<eos>\n<|bot|>no<eos>\n<|user|>is it blue?<eos>\n<|bot|>yes<eos>"
    learned = [t for t, s in zip(tokens, segments, strict=True) if s == ANSWER]
    assert tokenizer.decode(learned) == "no<eos>yes<eos>"


def test_the_prompt_is_the_same_at_inference(tokenizer):
    encoder = Encoder(tokenizer, "chat")
    tokens, _ = encoder.encode(ROW)
    prompt = encoder.prompt("chat", "is it red?")
    assert tokens[: len(prompt)] == prompt and tokens[len(prompt)] == encoder.ids("no")[0]


def test_a_tokenizer_without_a_template(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(VlaxError, match="the tokenizer has no chat template; use templates=instruct or plain"):
        Encoder(tokenizer, "chat").encode(ROW)


def test_a_template_that_does_not_end_answers_with_eos(tokenizer):
    tokenizer.chat_template = TEMPLATE.replace("<|bot|>{{ m.content }}<eos>", "<|bot|>{{ m.content }}")
    with pytest.raises(VlaxError, match="does not write an answer as prompt"):
        Encoder(tokenizer, "chat").encode(ROW)
