"""The embedded scenes: what they say is fixed, true, and not to be guessed without the picture."""

import collections
import pickle
import re

import numpy as np
import pytest

from vlax.data.embedded import scenes
from vlax.data.embedded.scene_text import PLACES, Question, Scene, Thing, describe, human_captions, questions
from vlax.data.embedded.scenes import RGB, SPLITS, STYLES, SceneSource, render, scene_at
from vlax.errors import VlaxError
from vlax.rows import TASKS

TWO = Scene((Thing("circle", "red", "large", cell=0), Thing("square", "blue", "small", cell=3)))


def rows(split, style, **settings):
    source = SceneSource(split, style, **settings)
    return [source[i] for i in range(len(source))]


def test_literal_rows():
    assert describe(TWO) == "a large red circle at the top left and a small blue square at the bottom right."
    row = SceneSource("test", "ai")[3]
    assert (row.id, row.image_id, row.task) == ("test/3", "scene-test-3", "describe")
    assert row.turns[0].answer == "a small yellow square at the top left and a large blue cross at the top right."
    row = SceneSource("train", "human")[7]
    assert (row.id, row.image_id, row.task) == ("train/1#2", "scene-train-1", "caption")
    row = SceneSource("test", "human")[7]
    assert (row.id, row.turns[0].answer) == ("test/7", "a small green cross")
    row = SceneSource("test", "questions")[1]
    assert (row.id, row.turns[0].question) == ("test/0?1", "is the purple square left of the yellow triangle?")
    assert (row.turns[0].answer, row.answer_type, row.references) == ("no", "yes/no", ("no",) * 10)
    row = SceneSource("train", "text")[3]
    assert (row.id, row.image_id, row.picture, row.task) == ("train/t3", "", None, "describe")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_well_formed_and_reproducible(split, style):
    first, again = rows(split, style, size=60), rows(split, style, size=60)
    assert [(r.id, r.turns, r.references) for r in first] == [(r.id, r.turns, r.references) for r in again]
    assert len({r.id for r in first}) == len(first)
    assert {r.task for r in first} <= set(TASKS)
    assert all(r.turns[0].answer.islower() or r.turns[0].answer.isdigit() for r in first)
    other = rows(split, style, size=60, seed=1)
    assert [r.turns for r in first] != [r.turns for r in other]
    if style != "text":
        assert not {r.image_id for r in first} & {r.image_id for r in other}


def test_sizes_references_and_row_order():
    assert [len(SceneSource(split, "ai")) for split in SPLITS] == [6000, 300, 300]
    assert len(SceneSource("train", "human", size=10)) == 50
    assert len(SceneSource("val", "human", size=10)) == 10
    assert len(SceneSource("val", "questions", size=10)) == 50
    assert all(len(r.references) == 5 and r.references[0] == r.turns[0].answer for r in rows("val", "human", size=20))
    with pytest.raises(IndexError):
        SceneSource("val", "ai", size=10)[10]


def test_no_arrangement_is_in_two_splits():
    seen = {split: {describe(scene_at(split, i)) for i in range(400)} for split in SPLITS}
    assert not seen["train"] & seen["val"] and not seen["train"] & seen["test"] and not seen["val"] & seen["test"]


