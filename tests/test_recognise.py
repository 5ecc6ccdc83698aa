"""What lies at a path, by content: every written format, every real folder, and what is said of the unknown."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import test_formats as written
from etils import epath
from test_containers import bucket  # noqa: F401  (a fixture)

from vlax.data.readers import stored
from vlax.data.readers.kinds import KINDS
from vlax.data.recognise.picture_folder import picture_folder
from vlax.data.recognise.recognise import recognise
from vlax.data.sources import open_source
from vlax.errors import VlaxError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [{"image_id": 1, "caption": "a dog"}],
}
QUESTIONS = {"questions": [{"question_id": 4, "image_id": 17, "question": "is it red?"}]}
ANSWERS = {
    "data_type": "mscoco",
    "data_subtype": "val2014",
    "annotations": [{"question_id": 4, "image_id": 17, "answers": [{"answer": "no"}]}],
}
FOREIGN = {**ANSWERS, "annotations": [{"question_id": 5, "answers": [{"answer": "no"}]}]}


@pytest.fixture
def tmp_path(tmp_path):
    """With nothing beside it: what lies in the folders around a file is looked at, and there other tests leave theirs."""
    (tmp_path / "alone" / "data").mkdir(parents=True)
    return tmp_path / "alone" / "data"


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("kind", written.CASES)
def test_text_formats_and_their_pictures(tmp_path, kind):
    """Whatever the file is called; the spec opens, and its pictures are where they were put."""
    content = written.CASES[kind][1]
    file = put(tmp_path / "ann" / "x.dat", content)
    fields = {"split": "train+restval"} if kind == "karpathy" else {}
    named = {"kind": kind, "path" if kind == "table" else "annotations": str(file), "images": str(tmp_path / "pics"), **fields}
    touch(*(Path(row.image_name) for row in written.rows(open_source(named)) if row.picture))
    found = recognise("ann/x.dat", base=str(tmp_path))
    assert found.spec == {**named, "path" if kind == "table" else "annotations": "ann/x.dat", "images": "pics"}
    assert all(Path(row.image_name).exists() for row in written.rows(open_source(found.spec, str(tmp_path))) if row.picture)


def test_coco_in_its_usual_folders(tmp_path):
    put(tmp_path / "annotations" / "instances_train2017.json", {"images": [], "annotations": [{"bbox": [1]}]})
    put(tmp_path / "annotations" / "captions_val2017.json", COCO)
    put(tmp_path / "annotations" / "captions_train2017.json", COCO)
    touch(tmp_path / "train2017" / "c.jpg", tmp_path / "val2017" / "a.jpg", tmp_path / "val2017" / "b.jpg")
    found = recognise(str(tmp_path))
    assert found.spec == {
        "kind": "coco",
        "annotations": str(tmp_path / "annotations" / "captions_train2017.json"),
        "images": str(tmp_path / "val2017"),
    }
    assert found.also == (str(tmp_path / "annotations" / "captions_val2017.json"),)
    assert (found.what, found.note) == ("COCO captions", "2 of 2 file names looked for are there")


@pytest.mark.parametrize(
    ("questions", "annotations"),
    [
        ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
        ("questions_val.json", "annotations_val.json"),
        ("ask.json", "odd_answers.json"),
        ("q.json", "a.json"),
    ],
)
def test_the_two_files_of_vqav2_find_each_other(tmp_path, questions, annotations):
    put(tmp_path / questions, QUESTIONS)
    put(tmp_path / "aa_annotations.json", FOREIGN)
    put(tmp_path / annotations, ANSWERS)
    touch(tmp_path / "images" / "val2014" / "COCO_val2014_000000000017.jpg")
    spec = {"kind": "vqa", "questions": questions, "annotations": annotations, "images": "images/val2014"}
    assert recognise(questions, base=str(tmp_path)).spec == spec
    if "quest" in questions:
        assert recognise(annotations, base=str(tmp_path)).spec == spec
        assert recognise(".", base=str(tmp_path)).spec == spec
    assert open_source(spec, str(tmp_path))[0].answer_type == "other"


def test_questions_without_answers_are_refused(tmp_path):
    file = put(tmp_path / "v2_OpenEnded_mscoco_test-dev2015_questions.json", QUESTIONS)
    put(tmp_path / "v2_mscoco_val2014_annotations.json", FOREIGN)
    text = r"looked at: v2_mscoco_val2014_annotations.json\); questions without answers \(test, test-dev\) are nothing to learn"
    with pytest.raises(VlaxError, match=text):
        recognise(str(file))
    with pytest.raises(VlaxError, match=text):
        recognise(str(file), kind="vqa")


def test_dataset_info_names_files_and_columns(tmp_path):
    rows = [{"talk": [{"who": "me", "what": "Hi?"}, {"who": "it", "what": "Hi."}], "pics": ["a.jpg"]}]
    entry = {"file_name": "talks.json", "formatting": "sharegpt", "columns": {"messages": "talk", "images": "pics"},
             "tags": {"role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "it"}}  # fmt: skip
    put(tmp_path / "dataset_info.json", {"far": {"hf_hub_url": "x/y", "formatting": "sharegpt"}, "talks": entry})
    with pytest.raises(VlaxError, match=r"dataset_info.json describes talks.json, and none of these is beside it"):
        recognise(str(tmp_path / "dataset_info.json"))
    put(tmp_path / "talks.json", rows)
    touch(tmp_path / "a.jpg")
    found = recognise(str(tmp_path))
    assert (found.spec["kind"], found.spec["columns"]["user_tag"]) == ("sharegpt", "me")
    row = open_source(found.spec)[0]
    assert (row.turns[0].question, row.image_name) == ("Hi?", str(tmp_path / "a.jpg"))


@pytest.mark.parametrize(
    ("name", "content", "fields"),
    [
        ("a.txt", "image,text\na.jpg,a dog\n", {}),
        ("b.tsv", "file_name\tcaption\na.jpg\ta dog\n", {"columns": {"image": "file_name", "text": "caption"}}),
        ("c.jsonl", '{"image": "a.jpg", "query": "what?", "response": "it"}\n' * 2,
         {"columns": {"question": "query", "answer": "response"}}),
        ("d.json", '{"image": "a.jpg", "text": "one line"}', {}),
        ("e.jsonl", '{"text": "no pictures"}\n{"text": "at all"}\n', {}),
    ],
)  # fmt: skip
def test_tables(tmp_path, name, content, fields):
    put(tmp_path / name, content)
    touch(tmp_path / "a.jpg")
    found = recognise(name, base=str(tmp_path))
    assert found.spec == {"kind": "table", "path": name, "images": ".", **fields}
    assert found.note == ("no row names a picture" if name == "e.jsonl" else found.note)
    assert len(open_source(found.spec, str(tmp_path))) > 0


def tar(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("a.txt"), io.BytesIO(b""))


def test_containers_by_their_first_bytes(tmp_path):
    for name, head in (("a", b"PAR1"), ("b", b"ARROW1\0\0"), ("c", b"\xff\xff\xff\xff\x10"), ("d", b"\x83\xafp\xd1\r\x88J?")):
        (tmp_path / name).write_bytes(head + bytes(64))
    tar(tmp_path / "e")
    kinds = {name: recognise(name, base=str(tmp_path)).spec for name in "abcde"}
    assert {name: spec.pop("kind") for name, spec in kinds.items()} == {
        "a": "hf", "b": "hf", "c": "hf", "d": "arrayrecord", "e": "webdataset",
    }  # fmt: skip
    assert kinds["a"] == {"path": "a"}


def test_folders_of_shards_and_their_splits(tmp_path):
    touch(tmp_path / "hub" / "data" / "validation-00000-of-00001.parquet", tmp_path / "hub" / "data" / "train-0-of-1.parquet")
    found = recognise("hub", base=str(tmp_path))
    assert found.spec == {"kind": "hf", "path": "hub", "split": "train"} and found.what.endswith("(splits: train, validation)")
    touch(tmp_path / "web" / "000.parquet")  # what img2dataset writes
    put(tmp_path / "web" / "000_stats.json", {"count": 3})
    tar(tmp_path / "web" / "000.tar")
    assert recognise("web", base=str(tmp_path)).spec == {"kind": "webdataset", "path": "web"}
    tar(tmp_path / "web" / "001.tar")
    assert recognise("web/{000..001}.tar", base=str(tmp_path)).spec == {"kind": "webdataset", "path": "web/{000..001}.tar"}
    assert recognise("web/*.tar", base=str(tmp_path)).spec["path"] == "web/*.tar"
    put(tmp_path / "web" / "captions.json", COCO)  # annotations win: the tars may hold their pictures
    assert recognise("web", base=str(tmp_path)).spec["kind"] == "coco"
    touch(tmp_path / "saved" / "data-00000-of-00001.arrow")
    put(tmp_path / "saved" / "dataset_info.json", {"features": {}})
    assert recognise("saved", base=str(tmp_path)).spec == {"kind": "hf", "path": "saved"}


def test_tfds_and_prepared_folders(tmp_path):
    builder = tmp_path / "tfds" / "coco_captions" / "1.1.0"
    put(builder / "features.json", {})
    put(builder / "dataset_info.json", {"splits": [{"name": "test"}, {"name": "train"}]})
    for path in (tmp_path / "tfds", builder):
        assert recognise(str(path)).spec == {"kind": "tfds", "path": str(builder), "split": "train"}
    put(tmp_path / "prepared" / "manifest.json", {"format": stored.FORMAT})
    touch(tmp_path / "prepared" / "rows-00000-of-00001.array_record")
    assert recognise("prepared", base=str(tmp_path)).spec == {"kind": "prepared", "path": "prepared"}
    put(tmp_path / "prepared" / "manifest.json", {"name": "of somebody else"})
    assert recognise("prepared", base=str(tmp_path)).spec["kind"] == "arrayrecord"


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.json", {"x": {}, "y": [{"id": 1, "url": ""}]}, r"an object with the keys x \(object\), y \(list of objects"),
        ("b.json", [3, 4], "it holds a list of 2; looked for COCO captions, Karpathy, "),
        ("c.json", [{"ans": "yes"}], "the first row has ans; looked for question with answer"),
        ("d.json", "[{oops", r"d\.json is not JSON .*no JSON lines either"),
        ("e.md", "# Hello\n\nworld\n", r"it holds the first bytes b'# Hello"),
        ("f.bin", "\0\1", r"the first bytes b'\\x00\\x01'; .* prepared folder, a TFDS folder\. Name it with kind"),
        ("g/h.txt", "x", r"it holds 1 entries \(h\.txt\); looked for COCO"),
        ("i/j.json", "[{oops", r"j\.json is not JSON"),
    ],
)  # fmt: skip
def test_unknown_data_is_described(tmp_path, name, content, text):
    path = put(tmp_path / name, content)
    with pytest.raises(VlaxError, match=text) as caught:
        recognise(str(path.parent if "/" in name else path))
    assert "\n" not in str(caught.value)


def places(value, path=()):
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


@pytest.mark.parametrize("kind", ["coco", "vqa", *written.CASES])
def test_any_value_anywhere_gives_rows_or_an_error_of_ours(tmp_path, kind):
    """A wrong type at each place of each format, one at a time: no other exception, and no error of several lines."""
    content = {"coco": COCO, "vqa": ANSWERS}.get(kind) or written.CASES[kind][1]
    put(tmp_path / "q.json", QUESTIONS)
    refused = 0
    for path in places(content):
        for junk in (None, "", [["x"]]):
            damaged = {"": json.loads(json.dumps(content))}
            at = damaged
            for key in ("", *path)[:-1]:
                at = at[key]
            at[("", *path)[-1]] = junk
            file = put(tmp_path / "file.json", damaged[""])
            try:
                source = open_source({"path": str(file)})
                assert [row.id for row in written.rows(source)]
            except VlaxError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 5


def test_missing_paths_and_named_kinds(tmp_path):
    with pytest.raises(VlaxError, match=r"there is no file or folder .*none; mend the path"):
        recognise("none", base=str(tmp_path))
    with pytest.raises(VlaxError, match="there is no kind 'cocoa'; the kinds are scenes"):
        recognise("none", kind="cocoa")
    file = put(tmp_path / "x.json", COCO)
    assert recognise(str(file), kind="coco").spec == recognise(str(file)).spec
    assert recognise(str(file), kind="gqa").spec == {"kind": "gqa", "annotations": str(file), "images": str(tmp_path)}
    with pytest.raises(VlaxError, match="scenes is made by vlax and reads no file"):
        recognise(str(file), kind="scenes")


def test_pictures_that_are_named_or_not_there(tmp_path):
    file = put(tmp_path / "alone" / "set" / "x.json", COCO)
    assert recognise(str(file)).note == "no folder nearby has a.jpg or another of 2 names; say --images DIR"
    touch(tmp_path / "far" / "off" / "there" / "a.jpg")
    found = recognise("alone/set/x.json", "far/off/there", base=str(tmp_path))
    assert (found.spec["images"], found.note) == ("far/off/there", "1 of 2 file names looked for are there")


def test_an_object_store(bucket):  # noqa: F811
    for name, content in (("set/annotations/captions.json", json.dumps(COCO)), ("set/images/a.jpg", "")):
        epath.Path(f"{bucket}/{name}").write_text(content)
    for path in ("set/annotations/captions.json", "set", f"{bucket}/set"):
        found = recognise(path, base="" if path.startswith("gs:") else bucket)
        top = f"{bucket}/" if path.startswith("gs:") else ""
        images = f"{top}set/images"
        assert found.spec == {"kind": "coco", "annotations": f"{top}set/annotations/captions.json", "images": images}
    assert open_source(found.spec)[0].image_name == f"{bucket}/set/images/a.jpg"


def test_the_own_folder_wins_over_another_data_set(tmp_path):
    file = put(tmp_path / "mine" / "x.json", COCO)
    touch(tmp_path / "mine" / "images" / "a.jpg", *(tmp_path / "images" / name for name in ("a.jpg", "b.jpg")))
    found = recognise(str(file))
    assert (found.spec["images"], found.note[:6]) == (str(tmp_path / "mine" / "images"), "1 of 2")


def test_folders_in_file_names_may_be_missing_on_disk(tmp_path):
    file = put(tmp_path / "demo" / "rows.json", "[]")
    touch(tmp_path / "demo" / "pics" / "1.jpg")
    names = ["data/pics/1.jpg", "data/pics/2.jpg"]
    found = picture_folder(epath.Path(file), names)
    assert (str(found.folder), found.strip, found.found, found.of) == (str(tmp_path / "demo"), "data/", 1, 2)
    assert picture_folder(epath.Path(file), ["data/pics/1.jpg", "x/2.jpg"]).found == 0


REAL = {
    "flickr8k_dev": ("coco", "flickr8k_dev/images"),
    "easy_vqa": ("vqa", "easy_vqa/images"),
    "daquar": ("vqa", "daquar/images"),
    "formats/karpathy": ("karpathy", "formats/karpathy"),
    "formats/coco_captions_val2017": ("coco", "formats/coco_captions_val2017"),
    "formats/llava": ("llava", "formats/llava"),
    "formats/sharegpt": ("sharegpt", "formats/sharegpt"),
    "formats/vqav2_textvqa": ("vqa", "formats/vqav2_textvqa"),
    "formats/pathvqa_lxmert": ("lxmert", "formats/pathvqa_lxmert"),
}


@pytest.mark.parametrize("folder", REAL)
def test_real_folders(folder):
    if not (SHARED / folder).exists():
        pytest.skip(f"development data {folder} is not here")
    found = recognise(folder, base=str(SHARED))
    assert (found.spec["kind"], found.spec["images"]) == REAL[folder]
    assert set(found.spec) <= {"kind", *KINDS[found.spec["kind"]].fields}
    if "are there" in found.note:
        source = open_source({"path": folder}, str(SHARED), train=False)
        assert source.fingerprint == open_source(found.spec, str(SHARED), train=False).fingerprint
        assert source[0].picture.open().width > 60
