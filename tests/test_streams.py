"""Large JSON files are read piece by piece: the same rows, faults and errors as from the whole."""

import json

import pytest
from etils import epath

from tests import format_cases
from vlax.data.readers import annotation_file, json_stream
from vlax.data.readers.annotation_file import File
from vlax.data.readers.faults import Faults
from vlax.data.recognise.recognise import recognise
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.storage.state import load_json

VALUES = [12, -0.5, 1e300, 10**30, 'é\u2028"]},{ \\', None, True, {"a": [1, {"b": "]"}]}, [], [[1], 2], "\ud800", "𝄞"]


@pytest.fixture(params=(1, 7, 1 << 22))
def pieces(request, monkeypatch):
    monkeypatch.setattr(annotation_file, "STREAMED", -1)
    monkeypatch.setattr(json_stream, "CHUNK", request.param)


def members(path):
    return list(json_stream.members(epath.Path(path), str(path)))


@pytest.mark.parametrize("layout", ({}, {"indent": 1}, {"ensure_ascii": True, "separators": (",", ":")}))
def test_elements_are_what_the_parser_makes_of_the_whole(tmp_path, pieces, layout):
    values = VALUES if layout.get("ensure_ascii") else [value for value in VALUES if value != "\ud800"]
    file = tmp_path / "a.json"
    file.write_text(json.dumps(values, **{"ensure_ascii": False, **layout}), encoding="utf-8")
    assert members(file) == [("", -2, []), *(("", at, value) for at, value in enumerate(values))]
    whole = {"info": {"x": [1]}, "rows": values, "none": [], "é": 3, "last": "x"}
    file.write_text("\ufeff  " + json.dumps(whole, **{"ensure_ascii": False, **layout}) + "\n ", encoding="utf-8")
    expected = [("info", -1, {"x": [1]}), ("rows", -2, []), *(("rows", at, value) for at, value in enumerate(values))]
    assert members(file) == [*expected, ("none", -2, []), ("é", -1, 3), ("last", -1, "x")]


BROKEN = ("", "3", "[1, 2", "[1 2]", "[1,]", '{"a": [1}', '{"a" 1}', "{1: 2}", '["\x01"]', "[1] 2", '{"a": 1', "[" * 5000,
          '[{"a": "b]', "[1.]", "[1e+]", "[-]", "[01]")  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_errors_are_those_of_the_whole(tmp_path, pieces, text):
    file = epath.Path(tmp_path / "a.json")
    file.write_text(text)
    with pytest.raises(VlaxError) as streamed:
        members(file)
    if text != "3":
        with pytest.raises(VlaxError) as whole:
            load_json(file, text.encode())
        assert str(streamed.value) == str(whole.value)


@pytest.mark.parametrize("train", (True, False))
@pytest.mark.parametrize("name", ("coco", "karpathy", "llava", "sharegpt", "vqa", "lxmert", "gqa", "textvqa", "jsonl"))
def test_every_format_has_the_same_rows(tmp_path, monkeypatch, name, train):
    path, *_ = format_cases.WRITERS[name](tmp_path)
    spec = recognise(path).spec
    whole = open_source(spec, train=train)
    monkeypatch.setattr(annotation_file, "STREAMED", -1)
    monkeypatch.setattr(json_stream, "CHUNK", 64)
    monkeypatch.setattr(File, "content", property(lambda self: pytest.fail("the file is read as a whole")))
    parts = open_source(spec, train=train)
    assert parts.fingerprint == whole.fingerprint and list(parts.items()) == list(whole.items())


def test_faults_and_missing_lists_are_the_same(tmp_path, monkeypatch):
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": 2}]
    said = [{"image_id": 1, "caption": "a dog"}, 3, {"image_id": 9, "caption": "x"}, {"image_id": 1, "caption": ""}]
    file = tmp_path / "c.json"
    found = []
    for streamed in (1 << 20, -1):
        monkeypatch.setattr(annotation_file, "STREAMED", streamed)
        # The annotations come first: a stream has no way back.
        file.write_text(json.dumps({"annotations": said, "images": images}))
        faults = Faults(collect=True)
        spec = {"kind": "coco", "annotations": str(file), "images": "i"}
        source = open_source(spec, str(tmp_path), faults=faults)
        file.write_text(json.dumps({"annotations": said, "images": {"a": 1}}))
        with pytest.raises(VlaxError) as raised:
            open_source(spec, str(tmp_path))
        file.write_text(json.dumps(said))
        with pytest.raises(VlaxError) as listed:
            open_source(spec, str(tmp_path))
        found.append(([source[at].id for at in range(len(source))], faults.found, str(raised.value), str(listed.value)))
    assert found[0] == found[1] and len(found[0][1]) == 4
    assert 'has no list "images" (it has: annotations, images)' in found[0][2]


def test_lines_that_are_longer_than_any_may_be_are_refused_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_file, "STREAMED", -1)
    monkeypatch.setattr(annotation_file, "LINE_BYTES", 100)
    file = tmp_path / "rows.jsonl"
    long = {"text": "x" * 500}
    file.write_text("\n".join(map(json.dumps, [{"text": "a"}, long, {"text": "b"}])))
    found = File(epath.Path(file), "")._lines()
    assert [len(read.args[1]) for _, read in found] == [13, 102, 13]
