"""`--runner`: threads and a Ray cluster give the same bytes, in order, with the same errors, and go on after each other."""

import argparse
import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import signal
import sys
import threading

import damage
import numpy as np
import pytest
from etils import epath
from PIL import Image

from vlax.commands.data import doctor, picture_shards, prepare, runner_argument
from vlax.commands.data.picture_shards import Encoding
from vlax.commands.data.runners import Local, RunnerError, in_order
from vlax.errors import VlaxError
from vlax.rows import RowFault

PICTURES = 60


@dataclasses.dataclass(frozen=True)
class Squares:
    """Raises at one item, if any; says another fault in each process at another."""

    bad: int = -1
    elsewhere: int = -1
    keeps = False

    def __call__(self, item):
        if item == self.bad:
            raise RowFault(f"row {item} is bad", "corrupt picture")
        return item * item, f"seen by {os.getpid()}" * (item == self.elsewhere)

    def fault(self, result):
        return result[1]


def values(iterator):
    return [result[0] for result in iterator]


def test_the_order_is_kept_and_no_more_than_so_many_are_begun():
    log = []
    ends = in_order(range(6), lambda n: log.append(f"begin {n}") or n, lambda n: -n, lambda n: log.append(f"cancel {n}"), 3)
    assert next(ends) == 0 and log == ["begin 0", "begin 1", "begin 2"]
    assert next(ends) == -1
    ends.close()
    assert log[3:] == ["begin 3", "cancel 2", "cancel 3"]
    assert list(in_order(range(2), lambda n: n, lambda n: -n, print, 9)) == [0, -1]


def test_threads_give_results_in_order_whoever_is_first():
    last = threading.Event()

    class Waits(Squares):
        def __call__(self, item):
            if item == 0:
                assert last.wait(60)
            if item == 1:
                last.set()
            return super().__call__(item)

    assert values(Local(2).map(Waits(), range(9))) == [n * n for n in range(9)]


def fails_after(runner, bad, count):
    """The results before the one that raises are given."""
    given, results = [], runner.map(Squares(bad=bad), range(count))
    with pytest.raises(RowFault, match=f"^row {bad} is bad$") as caught:
        given.extend(results)
    assert values(given) == [n * n for n in range(bad)] and caught.value.kind == "corrupt picture"


def test_what_a_thread_raises():
    fails_after(Local(2), 5, 9)


def flags(*given):
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    return parser.parse_args([str(flag) for flag in ("x.json", "out", *given)])


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("--workers=0",), "--workers=0: at least one"),
        (("--ray-address=auto",), "--ray-address=auto is of --runner=ray; add it"),
        (("--runner=ray",), r"needs Ray, which is not installed: pip install 'vlax\[ray\]'"),
    ],
)
def test_flags_that_do_not_fit(given, error, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VlaxError, match=error), runner_argument.started(flags(*given)):
        pass


def test_threads_are_the_default():
    with runner_argument.started(flags()) as runner:
        assert isinstance(runner, Local) and runner.workers == os.cpu_count()
    with runner_argument.started(flags("--workers=3")) as runner:
        assert runner.workers == 3


