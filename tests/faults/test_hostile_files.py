"""Files of strangers that would fill the memory, never end or write elsewhere: each is refused by name, before it is read.

`docs/hostile_files.md` lists them with their messages; test_hostile_rows.py has single rows and pictures, test_fuzz.py
mutations of every kind of file.
"""

import io
import json
import struct
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_cases import encoded, prepared, reader

from vlax.data.readers import table_file, webdataset
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.model import exports
from vlax.pretrained.reading import loader, tensors
from vlax.pretrained.reading.image_settings import load_preprocess
from vlax.rows import Row, RowFault, Turn
from vlax.text import sandbox
from vlax.text.bpe import train_bpe
from vlax.text.exchanges import CHARACTERS
from vlax.text.prompts import Encoder
from vlax.text.tokenizer import load_tokenizer, no_panic

# --- tar


def member(name, size, kind=tarfile.REGTYPE, content=b"", **fields):
    """A header that says `size`, and what really follows it."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def sparse(name):
    """GNU's old sparse format: 8 GB of a single real block."""
    header = bytearray(member(name, 512, tarfile.GNUTYPE_SPARSE))
    header[386:410] = b"%011o\0%011o\0" % (0, 512)
    header[483:495] = b"%011o\0" % (8 << 30)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"x" * 512


PAX = b"19 size=8589934592\n"
GOOD = member("0.jpg", len(encoded(0, "jpg")), content=encoded(0, "jpg")) + member("0.txt", 5, content=b"a dog")
TARS = {
    "a sparse text of 8 GB": (sparse("1.txt"), "member '1.txt' is sparse"),
    "a text that says 8 GB": (member("1.txt", 8 << 30), "has 8,589,934,592 bytes"),
    "a picture that says 400 MB": (member("1.jpg", 400 << 20), r"ends at byte .* the tar is cut off"),
    "a text of 100 MB": (member("1.txt", 100 << 20), "has 104,857,600 bytes"),
    "a pax header of 8 GB": (member("x", 8 << 30, tarfile.XHDTYPE), "has 8,589,934,592 bytes, limit 1,048,576"),
    "a pax size of 8 GB": (member("x", 19, tarfile.XHDTYPE, PAX) + member("1.txt", 1, content=b"x"), "has 8,589,934,592 bytes"),
    "a long name of 2 MB": (member("x", 2 << 20, tarfile.GNUTYPE_LONGNAME), "limit 1,048,576"),
    "an absolute name": (member("/etc/1.txt", 1, content=b"x"), "member '/etc/1.txt' has an absolute name"),
    "a name that leads out": (member("a/../../1.txt", 1, content=b"x"), "member 'a/../../1.txt' leads out of the tar"),
}


@pytest.mark.parametrize("name", TARS)
def test_a_tar_is_refused_by_its_headers(tmp_path, name, monkeypatch):
    content, text = TARS[name]
    (tmp_path / "a.tar").write_bytes(GOOD + content + bytes(1024))
    monkeypatch.setattr(tarfile.ExFileObject, "read", bounded(tarfile.ExFileObject.read))
    with pytest.raises(VlaxError, match=text):
        reader("webdataset")("a.tar", base=str(tmp_path))


def bounded(read):
    def small(self, *size):
        content = read(self, *size)
        assert len(content) < 1 << 16
        return content

    return small


def test_a_tar_of_a_negative_size_ends(tmp_path):
    """Python's tarfile goes round in a circle: the member after one of -1024 bytes is that one again."""
    header = bytearray(member("1.txt", 0))
    header[124:136] = b"\xff" * 10 + struct.pack(">h", -1024)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(GOOD + bytes(header) + bytes(1024))
    with pytest.raises(VlaxError, match=r"'1.txt' has -1,024 bytes|is not a whole tar|damaged or cut off"):
        reader("webdataset")("a.tar", base=str(tmp_path))


def test_a_sound_tar_is_read(tmp_path):
    (tmp_path / "a.tar").write_bytes(GOOD + bytes(1024))
    assert reader("webdataset")("a.tar", base=str(tmp_path))[0].picture.open().size == (32, 24)
    assert webdataset.LINE_BYTES == 64 << 20


# --- tables


def test_an_arrow_file_with_an_offset_that_leads_nowhere_is_refused(tmp_path):
    """To read it would end the process."""
    table = pa.table({"image": ["a.png", "b.png"], "text": ["a dog runs", "a cat sits"]})
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    content, offsets = (tmp_path / "a.arrow").read_bytes(), struct.pack("<3i", 0, 10, 20)
    assert len(reader("hf")("a.arrow", base=str(tmp_path))) == 2
    (tmp_path / "a.arrow").write_bytes(content.replace(offsets, struct.pack("<3i", 0, 2_000_000_000, 20)))
    with pytest.raises(VlaxError, match=r"a\.arrow is not arrow .*; fetch or export it again"):
        reader("hf")("a.arrow", base=str(tmp_path))


