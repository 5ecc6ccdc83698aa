"""Token lengths: what `encode` gives, measured once for all runs, and again where what was kept is no good."""

import logging
import threading

import numpy as np
import pytest
from varied import OVERHEAD, Varied, encoder
from varied import mixture as varied_mixture

from vlax.data.batches import lengths, measured
from vlax.data.batches.lengths import Lengths
from vlax.data.batches.measured import Measured
from vlax.data.batches.packing import PackedPlan
from vlax.rows import Row, Turn
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder of lengths in a cache of its own, for sources of any size."""
    monkeypatch.setenv("VLAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lengths, "WORTH", 1)
    monkeypatch.setattr(lengths, "_measured", {})
    return tmp_path / "cache" / "lengths"


def again(monkeypatch) -> Lengths:
    monkeypatch.setattr(lengths, "_measured", {})  # what another process begins with
    return Lengths(encoder())


def files(folder) -> list:
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


WORDS = [3, 1, 9, 2, 5, 4]
ALL = np.arange(6)
TOKENS = [words + OVERHEAD for words in WORDS]


def test_what_a_plan_asks_for_is_read_once_for_all_runs(kept, monkeypatch):
    source = Varied("kept", WORDS)
    assert again(monkeypatch).of_source(source, ALL[:2]).tolist() == TOKENS[:2] and not kept.exists()  # the header's sample
    assert again(monkeypatch).of_source(source, ALL[::2], keep=True).tolist() == TOKENS[::2]
    source.asked.clear()
    assert again(monkeypatch).of_source(source, ALL).tolist() == TOKENS and sorted(source.asked) == [1, 3, 5]
    assert [path.stat().st_size for path in files(kept)] == [6 * 4]
    source.asked.clear()
    assert again(monkeypatch).of_source(source, ALL).tolist() == TOKENS and source.asked == []
    other = Encoder(encoder().tokenizer, "instruct")
    assert Lengths(other).of_source(source, ALL, keep=True).tolist() != TOKENS and len(files(kept)) == 2
    monkeypatch.setattr(lengths, "_code", lambda: "another version of vlax")
    again(monkeypatch).of_source(source, ALL, keep=True)
    assert len(files(kept)) == 3


def test_a_packed_plan_keeps_its_lengths(kept, monkeypatch):
    m = varied_mixture()
    plan = PackedPlan(m, 2, 16, 3, stop=m.epoch_size, lengths=again(monkeypatch))
    batches = plan.batches(m.epoch_size)
    for source in m.sources:
        source.asked.clear()
    plan = PackedPlan(m, 2, 16, 3, stop=m.epoch_size, lengths=again(monkeypatch))
    assert plan.batches(m.epoch_size) == batches and not any(source.asked for source in m.sources)


@pytest.mark.parametrize("damage", ("byte", "moved", "cut", "noise"))
def test_damaged_lengths_are_measured_again_and_said_once(kept, monkeypatch, caplog, damage):
    source = Varied(f"damaged-{damage}", WORDS)
    again(monkeypatch).of_source(source, ALL, keep=True)
    (file,) = files(kept)
    whole = file.read_bytes()
    broken = {
        "byte": whole[:8] + bytes([whole[8] ^ 1]) + whole[9:],
        "moved": whole[4:] + whole[:4],  # each a sound entry of another row
        "cut": whole[:-4],
        "noise": bytes(range(24)),
    }[damage]
    file.write_bytes(broken)
    source.asked.clear()
    found = again(monkeypatch)
    assert found.of_source(source, ALL, keep=True).tolist() == TOKENS == found.of_source(source, ALL).tolist()
    assert sorted(source.asked) == ([2] if damage == "byte" else list(range(6)))
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 1 and str(file) in said[0] and "measured again" in said[0]
    assert file.read_bytes() == whole


@pytest.mark.parametrize("refused", ("folder", "full"))
def test_where_nothing_can_be_kept_lengths_are_the_same(kept, monkeypatch, caplog, refused):
    def full(*given):
        raise OSError(28, "No space left on device")

    if refused == "full":
        monkeypatch.setattr(measured.os, "posix_fallocate", full)
    else:
        kept.parent.write_text("no folder")
    source, found = Varied(f"refused-{refused}", WORDS), again(monkeypatch)
    assert found.of_source(source, ALL[:3], keep=True).tolist() == TOKENS[:3]
    assert found.of_source(source, ALL, keep=True).tolist() == TOKENS and len(source.asked) == 6
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "cannot be written" in said[0]


def test_one_process_measures_and_the_others_find_it(tmp_path):
    first, second = Measured(6), Measured(6)  # as two processes would have them: a lock goes by who opened its file
    for one in (first, second):
        one.share(tmp_path / "lengths", make=True)
    entered, found = threading.Event(), []

    def other() -> None:
        with second.measuring():
            entered.set()
            found.append(second.get(ALL).tolist())

    thread = threading.Thread(target=other)
    with first.measuring():
        thread.start()
        assert not entered.wait(0.2)
        first.put(ALL, np.array(TOKENS, np.int32))
    thread.join(60)
    assert found == [TOKENS]


def test_ten_thousand_million_rows_take_no_memory_and_no_wrong_place():
    known, far = Measured(10**10), np.array([0, 5 * 10**9, 10**10 - 1])
    assert known.get(far).tolist() == [-1, -1, -1]
    known.put(far[1:], np.array([7, measured.LONGEST + 1], np.int32))  # the second one is too long for an entry
    assert known.get(far[::-1]).tolist() == [measured.LONGEST + 1, 7, -1]


def test_a_bad_row_is_not_kept_it_may_be_mended(kept, monkeypatch):
    bad, mended = Varied("mended", WORDS, bad=(4,)), Varied("mended", WORDS)
    mended.fingerprint = bad.fingerprint  # such as a file that could not be opened for a moment
    assert again(monkeypatch).of_source(bad, ALL, keep=True).tolist() == [*TOKENS[:4], 0, TOKENS[5]]
    bad.asked.clear()
    assert again(monkeypatch).of_source(mended, ALL).tolist() == TOKENS and mended.asked == [4]


class Said:
    """Dialogues of words that recur and words that don't."""

    name, fingerprint = "said", "f"
    texts = ("two cats", "étage 日本", " spaced  out ", "cat " * 80, "<pad>", "a\nb", "dog 😀")

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Row:
        pick = np.random.default_rng(index).integers(0, len(self.texts), (1 + index % 3, 2))
        turns = tuple(Turn(self.texts[q] if index % 5 else "", self.texts[a] if index != 7 else " ") for q, a in pick)
        return Row(str(index), "", "chat" if len(turns) > 1 else "question", turns, None)


CHAT = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("templates", ("plain", "instruct", "chat"))
def test_a_length_is_that_of_encode(monkeypatch, templates):
    """Whatever was switched on in the tokenizer before, and where many rows meet in one call or a text is refused."""
    tokenizer = train_bpe(["question: two cats answer: spaced out dog"] * 4, 400)
    tokenizer.chat_template = CHAT + "{% if add_generation_prompt %}[assistant] {% endif %}"
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=64)
    monkeypatch.setattr(lengths, "_measured", {})
    monkeypatch.setattr(lengths, "CHUNK", 9)
    source, made = Said(), Encoder(tokenizer, templates)
    found = Lengths(made).of_source(source, np.arange(40))
    want = [0 if index == 7 else len(made.encode(source[index])[0]) for index in range(40)]
    assert found.tolist() == want and max(want) > 80

    def refuses(texts):
        raise ValueError("tokenizers gave up")

    monkeypatch.setattr(lengths, "_measured", {})
    monkeypatch.setattr(Encoder, "counts", lambda self, texts: refuses(texts))
    assert Lengths(made).of_source(source, np.arange(40)).tolist() == want
