"""A user's mistakes, through the real command: exit code 2 and a line or two that name the thing, never a stack trace."""

import json
import pathlib
import re
import shutil
import subprocess

import commands
import pytest
from conftest import REPO

from vlax.commands import front

STAGE3, FLICKR = "--config=configs/stage3.py", "--config=configs/flickr8k.py"
TINY = "--config={dir}/tiny1.py"
FRESH = "--config={dir}/tiny0.py", "--workdir={dir}/fresh"

# name: (arguments, what the message must say)
CASES = {
    "field": ([STAGE3, "--config.stage.stepz=3"], "--config.stage.stepz: there is no field 'stepz'; did you mean 'steps'?"),
    "shapes, as they were called": (
        [STAGE3, "--config.run.model.decoder.width=64"],
        "the shapes of fresh parts are now in run.shapes; write --config.run.shapes.decoder.width",
    ),
    "nested field": ([STAGE3, "--config.run.shapes.decoder.heats=3"], "shapes.decoder.heats: there is no field 'heats'"),
    "stage of the chain": ([STAGE3, "--config.parents.stage7.steps=3"], "parents.stage7.steps: there is no field 'stage7'"),
    "type": ([STAGE3, "--config.stage.steps=many"], "--config.stage.steps=many"),
    "fraction": ([STAGE3, "--config.run.log_every=2.5"], "--config.run.log_every=2.5"),
    "variant": ([STAGE3 + ":huge"], "unknown variant 'huge'; the variants are embedded, 0.9b"),
    "no variants": ([FLICKR + ":huge"], "configs/flickr8k.py has no variants"),
    "config file": (["--config=configs/stage9.py"], "there is no config file configs/stage9.py"),
    "config file without its flag": (["stage9"], "there is no config file stage9; pass --config=configs/NAME.py"),
    "no config": ([], "--config is missing, e.g. --config=configs/stage3.py"),
    "flag": ([STAGE3, "--worksdir=x"], "Unknown command line flag 'worksdir'. Did you mean: workdir"),
    "mask": ([*FRESH, "--config.run.mask=casual"], "unknown mask kind 'casual'; the kinds are causal, image_bidirectional"),
    "template": ([*FRESH, "--config.run.templates=plian"], "unknown prompt template 'plian'; there are plain, instruct"),
    "trainable": ([*FRESH, "--config.stage.trainable.all=^projektor/"], "all='^projektor/' matches no parameter"),
    "no data_root": ([FLICKR], "pass --config.run.data_root=DIR"),
    "wrong data_root": ([FLICKR, "--config.run.data_root={dir}/nothing"], "no file {dir}/nothing/flickr8k_dev/annotations"),
    "not JSON": ([FLICKR, "--config.run.data_root={dir}/notjson"], "captions_train.json is not JSON"),
    "picture": (["--config={dir}/files.py", "--config.run.data_root={dir}/broken"], "train0.png: the picture does not decode"),
    "other config": ([TINY, "--config.stage.batch_size=4"], "made with another config (stage.batch_size: 8 -> 4)"),
    "mesh": ([*FRESH, "--config.run.mesh.data=3"], "mesh (data, fsdp, tp) = (3, 1, 1) needs 3 devices"),
    "not trained": (["eval", STAGE3], "stage3 has no finished export in {dir}/w/stage3; train it first"),
    "suite": (["eval", STAGE3, "--suite=coco"], "there is no suite 'coco'; there are coco_karpathy_test, embedded_captions"),
    "files": (["eval", STAGE3, "--suite=gqa_testdev", "--config.run.data_root={dir}/nothing"], "It needs, below run.data_root"),
    "custom": (["eval", STAGE3, "--suite=custom"], "--suite=custom needs --data=CAPTIONS.json or --data=QUESTIONS.json,ANN"),
    "no eval config": (["eval"], "--config is missing, e.g. --config=configs/stage3.py"),
    "compare": (["eval", "--compare", "{dir}/a", "{dir}/b"], "{dir}/a holds no evaluation: there is no scores.json"),
    "compare one": (["eval", "--compare={dir}/a"], "--compare takes two directories that eval.py wrote, not 1"),
    "checkpoint": (["eval", "--config={dir}/tiny4.py", "--checkpoint={dir}/nothing"], "nothing is not a finished vlax export"),
}  # fmt: skip

FILES = {
    "tiny1.py": "def get_config():\n    return tiny('stage1')",
    "tiny0.py": "def get_config():\n    return tiny('stage0')",
    "tiny4.py": "def get_config():\n    return tiny('stage4')",
    "files.py": "from configs import flickr8k\ndef get_config():\n    return shrink(flickr8k.get_config())",
}