def test_what_a_parquet_file_unpacks_to_is_counted(tmp_path, monkeypatch):
    """A few kilobytes: one picture of 100 kB in its dictionary, and a thousand rows that have it; a text likewise."""
    table = pa.table({"image": pa.array([{"bytes": bytes(100_000)}] * 1_000), "text": ["a dog" * 1_000] * 1_000})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 50_000
    before = pa.total_allocated_bytes()
    monkeypatch.setattr(table_file, "GROUP_BYTES", 1_000_000)
    source = reader("hf")("a.parquet", base=str(tmp_path))
    with pytest.raises(VlaxError, match="row group 0 has over 1,000,000 bytes of pictures"):
        source[0].picture.open()
    assert pa.total_allocated_bytes() - before < 10_000_000
    monkeypatch.setattr(table_file, "FILE_BYTES", 1_000_000)
    with pytest.raises(VlaxError, match="unpacks to more than 1,000,000 bytes of text"):
        reader("hf")("a.parquet", base=str(tmp_path))


# --- weights

SOUND = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "I8", "shape": [4], "data_offsets": [8, 12]},
}


def weights(path, header, data=bytes(12), length=None):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)
    return path


def changed(name, **fields):
    return {**SOUND, name: {**SOUND[name], **fields}}


HEADERS = {
    "overlapping": changed("b", shape=[8], data_offsets=[4, 12]),
    "with a gap": changed("a", shape=[1], data_offsets=[0, 4]),
    "negative": changed("a", data_offsets=[-8, 0]),
    "beyond the file": changed("b", shape=[1 << 40], data_offsets=[8, 8 + (1 << 40)]),
    "the same twice": {"a": SOUND["a"], "b": {**SOUND["a"]}},
    "a text for a shape": changed("a", shape="2"),
    "a negative shape": changed("a", shape=[-1, -2]),
    "a boolean": changed("a", shape=[True, 2]),
    "a float": changed("a", data_offsets=[0, 8.0]),
    "many axes": changed("a", shape=[1] * 99 + [2]),
    "no bytes of many": changed("a", shape=[0, 10**30], data_offsets=[0, 0]),
    "one offset": changed("a", data_offsets=[8]),
    "a list for a dtype": changed("a", dtype=["F32"]),
    "no dtype": {"a": {"shape": [2], "data_offsets": [0, 8]}},
    "not an object": [1, 2],
    "an entry of text": {"a": "F32"},
    "nested": b"[" * 100_000,
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_of_weights_is_checked_as_a_whole(tmp_path, name):
    with pytest.raises(VlaxError, match="download it again") as caught:
        tensors.file_header(weights(tmp_path / "model.safetensors", HEADERS[name]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", (1 << 63, 10**9, 13 + len(json.dumps(SOUND))))
def test_a_header_larger_than_its_file_is_not_read(tmp_path, length):
    with pytest.raises(VlaxError, match="is truncated"):
        tensors.file_header(weights(tmp_path / "a.safetensors", SOUND, length=length))
    assert list(tensors.file_header(weights(tmp_path / "a.safetensors", SOUND))) == ["a", "b"]


@pytest.mark.parametrize(
    "shard", ("../../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", "a\\b.safetensors", 7, None)
)
def test_an_index_names_files_beside_it(tmp_path, shard):
    weights(tmp_path / "x.safetensors", SOUND)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / tensors.INDEX).write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(VlaxError, match=r"is no file beside it|is not a safetensors index"):
        tensors.headers(tmp_path / "m")


LLAMA = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
         "vocab_size": 64}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "text"),
    (
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, not a number up to 1,000"),
        ({"num_hidden_layers": "7"}, "num_hidden_layers is 7, not a number"),
        ({"hidden_size": -16}, "hidden_size is -16, not a number"),
        ({"hidden_size": 10**12}, "not a number up to 16,777,216"),
        ({"vocab_size": 1e9}, "vocab_size is 1000000000.0"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers is 1000000000"),
        ({"num_attention_heads": 0}, "does not hold what it should|is not a valid llama config"),
        ({"num_hidden_layers": 900}, "tensors missing"),
    ),
)
def test_a_config_has_sizes_of_a_model(tmp_path, fields, text):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **fields}))
    header = {"model.embed_tokens.weight": {"dtype": "F32", "shape": [64, 16], "data_offsets": [0, 4096]}}
    weights(tmp_path / "model.safetensors", header, bytes(4096))
    with pytest.raises(VlaxError, match=text):
        loader.load_decoder(tmp_path)


