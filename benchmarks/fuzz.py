"""The long form of `tests/faults/test_fuzz.py`: every parser of files of strangers under atheris, a fuzzer that is led by which
branches of vlax and Pillow an input reaches.

    pip install -e '.[fuzz]'                              Linux and macOS, Python 3.11 to 3.13
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
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

SHARED = Path("/dev/shm")  # memory: each input is a file
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


def load() -> None:
    """Imports what is fuzzed, instrumented: once, before the processes part."""
    import atheris

    sys.path.insert(0, str(TESTS))
    with atheris.instrument_imports(include=["vlax", "PIL"]), contextlib.redirect_stderr(io.StringIO()):
        import fuzz_cases  # noqa: F401

        from vlax.text import sandbox
    sandbox.SECONDS = 2


def fuzz(name: str, folder: Path, home: Path, seconds: float) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for part in ("files", "seeds"):
        (home / part).mkdir()
    target = Target(name, home / "files", folder / "found")
    target.seeds(home / "seeds")
    most = 2 * max(map(len, target.contents)) + 4_096
    flags = [f"-max_total_time={max(int(seconds), 1)}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}",
             f"-max_len={most}", f"-artifact_prefix={folder / 'found'}/", "-print_final_stats=1", "-len_control=0",
             f"-report_slow_units={SECONDS}"]  # fmt: skip
    folders = [str(folder / "corpus"), str(home / "seeds")]
    atheris.Setup([sys.argv[0], *folders, *flags], target, custom_mutator=target.mutate)
    atheris.Fuzz()


def round_of(name: str, folder: Path, minutes: float) -> str:
    """One row of the table."""
    shutil.rmtree(folder / "found", ignore_errors=True)
    (folder / "log.txt").unlink(missing_ok=True)
    for part in ("corpus", "found"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + minutes * 60
    while (left := until - time.monotonic()) > 1:  # a hang and too much memory end the process
        with tempfile.TemporaryDirectory(prefix="vlax-fuzz-", dir=SHARED if SHARED.is_dir() else None) as home:
            if not (child := os.fork()):
                try:
                    fuzz(name, folder, Path(home), left)
                except BaseException:
                    traceback.print_exc()
                os._exit(1)
            os.waitpid(child, 0)
        said = (folder / "log.txt").read_text(errors="replace")
        if "number_of_executed_units" not in said:
            raise SystemExit(f"{name}: {said[-2000:]}")
    inputs = sum(map(int, re.findall(r"number_of_executed_units: (\d+)", said)))
    covered = max(map(int, re.findall(r"cov: (\d+)", said)), default=0)
    found = sorted(path.stem for path in (folder / "found").iterdir() if path.suffix in ("", ".txt"))
    return f"| {name} | {inputs:,} | {covered:,} | {'; '.join(found) or 'nothing'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5, help="of each parser")
    parser.add_argument("--only", nargs="*", default=[], help="names of parsers")
    parser.add_argument("--folder", type=Path, default=Path("runs/fuzz"))
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    load()
    import fuzz_cases

    rows = []
    for name in args.only or fuzz_cases.PARSERS:
        rows.append(round_of(name, args.folder.absolute() / name, args.minutes))
        print(rows[-1], flush=True)
    print("\n| parser | inputs | branches | found |\n|---|---|---|---|\n" + "\n".join(rows))
    sys.exit(any("nothing" not in row for row in rows))


if __name__ == "__main__":
    main()
