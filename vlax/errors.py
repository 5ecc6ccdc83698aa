"""The one exception for a user's mistake, and the one place that shows its text: a line, without a stack trace."""

import contextlib
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator


class VlaxError(Exception):
    """Something that its user can mend. The message names the thing and the way out. `code` is the program's exit code."""

    code = 2


@contextlib.contextmanager
def spared(what: str) -> Iterator[None]:
    """What fails within is a warning: no picture is worth a run, and what it was drawn from is on disk."""
    try:
        yield
    except Exception as error:  # matplotlib, fonts and full disks raise all kinds
        logging.warning("WARNING: %s was not made (%s: %s); all else goes on", what, type(error).__name__, error)


def guard(main: Callable[[], int | None]) -> int:
    """The exit code of a program: the error's and one line for a VlaxError, 0 when the reader of our output has seen enough, 1
    and two lines for what nobody foresaw, whose stack trace goes to a file."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would announce that there is no torch, which is as meant
    try:
        return main() or 0
    except VlaxError as error:
        sys.stdout.flush()
        print(f"vlax: error: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:  # head, less
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        sys.stdout.flush()
        with tempfile.NamedTemporaryFile("w", prefix="vlax-error-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
        said = (str(error).strip().splitlines() or [""])[0][:500]
        print(f"vlax: error: {type(error).__name__}: {said}", file=sys.stderr)
        print(f"Nobody foresaw this. {file.name} says where it happened: please report it", file=sys.stderr)
        return 1
