"""The long form of `tests/faults/test_fuzz.py`: every parser of files of strangers under atheris, a fuzzer that is led by which
branches of vlax and Pillow an input reaches.

    pip install 'atheris>=3,<4'                           (Linux and macOS, Python 3.11 to 3.13)
    python -m benchmarks.fuzz --minutes=5                 of each parser in turn
    python -m benchmarks.fuzz --only coco request --minutes=60 --folder=runs/fuzz

An input is one of a parser's real files, changed. What it may end in is values or a VlaxError of one line; any other exception,
more than SECONDS or MEGABYTES, and files written elsewhere are findings: FOLDER/NAME/found has each once, by where it was
raised, with the file that led to it. What was tried is kept in FOLDER/NAME/corpus, and the next run begins with it. The exit
code is 1 where something was found.
"""

import argparse
import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
SECONDS, MEGABYTES = 60, 3_000  # of one input; of the process, in which jax takes some hundred
OWN = 0.5  # share of the mutations that know JSON; the others are libFuzzer's


class Target:
    """One parser: `__call__` is what atheris calls, `mutate` how it changes an input. An input is the number of a file, as one
    byte, and the content of that file."""

    def __init__(self, name: str, folder: Path, found: Path):
        import fuzz_cases

        self.cases, self.parser, self.found = fuzz_cases, fuzz_cases.PARSERS[name], found
        self.folder = folder / "given"
        self.folder.mkdir()
        self.parser.write(self.folder)
        patterns = self.parser.files
        self.files = sorted({file for pattern in patterns for file in self.folder.glob(pattern) if file.is_file()})
        self.contents = [file.read_bytes() for file in self.files]
        self.sound, self.there = self.parser.read(self.folder), self._there()

    def _there(self) -> set[str]:
        return {str(path) for path in self.folder.parent.rglob("*")}

    def seeds(self, folder: Path) -> None:
        for number, content in enumerate(self.contents):
            (folder / f"{number:03d}").write_bytes(bytes([number]) + content)

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        number = data[0] % len(self.files)
        self.files[number].write_bytes(data[1:])
        try:
            self.parser.read(self.folder)
        except Exception as error:
            if not self._is_one_line(error):
                self._keep(error, number, data[1:])
        self.files[number].write_bytes(self.contents[number])
        if (now := self._there()) != self.there:
            self._keep(RuntimeError(f"files changed: {sorted(now ^ self.there)}"), number, data[1:])
            self.there = now

    def _is_one_line(self, error: Exception) -> bool:
        from vlax.errors import VlaxError

        return isinstance(error, VlaxError) and bool(str(error)) and "\n" not in str(error)

    def _keep(self, error: Exception, number: int, content: bytes) -> None:
        """Once a place."""
        where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        ours = next((place for place in reversed(where) if "/vlax/" in place), "")
        name = f"{type(error).__name__}-{hashlib.sha256(f'{ours}{where[-1:]}'.encode()).hexdigest()[:8]}"
        if not (self.found / f"{name}.txt").exists():
            (self.found / f"{name}.txt").write_text("".join(traceback.format_exception(error))[-8_000:], errors="replace")
            (self.found / f"{name}.{self.files[number].name}").write_bytes(content)

    def mutate(self, data: bytes, most: int, seed: int) -> bytes:
        import atheris

        rng = random.Random(seed)
        if len(data) < 2 or rng.random() > OWN:
            changed: bytes = atheris.Mutate(data, most)
            return changed
        content = data[1:]
        for _ in range(rng.randint(1, 3)):
            content = self.cases.changed(content, self._change(rng))
        return (data[:1] + content)[:most]

    def _change(self, rng: random.Random) -> tuple[str, int, Any]:
        """A change as hypothesis draws them."""
        what = rng.choice(("flip", "cut", "end", "double", "insert", "write", "value", "value", "value"))
        given = {
            "flip": rng.randint(1, 255), "cut": rng.randint(1, 200), "end": 0, "double": rng.randint(1, 600),
            "value": rng.choice((*self.cases.NONSENSE, "remove", "twice")),
        }.get(what, rng.choice(self.cases.TOKENS))  # fmt: skip
        return what, rng.randrange(1 << 20), given


def fuzz(name: str, folder: Path, seconds: int) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    sys.path.insert(0, str(TESTS))
    with atheris.instrument_imports(include=["vlax", "PIL"]), contextlib.redirect_stderr(io.StringIO()):
        import fuzz_cases  # noqa: F401

        from vlax.text import sandbox
    sandbox.SECONDS = 2
    home = Path(tempfile.mkdtemp(prefix="vlax-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    target = Target(name, home, folder / "found")
    target.seeds(seeds := Path(tempfile.mkdtemp(prefix="vlax-fuzz-")))
    most = 2 * max(map(len, target.contents)) + 4_096
    flags = [f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={most}",
             f"-artifact_prefix={folder / 'found'}/", "-print_final_stats=1", "-len_control=0"]  # fmt: skip
    atheris.Setup([sys.argv[0], str(folder / "corpus"), str(seeds), *flags], target, custom_mutator=target.mutate)
    atheris.Fuzz()


def round_of(name: str, folder: Path, minutes: float) -> str:
    """One row of the table."""
    for part in ("corpus", "found"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "found")
    (folder / "found").mkdir()
    until, inputs, covered = time.monotonic() + minutes * 60, 0, 0
    with (folder / "log.txt").open("w") as log:
        while (left := until - time.monotonic()) > 1:  # a hang and too much memory end the process
            command = [sys.executable, "-m", "benchmarks.fuzz", f"--one={name}", f"--folder={folder}", f"--minutes={left / 60}"]
            subprocess.run(command, stdout=log, stderr=log, check=False)
            said = (folder / "log.txt").read_text(errors="replace")
            if "number_of_executed_units" not in said:
                raise SystemExit(f"{name}: {said[-2000:]}")
    inputs = sum(map(int, re.findall(r"number_of_executed_units: (\d+)", said)))
    covered = max(map(int, re.findall(r"cov: (\d+)", said)), default=0)
    found = sorted(path.stem for path in (folder / "found").iterdir() if path.suffix == ".txt" or "-" in path.name[:9])
    return f"| {name} | {inputs:,} | {covered:,} | {'; '.join(dict.fromkeys(found)) or 'nothing'} |"


def _parsers() -> list[str]:
    sys.path.insert(0, str(TESTS))
    import fuzz_cases

    return list(fuzz_cases.PARSERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5, help="of each parser")
    parser.add_argument("--only", nargs="*", default=[], help="names of parsers")
    parser.add_argument("--folder", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return fuzz(args.one, args.folder, max(1, int(args.minutes * 60)))
    os.environ["JAX_PLATFORMS"] = "cpu"
    rows = []
    for name in args.only or _parsers():
        rows.append(round_of(name, args.folder.absolute() / name, args.minutes))
        print(rows[-1], flush=True)
    print("\n| parser | inputs | branches | found |\n|---|---|---|---|\n" + "\n".join(rows))
    sys.exit(any("nothing" not in row for row in rows))


if __name__ == "__main__":
    main()
