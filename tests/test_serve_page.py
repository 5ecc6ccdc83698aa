"""The page of `vlax serve` in a browser: a picture, questions, where a word looked, two models, a phone, what goes wrong."""

import json
import shutil

import pytest
from PIL import Image
from report_cases import Browser
from serve_cases import model, picture, serving, uri

from vlax.decoding.predict import Predictor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    picture(1, (24, 16)).save(folder / "one.png")
    picture(2).save(folder / "two.png")
    (folder / "none.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def served():
    sample = {"picture": uri(picture(3)), "width": 8, "height": 8, "pixels": True, "question": "<b>it</b>?", "said": "<i>",
              "references": ["no"], "set": "s"}  # fmt: skip
    models = [("runs/a/stage4/export", model()), ("runs/b/stage4/export", model(8, layers=2))]
    with serving(models, {"a/stage4": [sample]}) as made:
        yield made


@pytest.fixture
def page(served, tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no chromium on the path (Debian: apt install chromium)")
    with Browser(chromium, tmp_path_factory.mktemp("chromium")) as browser:
        browser.screen(1280, 900)
        browser.open(f"{served[0]}/")
        yield browser
        complaints = [e for e in browser.events if e["method"] == "Runtime.exceptionThrown"]
        asked = {e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"}
        assert not complaints and all(url.startswith((served[0], "data:", "about:")) for url in asked), (complaints, asked)


def show(page, path):
    root = page.order("DOM.getDocument")["root"]["nodeId"]
    node = page.order("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.order("DOM.setFileInputFiles", files=[str(path)], nodeId=node)


def ask(page, text):
    page.eval(f"byId('text').value = {json.dumps(text)}; byId('text').focus()")
    turns = len(page.texts(".turn"))
    page.key("Enter", 13)
    page.wait(f"document.querySelectorAll('.turn').length === {turns + 1} && state.running.size === 0")


def said(page):
    """The texts of the last turn's answers, as they stand there."""
    last = "[...document.querySelectorAll('.turn')].at(-1)"
    return page.eval(f"[...{last}.querySelectorAll('.said')].map((node) => node.textContent)")


def painted(page, at=0):
    """Whether a picture's canvas shows something."""
    code = f"document.querySelectorAll('.stage')[{at}]"
    pixels = f"{code}.querySelector('canvas').getContext('2d').getImageData(0, 0, 9, 9).data"
    return page.eval(f"{code}.classList.contains('attending') && {pixels}.some(Boolean)")


def test_a_picture_a_question_and_where_a_word_looked(page, files):
    page.eval("choose(['a/stage4'])")
    show(page, files / "one.png")
    page.wait("document.querySelectorAll('.stage').length === 1")
    assert page.texts("#picture-facts") == ["one.png · 24 × 16"]
    ask(page, "it?")
    answer = model().answer(Image.open(files / "one.png"), "it?", max_new_tokens=6, batch_size=4)
    assert page.eval("state.turns[0].answers[0].text") == answer
    tokens = page.eval("state.turns[0].answers[0].tokens.tokens")
    assert not painted(page)
    page.eval("document.querySelector('.token').focus()")
    page.key("ArrowRight", 39)
    assert page.eval("document.activeElement.textContent").strip() == (tokens[1]["text"].strip() or "…")
    assert painted(page) and page.texts(".legend .word") == [tokens[1]["text"].strip() or "space"]
    assert len(page.texts(".option")) == 6 and page.texts(".option.taken")[0].endswith("%")
    page.key("Enter", 13)
    page.eval("document.activeElement.blur()")
    assert painted(page) and page.eval("document.querySelectorAll('.token[aria-pressed=true]').length") == 1
    page.key("Escape", 27)
    assert not painted(page)
    # another picture begins anew
    show(page, files / "two.png")
    page.wait("document.querySelectorAll('.turn').length === 0 && byId('picture-facts').textContent.startsWith('two.png')")


def test_two_models_and_settings(page, files):
    assert page.eval("state.chosen") == ["a/stage4", "b/stage4"]
    show(page, files / "two.png")
    page.wait("document.querySelectorAll('.stage').length === 2")
    ask(page, "it?")
    first = page.eval("state.turns[0].answers.map((one) => one.text)")
    options = {"max_new_tokens": 6, "batch_size": 4}
    assert first == [model().answer(picture(2), "it?", **options), model(8, layers=2).answer(picture(2), "it?", **options)]
    page.eval("document.querySelectorAll('.answer')[1].querySelector('.token').click()")
    assert painted(page, 1) and not painted(page, 0)
    page.eval("byId('beams').value = 2; byId('mask').value = 'causal'; byId('form').dispatchEvent(new Event('input'))")
    assert page.texts("#changed") == ["causal · 2 beams"] and page.eval("byId('temperature').disabled")
    page.eval("document.querySelector('.turn .link').click()")
    page.wait("state.turns.length === 2 && state.running.size === 0")
    assert all("causal · 2 beams" in text for text in page.texts(".turn:last-child .meta")), page.texts(".meta")
    # earlier turns go along where that is wanted, each model's own
    sent = page.eval("(byId('remember').checked = true, state.turns.map((turn) => messages(turn, 1)))")
    assert [len(messages) for messages in sent] == [1, 3]
    assert (
        sent[1][1]["content"] == first[1]
        and sent[1][0]["content"][0]["type"] == "image_url"
        and len(sent[1][2]["content"]) == 1
    )


def test_samples_words_are_never_markup(page):
    page.wait("document.querySelector('#strip button') !== null")
    page.eval("document.querySelector('#strip button').click()")
    page.wait("document.querySelectorAll('.stage').length === 2")
    assert page.eval("byId('text').value") == "<b>it</b>?"
    assert page.texts("#sample-facts") == ["In the evaluation, “<b>it</b>?”: the model said “<i>”; references: no"]
    ask(page, "<b>it</b>?")
    assert page.texts(".question") == ["<b>it</b>?"] and page.eval("document.querySelectorAll('main b, main i').length") == 0


def test_a_phone_scrolls_one_way(page, files):
    page.screen(390, 844, phone=True)
    show(page, files / "one.png")
    page.wait("document.querySelectorAll('.stage').length === 2")
    ask(page, "it? " * 40)
    page.eval("byId('settings').open = true; document.querySelector('.token').click()")
    assert painted(page) and page.eval("document.documentElement.scrollWidth") == 390
    buttons = "[...document.querySelectorAll('button, select, summary')].filter((node) => node.offsetParent)"
    assert page.eval(f"{buttons}.filter((node) => node.offsetHeight < 24).map((node) => node.outerHTML)") == []


def test_what_goes_wrong_is_said(page, files, monkeypatch):
    show(page, files / "none.png")
    page.wait("!byId('notice').hidden")
    assert "This browser cannot show none.png" in page.texts("#notice")[0]
    show(page, files / "two.png")
    page.wait("document.querySelectorAll('.stage').length === 2 && byId('notice').hidden")

    def broken(*args):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "place", broken)
        ask(page, "it?")
    assert page.texts(".fault") == ["RuntimeError: out of memory"] * 2
    ask(page, "it?")
    assert len(page.texts(".fault")) == 2 and all(said(page))
