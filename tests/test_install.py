"""`pip install` of a clone: the command, the configs and the public names, from a folder that has nothing in it."""

import shutil
import site
import subprocess
import venv
from pathlib import Path

import pytest
from conftest import REPO

INSTALLED = ("vlax", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")
SHORT = """
from configs import stage0
from conftest import shrink


def get_config():
    return shrink(stage0.get_config("vision"))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin folder of a new environment with vlax in it; what vlax needs is lent by the one that runs the tests."""
    clone, env = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("env")
    for path in [*map(REPO.joinpath, INSTALLED), *REPO.glob("requirements*.txt")]:
        if path.is_dir():
            shutil.copytree(path, clone / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, clone)
    venv.create(env, with_pip=True)
    (packages,) = env.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text("\n".join([*site.getsitepackages(), str(REPO / "tests")]))
    pip = [env / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check", clone]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    return env / "bin"


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_vlax_works_from_an_empty_folder(installed, tmp_path):
    vlax = installed / "vlax"
    assert "vlax data doctor" in run(vlax, "--help", cwd=tmp_path)
    names = run(installed / "python", "-c", "import vlax; print(vlax.__version__, vlax.__file__, dir(vlax))", cwd=tmp_path)
    assert str(installed.parent) in names and "from_pretrained" in names
    assert "did you mean 'steps'?" in run(vlax, "train", "--config=stage3", "--config.stage.stepz=1", cwd=tmp_path)
    assert "embedded_cells" in run(vlax, "eval", "--suite=help", cwd=tmp_path)
    (tmp_path / "own.py").write_text(SHORT)
    said = run(vlax, "train", "--config=own.py", "--workdir=run", cwd=tmp_path)
    assert "export run/stage0_vision/export" in said, said
    assert (tmp_path / "run" / "stage0_vision" / "hf" / "vision" / "config.json").exists()


@pytest.mark.slow
def test_the_wheel_has_every_file_that_the_clone_has(installed):
    (package,) = installed.parent.glob("lib/python*/site-packages/vlax")
    for name, folder in (("vlax", package), ("configs", package / "configs")):
        files = [path.relative_to(REPO / name) for path in (REPO / name).rglob("*") if path.is_file()]
        missing = [path for path in files if path.suffix != ".pyc" and not (folder / path).exists()]
        assert not missing