NONSENSE = ({}, {"mask": "causal"}, {"mask": "causal", "decoder": 7}, {"mask": "causal", "decoder": {"x": 1}},
            {"mask": "causal", "decoder": {"vocab_size": 9, "layers": 10**9}})  # fmt: skip


@pytest.mark.parametrize("values", NONSENSE)
def test_an_export_of_nonsense_is_named(tmp_path, values):
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(VlaxError, match=r"config\.json"):
        exports.read_config(tmp_path)


# --- chat templates

ROW = Row("r", "", "chat", (Turn("is it red?", "no"),), None)
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
TEMPLATES = {
    "a long text": ("{{ 'x' * 10 ** 7 }}", "it writes 10,000,000 characters, limit 4,194,304"),
    "a longer text": ("{{ 'x' * 10 ** 12 }}", "MemoryError"),
    "doubling": (
        "{% set n = namespace(s='x') %}{% for i in range(23) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        "it writes 8,388,608 characters",
    ),
    "a macro without end": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "attributes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "the chat template fails"),
    "no template": ("{% for %}", "TemplateSyntaxError"),
    "a complaint": ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
    "loops in loops": (LOOP, "does not end: it was stopped at 1 s of processor time"),
    "a power": ("{{ 10 ** (10 ** 10) }}", "does not end: it was stopped at 1 s of processor time"),
}


def test_a_template_is_stopped_wherever_it_is(monkeypatch):
    """One process for all of them, and another after each that had to be ended."""
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    tokenizer = train_bpe(["is it red? no"], 300)
    for name, (template, text) in TEMPLATES.items():
        tokenizer.chat_template = template
        with pytest.raises(VlaxError, match=text) as caught:
            Encoder(tokenizer, "chat").encode(ROW)
        assert str(caught.value).startswith("row r: the chat template"), name


def test_a_text_has_a_limit():
    tokenizer = train_bpe(["is it red? no"], 300)
    row = Row("r", "", "caption", (Turn("", "x" * (CHARACTERS + 1)),), None)
    with pytest.raises(RowFault, match="an exchange has 1,048,577 characters, limit 1,048,576"):
        Encoder(tokenizer, "plain").encode(row)


# --- prepared sets


def test_an_index_that_says_more_than_it_has_is_named(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<i4", "fortran_order": False, "shape": (1 << 40, 2)})
    folder, _, _ = prepared(tmp_path)
    for content in (stream.getvalue() + bytes(16), b"PK\x03\x04", b""):
        (tmp_path / "out" / "index.npy").write_bytes(content)
        (tmp_path / "out" / "seal.json").unlink(missing_ok=True)
        with pytest.raises(VlaxError, match="does not hold what it should"):
            reader("prepared")(folder)
    for places in ([[7, 0]] * 6, [[0, -2]] * 6, [0, 0], [[0, 0, 0]] * 6, [[0.0, 0.0]] * 6):
        dtype = np.int32 if isinstance(np.array(places).flat[0], np.integer) else np.float32
        np.save(tmp_path / "out" / "index.npy", np.array(places, dtype))
        with pytest.raises(VlaxError, match=r"index\.npy names no places in 1 shards"):
            reader("prepared")(folder)


# --- tokenizers and image processors


def test_a_panic_of_tokenizers_is_an_error_like_others(tmp_path):
    """In Rust a merge of a prefix that is longer than its token leads out of a slice; to Python that is no Exception."""
    train_bpe(["is it red? no"] * 3, 280).save_pretrained(str(tmp_path))
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["model"]["continuing_subword_prefix"] = "longer than any token"
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(VlaxError, match=r"cannot read the tokenizer of .* \(tokenizers gave up: .*download its files again"):
        load_tokenizer(tmp_path, 1_000)
    with pytest.raises(SystemExit), no_panic():
        raise SystemExit


PROCESSORS = ({"resample": "twice"}, {"resample": 9}, {"size": {"height": -3, "width": -3}}, {"image_mean": [0.5]},
              {"image_std": ["a", "b", "c"]}, {"size": {"height": 10**9, "width": 10**9}})  # fmt: skip


@pytest.mark.parametrize("fields", PROCESSORS)
def test_an_image_processor_of_nonsense_is_refused(tmp_path, fields):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 32, "width": 32}, **fields}))
    with pytest.raises(VlaxError, match="is no way to resize pictures"):
        load_preprocess(tmp_path, Preprocess(32))
