"""What eval.py does without a model: the list of suites, a comparison, answers from a file."""

from collections.abc import Sequence
from pathlib import Path

from vlax.errors import VlaxError
from vlax.evaluation import compare as comparison
from vlax.evaluation import protocol


def list_suites() -> None:
    """The suites that come with vlax, and what they need."""
    for name in protocol.names():
        content = protocol.read(name)
        print(f"{name:<24} {content['about']}")
        print("".join(f"{'':<24}   {line}\n" for line in content.get("files", "").strip().splitlines()), end="")
    print(f"{'custom':<24} your own files: --data=CAPTIONS.json or --data=QUESTIONS.json,ANNOTATIONS.json, and --images=DIR")
    print(f"{'FILE.toml':<24} your own protocol; {protocol.FOLDER} has files to start from")


def compare(directories: Sequence[str], different_protocols: bool) -> None:
    """Prints the paired differences of two evaluations."""
    if len(directories) != 2:
        raise VlaxError(f"--compare takes two directories that eval.py wrote, not {len(directories)}: --compare A B")
    first, second = (comparison.load(directory) for directory in directories)
    print(comparison.text(first, second, comparison.paired(first, second, different_protocols)))


def answer_list(given: Sequence[str]) -> tuple[str, ...]:
    """--answers: the answers themselves, or @FILE with one a line."""
    if len(given) == 1 and given[0].startswith("@"):
        try:
            given = Path(given[0][1:]).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise VlaxError(f"--answers={given[0]} cannot be read ({error})") from None
    return tuple(answer.strip() for answer in given if answer.strip())
