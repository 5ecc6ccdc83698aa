"""Every parser of files that others may have written meets mutations of real ones: what vlax itself or a real tool wrote, with
bytes changed, cut, doubled and moved, and JSON with nonsense in one place. What comes out is what the file says, or a VlaxError
of one line; never another exception, never a hang, never a file elsewhere, never memory without bound.

The same examples every time; VLAX_FUZZ=2000 tries that many of each parser, others every time. The long form, which is led by
what the parsers do with what it tries, is `python -m benchmarks.fuzz`.
"""

import io
import os
import resource
import signal
from pathlib import Path

import pytest
from fuzz_cases import NONSENSE, PARSERS, TOKENS, changed, one_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlax.errors import VlaxError
from vlax.text import sandbox

LONG = int(os.environ.get("VLAX_FUZZ", "0"))
SECONDS, MEGABYTES = 60, 1_000  # an example that takes longer hangs; a parser that takes more has no bound

PLACES = st.integers(0, (1 << 20) - 1)  # of the content, by share
BYTES = st.one_of(
    st.tuples(st.just("flip"), PLACES, st.integers(1, 255)),
    st.tuples(st.just("cut"), PLACES, st.integers(1, 200)),
    st.tuples(st.just("end"), PLACES, st.just(0)),
    st.tuples(st.just("double"), PLACES, st.integers(1, 600)),
    st.tuples(st.just("insert"), PLACES, st.sampled_from(TOKENS)),
    st.tuples(st.just("write"), PLACES, st.sampled_from(TOKENS)),
)
VALUES = st.tuples(st.just("value"), PLACES, st.one_of(st.sampled_from(NONSENSE), st.just("remove"), st.just("twice")))
CHANGES = st.lists(st.one_of(BYTES, VALUES, VALUES), min_size=1, max_size=3)


class Hang(BaseException):
    """No Exception: nobody catches it by mistake."""


def hang(*_):
    raise Hang


@pytest.fixture(params=[name for name in PARSERS if LONG or name != "tfds"], scope="module")
def written(request, tmp_path_factory):
    """(parser, its folder, {file: its bytes} of those to be mutated, all files around)."""
    parser, top = PARSERS[request.param], tmp_path_factory.mktemp(request.param)
    folder = top / "given"
    folder.mkdir()
    parser.write(folder)
    files = sorted({file for pattern in parser.files for file in folder.glob(pattern) if file.is_file()})
    assert files, request.param
    return parser, folder, {file: file.read_bytes() for file in files}, below(top)


def below(top: Path) -> set[str]:
    return {str(path) for path in top.rglob("*")}


def test_a_parser_gives_values_or_a_vlax_error(written, monkeypatch):
    parser, folder, contents, there = written
    monkeypatch.setattr(sandbox, "SECONDS", 2)
    sound = parser.read(folder)  # the real files are read
    files = list(contents)
    before, alarm = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, signal.signal(signal.SIGALRM, hang)

    @settings(max_examples=LONG or parser.examples, derandomize=not LONG, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.integers(0, len(files) - 1), CHANGES)
    def meets(number, changes):
        content = contents[files[number]]
        for change in changes:
            content = changed(content, change)
        files[number].write_bytes(content)
        signal.alarm(SECONDS)
        try:
            parser.read(folder)
        except VlaxError as error:
            one_line(error)
        finally:
            signal.alarm(0)
            files[number].write_bytes(contents[files[number]])
        assert below(folder.parent) == there

    try:
        meets()
    finally:
        signal.signal(signal.SIGALRM, alarm)
    assert parser.read(folder) == sound
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES << 10


def test_mutations_are_what_they_say():
    assert changed(b"abcdef", ("cut", 1 << 19, 2)) == b"abcf" and changed(b"abcd", ("end", 1 << 19, 0)) == b"ab"
    assert changed(b"abcd", ("double", 1 << 19, 1)) == b"abccd" and changed(b"abcd", ("write", 1 << 19, b"x")) == b"abxd"
    assert changed(b'{"a": [1, 2]}', ("value", (1 << 20) - 1, None)) == b'{"a": [1, null]}'
    assert changed(b'{"a": 1}\n{"a": 2}', ("value", 0, "remove")) == b'{"a": 2}'
    assert io.BytesIO(changed(b"", ("flip", 5, 1))).read() == b""