def write_data(root: pathlib.Path, broken: str) -> None:
    """flickr8k_dev as configs/flickr8k.py wants it, with an annotation file or all pictures that don't read."""
    folder = root / "flickr8k_dev"
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    for split in ("train", "val", "test"):  # other pictures in each: evaluation pictures are kept out of training
        images = [{"id": i, "file_name": f"{split}{i}.png"} for i in range(3)]
        captions = [{"image_id": i, "caption": "a dog runs"} for i in range(3)]
        text = "<html>" if broken == "json" else json.dumps({"images": images, "annotations": captions})
        (folder / "annotations" / f"captions_{split}.json").write_text(text)
    from PIL import Image

    for name in (f"{split}{i}.png" for split in ("train", "val", "test") for i in range(3)):
        Image.new("RGB", (9, 9)).save(folder / "images" / name)
    if broken == "picture":
        for i in range(2):  # one bad row would be within the budget
            (folder / "images" / f"train{i}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")


@pytest.fixture(scope="module")
def results(trained, tmp_path_factory):
    """{case: (exit code, stdout, stderr)}"""
    directory = tmp_path_factory.mktemp("cli")
    head = f"import sys\nsys.path[:0] = [{str(REPO)!r}, {str(REPO / 'tests')!r}]\nfrom conftest import shrink, tiny\n"
    for name, text in FILES.items():
        (directory / name).write_text(head + text + "\n")
    write_data(directory / "notjson", "json")
    write_data(directory / "broken", "picture")
    shutil.copytree(trained[1], directory / "w", ignore=shutil.ignore_patterns("stage3"))
    cases = []
    for args, _ in CASES.values():
        script = "eval.py" if args[:1] == ["eval"] else "train.py"
        args = [a.format(dir=directory) for a in args if a != "eval"]
        cases.append(
            [script, *args, f"--workdir={directory}/w"]
            if args[:1] == ["stage9"]
            else [script, f"--workdir={directory}/w", *args]
        )
    cases.append(["train.py", "--help"])
    printed = ["--config.run.log-every=3", "--print-config", f"--workdir={directory}/w"]
    cases.append(["train.py", f"{directory}/tiny1.py", *printed])
    found = commands.run(cases, REPO, directory)
    return directory, dict(zip([*CASES, "help", "printed"], found, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_ends_in_a_line_that_names_it(results, case):
    directory, found = results
    code, out, err = found[case]
    assert code == 2, err
    assert "Traceback" not in err + out
    said = [line for line in err.splitlines() if line and not re.match(r"I\d{4} |\w+:   0%", line)]  # log lines and bars
    assert said and len(said) <= 2, err
    assert said[0].startswith("vlax: error: ") and CASES[case][1].format(dir=directory) in said[0], err
    assert sum(len(line) for line in said) < 700


def test_the_picture_that_does_not_decode_is_named_with_its_row(results):
    directory, found = results
    assert f"{directory}/broken/flickr8k_dev/images/train0.png" in found["picture"][2] and "row 0" in found["picture"][2]


def test_help_is_worth_reading(results):
    code, out, err = results[1]["help"]
    assert code in (0, 1)  # absl's own
    assert "python train.py --config=configs/stage3.py:0.9b" in out + err and "--workdir" in out + err


def test_what_would_run_is_printed_with_where_it_comes_from(results):
    """The config is named without its flag here, and a field with a hyphen."""
    directory, found = results
    code, out, err = found["printed"]
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert code == 0 and lines["run.log_every"] == ["3", "--config.run.log_every"], err
    assert lines["run.seed"] == ["0", "configs/base.py"]
    assert lines["stage.steps"] == ["4", f"{directory}/tiny1.py"]
    assert lines["parents.stage0_vision.captioner"] == ["True", f"{directory}/tiny1.py"]
    assert "parents.stage0_vision.clip" not in lines  # as everywhere


ASK_BASH = """
source {script}
ask() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=()
    _shtab_vlax vlax "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}" 2>/dev/null
    echo "${{COMPREPLY[*]}}"
}}
ask vlax tr; ask vlax data do; ask vlax train --config.stage.packi; ask vlax train --config stage; ask vlax eval --supp
"""


def test_bash_completes_commands_flags_configs_and_fields(tmp_path, capsys):
    assert front.main(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    done = subprocess.run(["bash", "-c", ASK_BASH.format(script=script)], capture_output=True, text=True)
    want = ["train", "doctor", "--config.stage.packing", "stage0 stage1 stage2 stage3 stage4", ""]
    assert done.stdout.splitlines() == want, done.stderr
