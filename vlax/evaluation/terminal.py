"""What eval.py does without a model: the list of suites, a comparison, answers from a file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vlax.errors import VlaxError
from vlax.evaluation import compare as comparison
from vlax.evaluation import runner, samples
from vlax.evaluation.runner import Evaluation
from vlax.printing import in_colour
from vlax.suites import files


def list_suites() -> None:
    """The suites that come with vlax, and what they need."""
    for name in files.names():
        content = files.read(name)
        print(f"{name:<24} {content['about']}")
        print("".join(f"{'':<24}   {line}\n" for line in content.get("files", "").strip().splitlines()), end="")
    print(f"{'custom':<24} your own files: --data=CAPTIONS.json or --data=QUESTIONS.json,ANNOTATIONS.json, and --images=DIR")
    print(f"{'FILE.toml':<24} your own protocol; {files.FOLDER} has files to start from")


def compare(directories: Sequence[str], different_protocols: bool, report_samples: int) -> None:
    """--compare OLD NEW: prints what NEW has over OLD, paired, and writes compare.html with both side by side into NEW."""
    if len(directories) != 2:
        raise VlaxError(f"--compare takes two directories that eval.py wrote, not {len(directories)}: --compare OLD NEW")
    old, new = (comparison.load(directory) for directory in directories)
    pairs = comparison.paired(new, old, different_protocols)
    print(comparison.text(new, old, pairs, in_colour()))
    if report_samples:
        root = new.scores["where"]["data_root"]
        sets = runner.open_sets([comparison.suite_of(new, name) for name in pairs], root)
        kept = {test.name: {line["id"] for line in new.lines[test.name]} for test in sets}
        sets = [dataclasses.replace(test, rows=[row for row in test.rows if row.id in kept[test.name]]) for test in sets]
        mine = Evaluation(new.title, new.directory, sets, new.lines, {}, {}, scores=dict(new.scores))
        scored = {name: {"model": pair.ours} for name, pair in pairs.items()}
        samples.report(mine, None, scored, report_samples, old, pairs, "compare.html")
        print(f"compare.html is in {new.directory}")


def answer_list(given: Sequence[str]) -> tuple[str, ...]:
    """--answers: the answers themselves, or @FILE with one a line."""
    if len(given) == 1 and given[0].startswith("@"):
        try:
            given = Path(given[0][1:]).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise VlaxError(f"--answers={given[0]} cannot be read ({error})") from None
    return tuple(answer.strip() for answer in given if answer.strip())
