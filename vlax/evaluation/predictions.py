"""predictions.jsonl: append-only, flushed batch by batch, continued by id. Nothing that was decoded is ever thrown away.

    {"run": "0f3a...", "set": "questions", "id": "12?0", "image_id": "12", "question": "is it red?", "prediction": "no",
     "references": ["no", ...], "answer_type": "yes/no", "task": "question", "image": "scene 12"}

`run` identifies what was asked, how it was decoded and the weights: lines of other runs stay in the file and are not counted.
Rows are found by run and id. `set` names the suite that asked first; others that decode alike share its lines.
`prediction` is the text as decoded; what the protocol's post-processing makes of it is done when it is scored.
"""

from collections.abc import Iterable, Mapping, Sequence

from etils import epath

from vlax.errors import VlaxError
from vlax.rows import Row
from vlax.storage import jsonl, state
from vlax.storage.paths import read_file

ID_FIELDS = ("id", "question_id", "questionId", "image_id")
TEXT_FIELDS = ("prediction", "answer", "caption", "text")


def line(run: str, name: str, row: Row, text: str) -> dict:
    """One line of the file."""
    return {
        "run": run, "set": name, "id": row.id, "image_id": row.image_id, "task": row.task, "question": row.turns[0].question,
        "prediction": text, "references": list(row.references), "answer_type": row.answer_type, "image": row.image_name,
    }  # fmt: skip


def read(path: epath.Path, runs: Iterable[str] | None = None) -> dict[tuple[str, str], dict]:
    """{(run, id): line} of the runs asked for (None: all). VlaxError names a line that is no prediction."""
    wanted = None if runs is None else set(runs)
    found = {}
    for where, entry in jsonl.read(path):
        if entry is None or not isinstance(entry.get("run"), str) or "id" not in entry:
            raise VlaxError(f"{where} is no prediction of vlax; move the file away or mend the line")
        if wanted is None or entry["run"] in wanted:
            found[entry["run"], entry["id"]] = entry
    return found


def finished(lines: Sequence[Mapping], suite) -> list[dict]:
    """The lines with the text that is scored in place of the one that was decoded."""
    return [{**entry, "prediction": suite.finish(entry["prediction"])} for entry in lines]


def external(path: str, rows: Sequence[Row], name: str) -> list[dict]:
    """Lines for `rows` from another system's file: JSON lines or a JSON list, one object a row with an id (`ID_FIELDS`) and a
    text (`TEXT_FIELDS`), which the result files of COCO captions and VQA are.

    VlaxError: a file that is no such thing, an id twice, ids missing or unknown, each with counts and the first few.
    """
    entries = _of_set(_entries(path), path, name)
    given: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        key = next((k for k in ID_FIELDS if k in entry), "")
        text = next((k for k in TEXT_FIELDS if k in entry), "")
        if not key or not text or not isinstance(entry[text], str):
            raise VlaxError(
                f"{path}: entry {number} has the fields {', '.join(entry)}; it needs one of {', '.join(ID_FIELDS)} and one of "
                f"{', '.join(TEXT_FIELDS)} (a string)"
            )
        if str(entry[key]) in given:
            raise VlaxError(f"{path}: entry {number}: {key} {entry[key]} occurs twice; give one prediction a row")
        given[str(entry[key])] = entry[text]
    missing = [row.id for row in rows if row.id not in given]
    extra = sorted(set(given) - {row.id for row in rows})
    if missing or extra:
        parts = [f"{len(ids)} ids {what} ({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''})"
                 for ids, what in ((missing, f"of {name} are missing"), (extra, f"are not in {name}")) if ids]  # fmt: skip
        raise VlaxError(f"{path}: {'; '.join(parts)}; every row of the suite needs exactly one prediction")
    return [line("", name, row, given[row.id]) for row in rows]


def _of_set(entries: list[dict], path: str, name: str) -> list[dict]:
    """Of a predictions.jsonl of vlax, the run of one set, or the only one where none goes by its name (a suite that decodes
    alike may have been asked first); VlaxError where there are several."""
    if not all("run" in entry and "set" in entry for entry in entries):
        return entries
    runs = sorted({entry["run"] for entry in entries if entry["set"] == name} or {entry["run"] for entry in entries})
    if len(runs) != 1:
        sets = ", ".join(sorted({entry["set"] for entry in entries}))
        raise VlaxError(
            f"{path} holds {len(runs)} runs of {name} (sets: {sets}); keep the lines of one of them ({', '.join(runs)})"
        )
    return [entry for entry in entries if entry["run"] == runs[0]]


def _entries(path: str) -> list[dict]:
    name, way_out = f"--predictions={path}", "give a JSON list or JSON lines"
    with state.understood(name, way_out):
        content = read_file(epath.Path(path))
    if content.lstrip()[:1] == b"[":
        entries = state.load_json(name, content, way_out)
    else:
        lines = enumerate(content.split(b"\n"), 1)
        entries = [state.load_line(f"{name}: line {number}", line, way_out) for number, line in lines if line.strip()]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise VlaxError(f"--predictions={path} holds no predictions: one object a row is needed")
    return entries
