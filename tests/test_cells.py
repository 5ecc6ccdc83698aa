"""The embedded slides: fixed, legible by pixel statistics, and not to be answered without the picture."""

import collections
import pickle

import numpy as np
import pytest

from vlax.data.embedded.cells import FINDINGS, CellSource, Slide, render, slide_at
from vlax.errors import VlaxError


def rows(split, **settings):
    source = CellSource(split, **settings)
    return [source[i] for i in range(len(source))]


def test_literal_rows():
    assert slide_at("train", 0) == Slide("lymphocytes", "clustered", "gland", 1, slide_at("train", 0).layout)
    row = CellSource("test")[1]
    assert (row.id, row.image_id, row.task, len(row.references)) == ("test/0?1", "cell-test-0", "question", 10)


def test_rows_are_reproducible_and_unique():
    first, again = rows("val", size=50), rows("val", size=50)
    assert [(r.id, r.turns) for r in first] == [(r.id, r.turns) for r in again]
    assert len({r.id for r in first}) == 150 == len(CellSource("val", size=50))
    assert [len(CellSource(s)) for s in ("train", "val", "test")] == [4500, 600, 600]
    layouts = [slide_at(split, i).layout for split in ("train", "val", "test") for i in range(200)]
    assert len(set(layouts)) == 600
    again = pickle.loads(pickle.dumps(CellSource("val")))
    assert again[0].picture.open().tobytes() == first[0].picture.open().tobytes()


def true_answer(slide, question):
    facts = {slide.kind, slide.arrangement, slide.finding}
    opens = {
        "what is seen in the image?": slide.finding,
        "what does the image show?": slide.finding,
        "what kind of cells predominate?": slide.kind,
        "how many nuclei are enlarged?": str(slide.enlarged),
        "how are the cells arranged?": slide.arrangement,
    }
    return opens.get(question) or ("yes" if any(fact in question for fact in facts) else "no")


def test_answers_are_true_and_questions_differ():
    by_image = collections.defaultdict(set)
    for row in rows("train", size=300):
        slide = slide_at("train", int(row.image_id.split("-")[2]))
        assert row.turns[0].answer == true_answer(slide, row.turns[0].question), row
        by_image[row.image_id].add(row.turns[0].question)
    assert all(len(asked) == 3 for asked in by_image.values())


def test_the_question_string_says_little_about_the_answer():
    counts = collections.defaultdict(collections.Counter)
    for row in rows("train"):
        counts[row.turns[0].question][row.turns[0].answer] += 1
    test = rows("test")
    right = sum(counts[r.turns[0].question].most_common(1)[0][0] == r.turns[0].answer for r in test)
    assert right / len(test) < 0.48
    kinds = collections.Counter(r.answer_type for r in test)
    assert set(kinds) == {"yes/no", "number", "other"} and kinds["yes/no"] > len(test) / 3
    yes = sum(r.turns[0].answer == "yes" for r in test) / kinds["yes/no"]
    assert 0.42 < yes < 0.58


def share(picture, test):
    """The share of pixels whose (red, green, blue) pass a test."""
    red, green, blue = np.moveaxis(np.asarray(picture).astype(int), -1, 0)
    return float(np.mean(test(red, green, blue)))


@pytest.mark.parametrize("pixels", [32, 128])
def test_findings_show_in_the_pixels(pixels):
    marks = {
        "gland": lambda r, g, b: (r > 240) & (g > 235) & (b > 240),
        "vessel": lambda r, g, b: (r > 180) & (g < 90) & (b < 110),
        "necrosis": lambda r, g, b: (b < 170) & (r > 200) & (g > 190),
    }
    for finding in FINDINGS:
        for layout in range(4):
            picture = render(Slide("round cells", "scattered", finding, 1, layout), pixels)
            assert (picture.mode, picture.size) == ("RGB", (pixels, pixels))
            shown = {mark: share(picture, test) for mark, test in marks.items()}
            for mark, amount in shown.items():
                assert (amount > 0.015) == (mark == finding), (finding, layout, shown)


def test_enlarged_nuclei_show_in_the_pixels():
    def pale_purple(r, g, b):
        return (abs(r - 150) < 12) & (abs(g - 104) < 12) & (abs(b - 182) < 12)

    for layout in range(6):
        amounts = [share(render(Slide("lymphocytes", "scattered", "vessel", n, layout)), pale_purple) for n in range(4)]
        assert amounts == sorted(amounts) and amounts[3] > 2 * amounts[1] > 0.02


def test_settings_change_the_rows_and_the_fingerprint():
    sources = [CellSource("train"), CellSource("train", seed=1), CellSource("train", size=9), CellSource("val")]
    assert len({s.fingerprint for s in sources}) == 4
    assert CellSource("train").fingerprint == sources[0].fingerprint
    with pytest.raises(VlaxError, match="cells: there is no split 'dev'"):
        CellSource("dev")
