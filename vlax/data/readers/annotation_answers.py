"""Answers to one question: (what is learned, all references, answer type). A format of `annotations.py` names one of these."""

from vlax.data.readers.annotation_file import File
from vlax.data.readers.values import majority
from vlax.errors import VlaxError
from vlax.rows import RowFault


def one(file: File, where: str, row: dict) -> tuple[str, tuple[str, ...], str]:
    """One answer; the answer type is the question's structure, where the file has it."""
    if row.get("answer") is None:
        reason = f'{where} has no "answer": a test or challenge file has none to learn or to score; {file.shape}'
        raise RowFault(reason, "missing field")
    answer, types = file.text(where, row, "answer"), row.get("types")
    return answer, (answer,), str(types.get("structural") or "other") if isinstance(types, dict) else "other"


def texts(file: File, where: str, row: dict) -> tuple[str, tuple[str, ...], str]:
    """The annotators' answers as texts: the most frequent one is learned, all are references."""
    given = row.get("answers")
    if given is None:
        raise RowFault(f'{where} has no "answers": the test file has none to learn or to score; {file.shape}', "missing field")
    if not isinstance(given, list) or not all(isinstance(answer, str) for answer in given) or not majority(given):
        raise VlaxError(f'{where}: "answers" is {given!r}, not a list of texts; {file.shape}')
    return majority(given), tuple(given), "other"


def annotators(file: File, where: str, row: dict) -> tuple[str, tuple[str, ...], str]:
    """The annotators' answers as objects: `multiple_choice_answer`, or else the most frequent one, is learned."""
    given = file.field(where, row, "answers")
    if not isinstance(given, list) or not all(isinstance(a, dict) and "answer" in a for a in given):
        raise VlaxError(f'{where}: "answers" is not a list of {{"answer": TEXT}}; {file.shape}')
    references = tuple(str(a["answer"]) for a in given)
    answer = str(row.get("multiple_choice_answer") or "").strip() or majority(references)
    if not answer:
        raise RowFault(f"{where} has no answer; give it one or remove its question", "empty text")
    return answer, references, str(row.get("answer_type", "other"))
