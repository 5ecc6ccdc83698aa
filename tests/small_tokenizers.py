"""Small tokenizers with the pipelines of public families, trained on a few words. No line and no vocabulary is theirs."""

import string

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

WORDS = [
    "question: is it red? answer: no",
    "question: is it blue? answer: yes",
    "caption: a red square",
    "user: hi assistant: ok",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
BLANKS = [decoders.Replace("▁", " "), decoders.Fuse()]


def _finish(tk, extra=(), **flags):
    tk.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", tk.token_to_id("<s>"))])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    made = PreTrainedTokenizerFast(tokenizer_object=tk, clean_up_tokenization_spaces=False, **names)
    made.add_tokens([AddedToken(token, special=True, normalized=False, **flags) for token in extra], special_tokens=True)
    return made


def _bpe(tk, words):
    """Merges stay within words, as SentencePiece has it; afterwards the tokenizer cuts no text into words."""
    own, tk.pre_tokenizer = tk.pre_tokenizer, pre_tokenizers.Split(Regex("▁[^▁]*|[^▁]+"), "isolated")
    if own is not None:
        tk.pre_tokenizer = pre_tokenizers.Sequence([own, tk.pre_tokenizer])
    tk.train_from_iterator(
        words * 20,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=SPECIAL, initial_alphabet=[*string.printable, "▁"], show_progress=False
        ),
    )
    tk.pre_tokenizer = own
    return tk


def llama(words=WORDS, extra=(), **flags):
    """Llama 2, Mistral, Phi-3: the normaliser writes a blank before every text between special tokens."""
    tk = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tk.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    _bpe(tk, words)
    tk.decoder = decoders.Sequence([*BLANKS, decoders.Strip(" ", 1, 0)])
    return _finish(tk, extra, **flags)


def first(words=WORDS, extra=(), **flags):
    """Llama and Mistral as newer files have it: a blank before the very first text alone."""
    tk = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tk.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    _bpe(tk, words)
    tk.decoder = decoders.Sequence([*BLANKS, decoders.Strip(" ", 1, 0)])
    return _finish(tk, extra, **flags)


def gemma(words=WORDS, extra=(), **flags):
    """Gemma: blanks are ▁, and nothing is put in front."""
    tk = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tk.normalizer = normalizers.Replace(" ", "▁")
    tk.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    _bpe(tk, words)
    tk.decoder = decoders.Sequence(BLANKS)
    return _finish(tk, extra, **flags)


def t5(words=WORDS, extra=(), **flags):
    """T5: Unigram over words, NFKC, runs of blanks as one."""
    tk = Tokenizer(models.Unigram())
    tk.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tk.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tk.decoder = decoders.Metaspace(prepend_scheme="always")
    text = [*words, "abcdefghijklmnopqrstuvwxyz <>/?:!.,"] * 20
    tk.train_from_iterator(
        text, trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    )
    return _finish(tk, extra, **flags)


def byte_level(words=WORDS, extra=(), **flags):
    """GPT-2, Llama 3, Qwen: bytes, words by a regular expression."""
    tk = Tokenizer(models.BPE())
    tk.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tk.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tk.train_from_iterator(words * 20, trainer)
    return _finish(tk, extra, **flags)


KINDS = {"llama": llama, "first": first, "gemma": gemma, "t5": t5, "byte level": byte_level}