@pytest.fixture(scope="module")
def cluster():
    """Of this machine, with two workers; `--runner=ray` of this process uses it."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'vlax[ray]'")
    from ray import cloudpickle

    from vlax.commands.data.ray_runner import RayRunner

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a worker has vlax, and no tests
    heard = signal.getsignal(signal.SIGTERM)
    with RayRunner("local", 2, memory=80 << 20) as runner:
        assert signal.getsignal(signal.SIGTERM) == heard  # Ray sets its own
        yield runner


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Two captions a picture; two pictures have the same pixels, one is damaged and one is not there."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    for n in range(PICTURES):
        pixels = np.random.default_rng(1 if n == 31 else n).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{n}.png")
    (folder / "images" / "5.png").write_bytes(b"not a picture")
    (folder / "images" / "44.png").unlink()
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(PICTURES)]
    captions = [{"image_id": n, "caption": f"a dog {n} {k}"} for n in range(PICTURES) for k in range(2)]
    (folder / "c.json").write_text(json.dumps({"images": images, "annotations": captions}))
    listed = [{"source": "coco-c", "row": f"{n}#{k}", "image": "", "reason": "odd"} for n, k in ((7, 0), (7, 1), (9, 1))]
    (folder / "quarantine.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in listed))
    return folder


def digests(out):
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.rglob("*")) if p.is_file()}


@pytest.fixture
def prepared(coco, tmp_path, monkeypatch):
    """prepared(OUT, *flags): what `vlax data prepare` leaves in OUT, twenty pictures a shard."""
    monkeypatch.setattr(Encoding, "per_shard", lambda self, megabytes: 20)

    def run(name, *given):
        parser = argparse.ArgumentParser()
        prepare.add_arguments(parser)
        given = (f"--quarantine={coco}/quarantine.jsonl", "--image-size=16", "--drop-budget=0.1", *given)
        prepare.main(parser.parse_args([f"{coco}/c.json", f"{tmp_path}/{name}", f"--images={coco}/images", *given]))
        return digests(tmp_path / name)

    return run


def test_ray_prepares_the_same_bytes(cluster, prepared, tmp_path):
    local, ray = prepared("local", "--workers=2"), prepared("ray", "--runner=ray")
    assert local == ray and len(ray) == 3 + 2 + 5
    counts = json.loads((tmp_path / "ray" / "manifest.json").read_text())["counts"]
    assert counts == {
        "rows": 113, "rows_text_only": 0, "rows_quarantined": 3, "rows_undecodable": 4, "pictures": 56, "pictures_named": 59,
        "pictures_undecodable": 2,
    }  # fmt: skip


@pytest.mark.parametrize("first", ("local", "ray"))
def test_either_goes_on_where_the_other_stopped(first, cluster, prepared, tmp_path, monkeypatch):
    whole = prepared("whole")
    write, made = picture_shards.state.write_json, []

    def stopped(path, *args, **layout):
        if path.name.startswith("images-"):
            made.append(path.name[:12])
            if len(made) == 2:
                raise KeyboardInterrupt
        return write(path, *args, **layout)

    monkeypatch.setattr(picture_shards.state, "write_json", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepared("out", f"--runner={first}")
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert prepared("out", f"--runner={'ray' if first == 'local' else 'local'}") == whole
    assert made == [f"images-0000{n}" for n in (0, 1, 1, 2)]  # the first shard was whole


def test_an_error_waits_for_what_others_have_begun_to_write(prepared, monkeypatch):
    """As where a cluster writes: no file changes once the run has ended."""
    write, save, begun, ended = Local.write, picture_shards.state.write_json, [], []

    def later(self, path, contents, options):
        begun.append(path.name)

        def facts():
            ended.append(path.name)
            return write(self, path, contents, options)()

        return facts

    def full(path, *args, **layout):
        if path.name.startswith("images-"):
            raise OSError("no space left")
        return save(path, *args, **layout)

    monkeypatch.setattr(Local, "write", later)
    monkeypatch.setattr(Local, "writes", 2)
    monkeypatch.setattr(picture_shards.state, "write_json", full)
    with pytest.raises(OSError, match="no space left"):
        prepared("out")
    assert len(begun) == 3 and ended == begun


def test_too_many_damaged_pictures_are_the_same_error(cluster, prepared, tmp_path):
    said = []
    for runner in ("local", "ray"):
        with pytest.raises(VlaxError, match=r"^2 of 120 rows are about pictures that cannot be opened") as caught:
            prepared(runner, f"--runner={runner}", "--drop-budget=0")
        said.append(str(caught.value).replace(f"{tmp_path}/{runner}", "OUT"))
    assert said[0] == said[1] and digests(tmp_path / "local") == digests(tmp_path / "ray")


def test_the_doctor_reports_the_same(cluster, tmp_path, capsys):
    damage.write_damaged(tmp_path / "data")
    data, said = tmp_path / "data", {}
    against = {"kind": "coco", "annotations": f"{data}/evaluation.json", "images": f"{data}/evaluation"}
    for runner in ("local", "ray"):
        parser = argparse.ArgumentParser()
        doctor.add_arguments(parser)
        out = tmp_path / runner
        given = [f"{data}/captions.json", f"{data}/chat.json", f"--images={data}/images", f"--out={out}", f"--runner={runner}"]
        assert doctor.main(parser.parse_args([*given, "--against", json.dumps(against)])) == 1
        said[runner] = re.sub(r", [\d,]+ pictures/s", "", capsys.readouterr().out).replace(str(out), "OUT")
    assert said["local"] == said["ray"] and "truncated picture" in said["ray"]
    assert digests(tmp_path / "local") == digests(tmp_path / "ray") and len(digests(tmp_path / "ray")) == 2


def test_a_machine_at_fault_is_no_fault_of_a_source(coco, tmp_path, monkeypatch):
    def broken(*args, **given):
        raise RunnerError("node n has no folder x")

    monkeypatch.setattr(doctor, "scan", broken)
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    with pytest.raises(RunnerError, match="node n has no folder x"):
        doctor.main(parser.parse_args([f"{coco}/c.json", f"--images={coco}/images", f"--out={tmp_path}/out"]))
    assert not (tmp_path / "out").exists()


def test_a_shard_that_is_not_to_be_seen_is_no_shard(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'vlax[ray]'")
    from vlax.commands.data import ray_runner

    monkeypatch.setattr(ray_runner, "SEEN", 0)
    (tmp_path / "a").write_bytes(b"four")
    ray_runner._check_seen(epath.Path(tmp_path / "a"), 4, "n")
    for name, size in (("a", 5), ("b", 4)):
        with pytest.raises(
            RunnerError, match=f"node n wrote .*/{name}, which is not to be seen from here: all nodes must see OUT"
        ):
            ray_runner._check_seen(epath.Path(tmp_path / name), size, "n")


def test_what_a_worker_raises(cluster):
    fails_after(cluster, 37, 90)
    assert values(cluster.map(Squares(), range(700))) == [n * n for n in range(700)]


def test_few_pictures_too_are_shared_among_the_workers(cluster):
    from vlax.commands.data.ray_runner import chunked

    assert [len(chunk) for chunk in chunked(range(100), 2)] == [8, 8, 16, 16, 32, 20]
    assert [len(chunk) for chunk in chunked(range(700), 1)] == [8, 16, 32, 64, 128, 128, 128, 128, 68]


def test_a_picture_that_only_a_worker_cannot_read_costs_no_row(cluster):
    with pytest.raises(RunnerError, match=r"^node .* says \(seen by \d+\), and here it is \(seen by \d+\): all nodes must see"):
        values(cluster.map(Squares(elsewhere=3), range(9)))


def test_a_worker_that_is_not_as_this_process_is_refused(cluster, tmp_path, monkeypatch):
    from vlax.commands.data import ray_runner, ray_worker

    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    here = ray_worker.Setting(os.getcwd(), False, ray_worker.versions())
    with pytest.raises(VlaxError, match=r"node n has vlax .*, pillow .*, and the command was given with vlax .*, pillow 9\.9"):
        ray_worker.adapt(here._replace(versions=here.versions | {"pillow": "9.9"}), "n")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    runner = ray_runner.RayRunner("local", 2)
    monkeypatch.chdir(tmp_path)
    gone.rmdir()
    with (
        runner,
        pytest.raises(VlaxError, match=r"node .* has no folder .*gone \(No such file.*; give it in one that all nodes"),
    ):
        values(runner.map(Squares(), range(9)))
