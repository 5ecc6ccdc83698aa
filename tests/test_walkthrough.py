"""The README's own commands, read from README.md, in its order, in a copy of the clone, with stages shrunk to seconds."""

import json
import re
import shlex
import shutil

import commands
import pytest
from conftest import REPO
from format_cases import pixels
from PIL import Image

CLONE = ("vlax", "configs", "train.py", "eval.py", "README.md", "Makefile")
# What needs weights, data, devices or a bucket that are not here, and what goes on until it is ended (tests/test_serve.py).
ELSEWHERE = re.compile(r":0\.9b|gs://|\.\.\.|distributed=|vlax serve")
# configs/base.py of the copy: every config is shrunk when it is made, so that the commands stay the README's to the letter.
SHRINK = """
import sys
sys.path.append({tests!r})
from conftest import shrink
_config = config


_of_shapes = of_shapes


def config(*args):
    return shrink(_config(*args))


def of_shapes(made):
    return shrink(_of_shapes(made))
"""
METEOR = '"METEOR", '
# A config of one's own, as one would write it after `data preview`.
MINE = """
from pathlib import Path

from configs import base, datasets

SOURCE = {"kind": "coco", "annotations": str(Path("captions.json").absolute()), "images": str(Path("pictures").absolute())}


def get_config():
    s = base.stage("mine")
    s.trainable, s.learning_rate = {"all": "."}, {"all": 1e-3}
    s.mixture = {"captions": datasets.weighted(SOURCE, 1.0)}
    return base.config("embedded", s, {})
"""


def readme() -> list[list[str]]:
    """The arguments of python in every indented command line of the README; `make train` is what the Makefile makes of it.
    Lines of Python that stand together are one `python -c`."""
    found: list[list[str]] = []
    code = False
    for line in (REPO / "README.md").read_text().splitlines():
        line = line[4:] if line.startswith("    ") else ""
        if re.match(r"import vlax|vlax\.|model\.|model = ", line):
            found += [] if code else [["-c", "import vlax"]]
            found[-1][1] += f"\n{line.split('     ')[0]}"
        elif line.startswith("make train"):
            recipe = (REPO / "Makefile").read_text().split("\ntrain:")[1].split("\n\n")[0]
            lines = re.findall(r"\$\(BIN\)/python (.*)", recipe.replace("$(WORKDIR)", "runs/embedded"))
            found += [shlex.split(each) for each in lines]
        elif line.startswith("python ") and not ELSEWHERE.search(line):
            found.append(shlex.split(line, comments=True)[1:])
        code = found and found[-1][0] == "-c" and bool(line)
    return found


COMMANDS = readme()
# Minutes of compilation for what tests/test_finetune.py trains, too, for another mask, for a stage 1 of other parents and for
# closed answers, which other files of tests train and ask: walked with the slow tests.
DEAR = re.compile("--config=finetune|runs/causal|runs/short|--answers=")
LONG = [number for number, args in enumerate(COMMANDS) if DEAR.search(" ".join(args))]
NUMBERS = [pytest.param(number, marks=pytest.mark.slow) if number in LONG else number for number in range(len(COMMANDS))]


@pytest.fixture(scope="module")
def walk(tmp_path_factory, request):
    """(the copy of the clone, {number: (exit code, stdout, stderr)} of the commands)"""
    clone, notes = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("notes")
    for name in CLONE:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPO / name, clone)
    with (clone / "configs" / "base.py").open("a") as file:
        file.write(SHRINK.format(tests=str(REPO / "tests")))
    for name in ("scores/captions.py", "suites/protocol.py"):  # the metrics where nobody names any; see conftest.py
        whole = (clone / "vlax" / name).read_text()
        assert METEOR in whole
        (clone / "vlax" / name).write_text(whole.replace(METEOR, ""))
    (clone / "configs" / "mine.py").write_text(MINE)
    (clone / "pictures").mkdir()
    for number in range(9):
        Image.fromarray(pixels(number)).save(clone / "pictures" / f"{number}.png")
    for name in ("a.png", "picture.png"):
        Image.fromarray(pixels(9)).save(clone / name)
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(9)]
    said = ["a dog runs", "a cat sleeps", "two cows", "one red hen", "the fox", "an owl", "birds", "fish", "a bee"]
    captions = [{"image_id": number, "caption": text} for number, text in enumerate(said)]
    (clone / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    slow = any(item.get_closest_marker("slow") for item in request.session.items if item.path == request.path)
    numbers = [number for number in range(len(COMMANDS)) if slow or number not in LONG]
    return clone, dict(zip(numbers, commands.run([COMMANDS[n] for n in numbers], clone, notes), strict=True))


@pytest.mark.parametrize("number", NUMBERS, ids=[" ".join(args)[:70] for args in COMMANDS])
def test_the_readmes_command_does_what_it_says(walk, number):
    code, out, err = walk[1][number]
    said = f"{shlex.join(COMMANDS[number])}\n{out[-2000:]}{err[-4000:]}"
    assert code == 0 and "Traceback" not in err and "error" not in err, said


def test_the_readme_shows_everything_there_is_to_do():
    typed = "\n".join(shlex.join(args) for args in COMMANDS)
    for what in ("train.py --config=configs/stage3.py", "eval.py --config=configs/stage3.py", "--against=", "--compare",
                 "vlax ask", "vlax export", "data preview", "data doctor", "data prepare", "--inspect", "vlax.load",
                 "vlax.from_pretrained", "--suite=help", "--suite=custom", "--answers="):  # fmt: skip
        assert what in typed, what


def test_what_the_commands_leave_behind(walk):
    clone, results = walk
    out = {shlex.join(COMMANDS[number]): result[1] for number, result in results.items()}
    for path in ("embedded/curves.png", "embedded/stage3/eval/report.html", "embedded/stage3/eval-blind/scores.json",
                 "causal/stage3/eval/compare.html", "embedded/pathvqa/export/manifest.json"):  # fmt: skip
        if path.startswith("causal") and not any("runs/causal" in text for text in out):
            continue
        assert (clone / "runs" / path).exists(), path
    for path in ("mymodel/README.md", "mymodel/config.json", "out-224/manifest.json"):
        assert (clone / path).exists(), path
    card = (clone / "mymodel" / "README.md").read_text()
    scores = json.loads((clone / "runs/embedded/stage4/eval/scores.json").read_text())
    assert "stage4" in card and scores["sets"] and str(clone) not in card
    assert any("score - twin" in text for text in out.values())