def test_things_are_distinct_and_fit_their_cells():
    for i in range(300):
        things = scene_at("train", i).things
        assert len({t.name for t in things}) == len({t.cell for t in things}) == len(things) in (1, 2, 3)
        for t in things:
            for centre, side in ((t.x, t.cell % 2), (t.y, t.cell // 2)):
                assert side / 2 <= centre - t.extent / 2 and centre + t.extent / 2 <= side / 2 + 0.5


@pytest.mark.parametrize("pixels", [32, 64, 128])
def test_render_shows_each_thing_where_the_scene_says(pixels):
    for i in range(40):
        scene = scene_at("test", i)
        picture = render(scene, pixels)
        assert (picture.mode, picture.size) == ("RGB", (pixels, pixels))
        values = np.asarray(picture).astype(int)
        assert values[0, 0].min() > 190  # the background is light
        for t in scene.things:  # every shape covers its centre
            at = values[int(t.y * pixels), int(t.x * pixels)]
            nearest = min(RGB, key=lambda name: np.abs(at - RGB[name]).sum())
            assert nearest == t.colour


def test_pictures_are_the_same_each_time_and_survive_pickling():
    row = SceneSource("train", "ai")[5]
    again = pickle.loads(pickle.dumps(SceneSource("train", "ai")))[5]
    assert row.picture.open().size == (64, 64)
    assert row.picture.open().tobytes() == again.picture.open().tobytes()
    backgrounds = {np.asarray(render(scene_at("train", i), 32))[0, 0].tobytes() for i in range(20)}
    assert len(backgrounds) > 15


def true_answer(scene, question):
    """The answer worked out from the scene, from the words of the question alone."""
    by_name = {t.name: t for t in scene.things}
    if m := re.fullmatch(r"is there a (\w+ \w+)\?", question):
        return "yes" if m[1] in by_name else "no"
    if m := re.fullmatch(r"is the (\w+ \w+) (large|small)\?", question):
        return "yes" if by_name[m[1]].size == m[2] else "no"
    if m := re.fullmatch(r"is the (\w+ \w+) (left of|right of|above|below) the (\w+ \w+)\?", question):
        a, b = by_name[m[1]], by_name[m[3]]
        holds = {"left of": a.x < b.x, "right of": a.x > b.x, "above": a.y < b.y, "below": a.y > b.y}
        return "yes" if holds[m[2]] else "no"
    if m := re.fullmatch(r"how many (?:(large|small) )?objects are there\?", question):
        return str(sum(m[1] in (None, t.size) for t in scene.things))
    if m := re.fullmatch(r"what size is the (\w+ \w+)\?", question):
        return by_name[m[1]].size
    m = re.fullmatch(r"what (colour|shape) is (?:the object )?(?:at )?the (\w+ \w+|\w+)\?", question)
    key = m[2].removesuffix(" object")
    (found,) = [t for t in scene.things if key in (PLACES[t.cell], t.shape, t.colour)]
    return getattr(found, m[1])


def test_answers_are_true():
    for split in ("train", "test"):
        for row in rows(split, "questions", size=200):
            scene = scene_at(split, int(row.image_id.split("-")[2]))
            assert row.turns[0].answer == true_answer(scene, row.turns[0].question), row


def test_the_question_string_says_little_about_the_answer():
    train, test = rows("train", "questions"), rows("test", "questions")
    counts = collections.defaultdict(collections.Counter)
    for row in train:
        counts[row.turns[0].question][row.turns[0].answer] += 1
    guesses = [counts[r.turns[0].question].most_common(1) for r in test]
    right = sum(bool(g) and g[0][0] == r.turns[0].answer for g, r in zip(guesses, test, strict=True))
    assert right / len(test) < 0.4
    said = collections.Counter(r.turns[0].answer for r in train if r.answer_type == "yes/no")
    assert set(said) == {"yes", "no"} and abs(said["yes"] / said.total() - 0.5) < 0.02
    kinds = collections.Counter(r.answer_type for r in test)
    assert kinds == {"yes/no": 600, "number": 300, "other": 600}
    for question, answers in counts.items():
        if question.startswith("is there") and answers.total() >= 100:
            assert abs(answers["yes"] / answers.total() - 0.5) < 0.2


def test_human_captions_vary_but_have_a_typical_form():
    said = [r.turns[0].answer for r in rows("train", "human", size=1000)]
    words = collections.Counter(word for caption in said for word in caption.split())
    assert 40 < len(words) < 150
    assert words["circle"] > 2 * words["ball"] > 0 and words["big"] > words["large"] > 0 and words["something"] > 0
    complete = {describe(TWO), "a red circle and a blue square"}
    captions = [c for i in range(100) for c in human_captions(TWO, np.random.default_rng(i))]
    assert len(set(captions)) > 80 and describe(TWO) not in captions
    assert complete & set(c for c, _ in collections.Counter(captions).most_common(3))


def test_questions_of_one_scene_differ():
    for i in range(100):
        asked = questions(scene_at("val", i), np.random.default_rng(i))
        assert len({q.text for q in asked}) == 5 and isinstance(asked[0], Question)


def test_text_rows_are_paragraphs_about_scenes_of_their_own():
    text = rows("train", "text", size=400)
    for row in text:
        assert collections.Counter(turn.task for turn in row.turns) == {"describe": 1, "caption": 1, "question": 4}
    first = sum(row.turns[0].task == "describe" for row in text)
    assert 290 < first < 380  # three in four, and one in six of the rest
    pictured = {r.turns[0].answer for r in rows("train", "ai", size=400)}
    same = sum(turn.answer in pictured for row in text for turn in row.turns if turn.task == "describe")
    assert same < 200  # one-thing scenes recur by chance


def test_a_dialogue_asks_all_questions_of_its_scene():
    dialogue, single = SceneSource("train", "dialogue")[4], [SceneSource("train", "questions")[i] for i in range(20, 25)]
    assert dialogue.turns != tuple(row.turns[0] for row in single)  # in an order of its own
    assert set(dialogue.turns) == {row.turns[0] for row in single}
    assert dialogue.image_id == single[0].image_id and dialogue.task == "question"


def test_fingerprint_follows_settings_and_drawing(monkeypatch):
    base = SceneSource("train", "ai").fingerprint
    assert base == SceneSource("train", "ai").fingerprint and re.fullmatch("[0-9a-f]{64}", base)
    others = [SceneSource("train", "ai", seed=1), SceneSource("train", "ai", size=7), SceneSource("train", "human")]
    assert len({base, *(s.fingerprint for s in others)}) == 4
    monkeypatch.setattr(scenes, "DRAWING", scenes.DRAWING + 1)
    assert SceneSource("train", "ai").fingerprint != base


def test_errors_name_the_valid_choices():
    with pytest.raises(VlaxError, match="no split 'dev'; the splits are train, val, test"):
        SceneSource("dev", "ai")
    with pytest.raises(VlaxError, match="no style 'alt'; the styles are ai, human, questions, dialogue, text"):
        SceneSource("train", "alt")
    with pytest.raises(VlaxError, match="size 0"):
        SceneSource("train", "ai", size=0)
