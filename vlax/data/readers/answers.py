"""What a record of a question or of captions is learned and scored as."""

from collections.abc import Iterable, Iterator, Mapping

from vlax.data.readers import values
from vlax.data.readers.columns import Fields
from vlax.data.readers.item_table import Item
from vlax.rows import RowFault


def question(record: Mapping, fields: Fields) -> str:
    """What a record asks; "" where it asks nothing."""
    return next(iter(values.texts(record.get(fields.question))), "") if fields.question else ""


def asked(
    where: str, record: Mapping, fields: Fields, blank: Item, question: str, letter: bool, listed: bool, shape: str
) -> Item:
    """The Item of a question. letter: of one with choices, its options are asked and the letter of the right one is learned."""
    options = values.choices(record, fields.choices)
    given = record.get(fields.answer) if fields.answer else None
    several = values.texts(given) if isinstance(given, list | tuple | Mapping) else []
    references = values.listed(where, fields.answers, record.get(fields.answers)) if fields.answers else []
    references = references or several
    answer = values.majority(several) if several else values.text(given)
    answer = answer or values.majority(references)
    if options:
        answer = values.chosen(answer, options)
        references = [values.chosen(one, options) for one in references]
        if letter and answer in options:
            question, answer, references = values.lettered(question, options), values.LETTERS[options.index(answer)], []
    if not answer:
        there = ", ".join(map(str, record))
        raise RowFault(f"{where} has no answer; its columns are {there}. {shape}", "missing field")
    kind = values.text(record.get(fields.answer_type)) if fields.answer_type else ""
    kind = kind or ("other" if listed else "yes/no" if answer.lower() in ("yes", "no") else "open")
    return blank._replace(question=question, answer=answer, references=tuple(references) or (answer,), answer_type=kind)


def captioned(
    where: str, record: Mapping, fields: Fields, blank: Item, train: bool, listed: bool, shape: str
) -> tuple[list[Item], int]:
    """(an Item a caption to train on, one with all of them to evaluate on; how many are empty, which cost themselves alone)."""
    value = record.get(fields.text) if fields.text else None
    said = values.texts(value)
    numbered = [(k, caption) for k, caption in enumerate(said) if caption]
    if not numbered:
        what = f': "{fields.text}" is {value!r}, not a text' if fields.text else " has no text (nor a question)"
        raise RowFault(f"{where}{what}; its columns are {', '.join(map(str, record)) or 'none'}. {shape}", "empty text")
    if not train:
        texts = tuple(caption for _, caption in numbered)
        return [blank._replace(answer=texts[0], references=texts)], len(said) - len(texts)
    alone = listed and len(said) == 1
    made = [blank._replace(id=blank.id if alone else f"{blank.id}#{k}", answer=caption) for k, caption in numbered]
    return made, len(said) - len(made)


def one_picture_each(items: Iterable[Item]) -> Iterator[Item]:
    """Captions of one picture (and task) joined: the first row's id and answer, all of their texts as references."""
    joined: dict[tuple, list[Item]] = {}
    for item in items:
        own = (item.id,) if item.question or not item.image_id else (item.image_id, item.task)
        joined.setdefault(own, []).append(item)
    for same in joined.values():
        said = tuple(text for item in same for text in item.references)
        yield same[0] if same[0].question else same[0]._replace(references=said)
