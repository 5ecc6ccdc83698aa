"""Broken checkpoints: one clear line each, before a byte of weights is read. Without torch: the name maps write them."""

import contextlib
import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from vlax.errors import VlaxError
from vlax.models.build import abstract_part
from vlax.pretrained.families.known import DECODER
from vlax.pretrained.reading import loader
from vlax.pretrained.reading.tensors import INDEX
from vlax.storage.hub import read_config
from vlax.text.bpe import train_bpe
from vlax.text.tokenizer import check_vocabulary, load_tokenizer

CONFIG = {
    "model_type": "qwen2", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip


def checkpoint(directory, **changes):
    """A tiny Qwen2 in Hugging Face layout; returns its config, parameters and tensors."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG | changes))
    hf = read_config(directory, DECODER)
    config = DECODER["qwen2"].config(hf)
    rng = np.random.default_rng(0)
    shapes = abstract_part(loader.Decoder, config)
    params = {path: rng.standard_normal(leaf.shape).astype(np.float32) for path, leaf in shapes.items()}
    tensors = {}
    for rule in DECODER["qwen2"].rules(config):
        values = rule.write([params[path] for path in rule.paths])
        tensors |= {"model." + name: np.ascontiguousarray(value) for name, value in zip(rule.tensors, values, strict=True)}
    save_file(tensors, directory / "model.safetensors")
    return config, params, tensors


def shard(directory, tensors, count=3):
    names = sorted(tensors)
    files = {name: f"model-{i % count:05}-of-{count:05}.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, directory / file)
    (directory / "model.safetensors").unlink()
    (directory / INDEX).write_text(json.dumps({"weight_map": files}))


def refused(directory, *words, load=loader.decoder_config, **arguments):
    with pytest.raises(VlaxError) as error:
        load(directory, **arguments)
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_what_the_name_map_writes_is_read_back_bit_equal_and_sharded(tmp_path):
    config, params, tensors = checkpoint(tmp_path)
    for sharded in (False, True):
        if sharded:
            shard(tmp_path, tensors)
        placed = []
        loaded, values, report = loader.load_decoder(tmp_path, place=lambda *pair: placed.append(pair) or pair[1])  # noqa: B023
        assert loaded == config == loader.decoder_config(tmp_path)
        assert sorted(path for path, _ in placed) == sorted(values) and len(report.loaded) == len(tensors)
        for path, value in values.items():
            np.testing.assert_array_equal(value, params[path.removeprefix("decoder/")])


def test_host_memory_stays_under_the_model_and_its_largest_tensor(tmp_path):
    _, params, _ = checkpoint(tmp_path, vocab_size=30_000, hidden_size=64)
    sizes = [value.nbytes for value in params.values()]
    for dtype, share in ((np.float32, 1.0), ("bfloat16", 0.5)):
        tracemalloc.start()
        loader.decoder_config(tmp_path)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        _, values, _ = loader.load_decoder(tmp_path, dtype=dtype)
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        assert sum(value.nbytes for value in values.values()) == share * sum(sizes)
        assert peak < share * sum(sizes) + max(sizes) + 1_000_000  # 1 MB for Python's own objects, of 7.7 MB


def test_truncated(tmp_path):
    checkpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    for length in (len(whole) - 10, len(whole) // 2, 100, 3, 0):
        file.write_bytes(whole[:length])
        refused(tmp_path, "model.safetensors", "truncated", "download it again")
    file.write_bytes(b"\x10" + b"\0" * 7 + b"x" * 100)
    refused(tmp_path, "not JSON")


def test_missing_shard_and_missing_index(tmp_path):
    _, _, tensors = checkpoint(tmp_path)
    shard(tmp_path, tensors)
    (tmp_path / "model-00001-of-00003.safetensors").unlink()
    refused(tmp_path, "1 of the 3 shards", "model-00001-of-00003.safetensors")
    (tmp_path / INDEX).unlink()
    refused(tmp_path, "2 safetensors files", INDEX)


def test_only_bin_weights_and_no_weights(tmp_path):
    checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    refused(tmp_path, "no model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    refused(tmp_path, ".bin weights only", "save_pretrained")


def test_configs(tmp_path):
    checkpoint(tmp_path)
    file = tmp_path / "config.json"

    def write(**changes):
        file.write_text(json.dumps(CONFIG | changes))

    write(model_type="mamba")
    refused(tmp_path, "'mamba' is not supported", "qwen2", "gemma2", "opt")
    refused(tmp_path, "'mamba' is not supported", "siglip_vision_model", "dinov2", load=loader.vision_config)
    refused(tmp_path, "'mamba' is not supported", "paligemma", "llava", load=loader.vlm_config)
    write(hidden_act="mish")
    refused(tmp_path, "activation 'mish'", "silu")
    write(rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    refused(tmp_path, "dynamic", "llama3", "yarn")
    write(partial_rotary_factor=0.5)
    refused(tmp_path, "'partial_rotary_factor': 0.5", "over the whole head")
    write(model_type="stablelm", use_parallel_residual=True)
    refused(tmp_path, "qk_layernorm and use_parallel_residual (StableLM 2 12B) are not implemented", "stablelm-2-1_6b")
    write(model_type="intern_vit_6b")
    refused(tmp_path, "'intern_vit_6b' is not supported here (OpenGVLab/InternVL3-1B-hf has", load=loader.vision_config)
    write(rope_theta=None)
    refused(tmp_path, "rope_theta is None, not a number", "10000.0 in Llama 2")
    write(model_type="gemma", use_bidirectional_attention=True)
    refused(tmp_path, "gemma config: use_bidirectional_attention is not implemented", "choose another")
    local = {
        "full_attention": {"rope_theta": 1e6},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0},
    }
    write(model_type="gemma3_text", rope_parameters=local)
    refused(tmp_path, "windowed layers are not implemented", "'factor': 2.0", "only rope_type default")
    write(hidden_size="wide")
    refused(tmp_path, "hidden_size is wide, not a number")
    write(model_type="opt", do_layer_norm_before=False, ffn_dim=48)
    refused(tmp_path, "do_layer_norm_before=False is not implemented")
    file.write_text("{")
    refused(tmp_path, "config.json is not JSON")
    file.unlink()
    refused(tmp_path, "no config.json")


def test_tensors_that_do_not_fit_the_config(tmp_path):
    _, _, tensors = checkpoint(tmp_path)
    file, name = tmp_path / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    refused(tmp_path, "1 tensors missing", name)
    save_file(tensors | {"model.layers.0.self_attn.o_proj.bias": np.zeros(32, np.float32)}, file)
    refused(tmp_path, "1 tensors unexpected", "o_proj.bias")
    save_file(tensors | {name: np.zeros((40, 32), np.float32)}, file)
    refused(tmp_path, name, "(32, 40)", "(32, 48)")
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}, file)  # a copy of the tied embedding
    assert loader.load_decoder(tmp_path)[2].ignored == ["lm_head.weight"]
    save_file({"x": np.zeros(3, np.float32)}, file)
    refused(tmp_path, "0 tensors named embed_tokens.weight")
    refused(tmp_path, "vocab_size=7 is smaller", vocab_size=7)


def test_neither_a_directory_nor_a_reachable_hub(monkeypatch, tmp_path):
    import huggingface_hub

    def unreachable(name, **_):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    refused("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B", "no route to host", "--config.run.decoder=DIR")
    refused("google/siglip", "--config.run.vision=DIR", load=loader.load_vision)
    refused(tmp_path / "nowhere", "not a directory", "--config.run.decoder=DIR", load=loader.load_decoder)


def bare_tokenizer(directory):
    """vocab.json and merges.txt alone, as GPT-2's first releases had them: 257 tokens, EOS is the first."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={"<|endoftext|>": 0} | {c: i + 1 for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.model.save(str(directory))


def test_tokenizers(tmp_path):
    config, _, _ = checkpoint(tmp_path)
    (tmp_path / "config.json").unlink()
    refused(tmp_path, "no tokenizer", load=load_tokenizer, vocab_size=300)
    bare_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path, config.vocab_size)
    assert (tokenizer.pad_token, tokenizer.pad_token_id, tokenizer.eos_token_id) == ("<|pad|>", 257, 0)
    assert tokenizer.decode(tokenizer.encode("a b")) == "a b"
    refused(tmp_path, "no pad token besides EOS", "257 embedding rows", "vocab_size=320", load=load_tokenizer, vocab_size=257)
    refused(tmp_path, "257 tokens", "only 200 embedding rows", load=load_tokenizer, vocab_size=200)
    check_vocabulary(config, tokenizer)
    with pytest.raises(VlaxError, match="258 tokens, the decoder only 100"):
        check_vocabulary(loader.dataclasses.replace(config, vocab_size=100), tokenizer)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved", 300).pad_token_id == 257
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "same")
    assert load_tokenizer(tmp_path / "same", 300).pad_token_id == 257


NO_TORCH = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] == "torch" else find(name, *rest)
sys.modules["torch"] = None  # an import raises ImportError
from vlax.pretrained.reading import loader
from vlax.text import tokenizer
print(loader.load_decoder(sys.argv[1])[2].summary(), tokenizer.load_tokenizer(sys.argv[1], 300).pad_token)
"""


@pytest.mark.slow
def test_works_where_torch_is_not_installed(tmp_path):
    checkpoint(tmp_path)
    bare_tokenizer(tmp_path)
    done = subprocess.run([sys.executable, "-c", NO_TORCH, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("loaded 26 tensors") and "<|pad|>" in done.stdout


def strangers_tokenizer(directory, *, standard: bool):
    """A tokenizer folder whose config asks for code of its own, which would leave a file behind if it ever ran."""
    train_bpe(["a dog"], 300).save_pretrained(directory)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["theirs.Theirs", None]}, "tokenizer_class": "Theirs"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "theirs.py").write_text(
        f"import pathlib\npathlib.Path({str(directory / 'ran')!r}).touch()\nclass Theirs: pass\n"
    )
    if not standard:
        (directory / "tokenizer.json").unlink()


def test_a_strangers_code_is_never_run_and_nobody_is_asked(tmp_path, monkeypatch):
    """A tokenizer.json is read without that code; a tokenizer that is nothing but code is refused by name."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    strangers_tokenizer(tmp_path, standard=True)
    assert load_tokenizer(tmp_path, 1000).get_vocab()
    strangers_tokenizer(tmp_path, standard=False)
    with pytest.raises(VlaxError, match=r"tokenizer_config\.json has its tokenizer made by code of its own \(auto_map"):
        load_tokenizer(tmp_path, 1000)
    assert not (tmp_path / "ran").exists()


def test_code_that_the_models_config_asks_for_is_not_run_either(tmp_path, monkeypatch):
    """AutoTokenizer goes by config.json where the tokenizer's own settings name no class."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    strangers_tokenizer(tmp_path, standard=True)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<eos>", "pad_token": "<pad>"}')
    asked = {"AutoConfig": "theirs.Theirs", "AutoTokenizer": ["theirs.Theirs", None]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "theirs", "auto_map": asked}))
    with contextlib.suppress(VlaxError):
        load_tokenizer(tmp_path, 1000)
    assert not (tmp_path / "ran").exists()
