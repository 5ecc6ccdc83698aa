"""The report: one safe file, and what a browser makes of it."""

import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from report_cases import HOSTILE, Browser, small_report, spot

from vlax.errors import VlaxError
from vlax.evaluation.report.grades import CORRECT, PARTLY, WRONG
from vlax.evaluation.report.pack import LONGEST, Pictures, pack_attention
from vlax.evaluation.report.page import embedded_json
from vlax.evaluation.report.report import ReportSample, write_report


class Page(html.parser.HTMLParser):
    """The start tags of a page, and what its scripts and styles hold."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.held, self.text = [], [], text
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] in ("script", "style") and data.strip():
            self.held.append((*self.tags[-1], data))

    def data(self):
        return json.loads(next(data for tag, attrs, data in self.held if attrs.get("id") == "data"))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    write_report(path, **small_report())
    return path


@pytest.fixture(scope="module")
def page(path):
    return Page(path.read_text(encoding="utf-8"))


def test_one_file_that_may_load_nothing(page):
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    (style,) = [data for tag, _, data in page.held if tag == "style"]
    (script,) = [data for tag, attrs, data in page.held if tag == "script" and not attrs]
    for rule, text in (("style-src", style), ("script-src", script)):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    links = {(tag, key, value) for tag, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "action")}
    assert all(value.startswith(("#", "data:")) for *_, value in links), links
    outside = re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page.text)
    assert not re.findall(r"https?://|@import|url\(", outside)


def test_words_of_a_model_are_never_markup(page):
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not [attrs for tag, attrs in page.tags if tag == "img" or any(key.startswith("on") for key in attrs)]
    assert "<!-- " not in page.text and "Stage &lt;4&gt;" in page.text and "Stage <4>" not in page.text
    sample = page.data()["samples"][7]
    assert [sample[key] for key in ("prompt", "prediction", "type", "twin")] == [HOSTILE] * 4
    assert embedded_json({"a": "</script><!--"}) == '{"a":"\\u003c/script>\\u003c!--"}'


def test_data_of_the_page(page):
    data = page.data()
    captions, questions = data["sets"]
    assert (captions["name"], captions["rows"], captions["headline"], captions["verdict"]) == ("captions", 300, "CIDEr", False)
    assert (questions["headline"], questions["verdict"]) == ("accuracy", True)
    assert captions["metrics"][0] == {
        "name": "CIDEr", "formula": "ten times a cosine", "score": 3.5, "twin": 1.0, "prior": 3.4, "interval": [3.5, 3.2, 3.8],
        "over_twin": [2.5, 2.0, 3.0], "over_prior": [0.1, -0.2, 0.4], "other": 3.4, "over_other": [0.1, -0.2, 0.4],
    }  # fmt: skip
    assert captions["metrics"][1]["interval"] is None and captions["metrics"][1]["other"] is None
    assert len(data["pictures"]) == 3 and [s.get("picture") for s in data["samples"][:8]] == [0, 1, 2, 0, 1, 2, 0, None]
    # Thirds for captions, right and wrong for questions.
    assert [s["grade"] for s in data["samples"]] == [WRONG] * 10 + [PARTLY] * 10 + [CORRECT] * 10 + [CORRECT, WRONG]


def one(scores, **changes):
    return ReportSample("a", changes.pop("id", "1"), None, "", "", (), "", scores, **changes)


@pytest.mark.parametrize(
    ("metric", "scores", "grades"),
    [
        ("accuracy", (0.0, 0.3, 1.0, 0.9999999999), [WRONG, PARTLY, CORRECT, CORRECT]),
        ("CIDEr", (0.0, 0.5, 1.0), [WRONG, PARTLY, CORRECT]),
        ("CIDEr", (2.0, 2.0, 2.0), [PARTLY] * 3),
        ("CIDEr", (0.0, 0.0, 0.0, 0.0, 9.0), [PARTLY] * 4 + [CORRECT]),
        ("log likelihood", (-3.0, -2.0, -1.0), [WRONG, PARTLY, CORRECT]),
    ],
)
def test_grades(tmp_path, metric, scores, grades):
    samples = [one({metric: score}, id=str(i)) for i, score in enumerate(scores)]
    rest = {"title": "t", "subtitle": "", "formulas": {}, "protocol": {}}
    write_report(tmp_path / "r.html", sets={"a": {metric: {"score": float("nan")}}}, samples=samples, **rest)
    data = Page((tmp_path / "r.html").read_text()).data()
    assert [sample["grade"] for sample in data["samples"]] == grades
    assert data["sets"][0]["metrics"][0]["score"] is None


def test_a_sample_is_graded_among_all_rows_of_its_set(tmp_path):
    """The report shows a few of the rows: the best of these need not be good."""
    samples = [one({"CIDEr": score}, id=str(score)) for score in (0.0, 0.2, 0.4)]
    rest = {"title": "t", "subtitle": "", "formulas": {}, "protocol": {}, "sets": {"a": {"CIDEr": {"score": 5.0}}}}
    values = {"a": {str(i): float(i) for i in range(1, 10)}}
    write_report(tmp_path / "r.html", samples=samples, values=values, **rest)
    assert [sample["grade"] for sample in Page((tmp_path / "r.html").read_text()).data()["samples"]] == [WRONG] * 3


def test_pictures_are_small_and_each_is_there_once():
    pictures = Pictures()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
    large = Image.new("RGB", (1000, 400), "green")
    assert [pictures.add(p) for p in (noise, large, noise.copy(), large.convert("RGBA"), Image.new("LA", (5, 9)))] == [
        0,
        1,
        0,
        1,
        2,
    ]
    small, photo, clear = pictures.packed
    assert (small["width"], small["height"], small["pixels"]) == (48, 32, True)
    assert np.array_equal(opened(small), np.asarray(noise)), "small pictures are lossless"
    assert (photo["width"], photo["height"], photo["pixels"]) == (LONGEST, 134, False) and photo["uri"][
        :16
    ] == "data:image/jpeg;"
    assert opened(photo).shape == (134, LONGEST, 3) and large.size == (1000, 400)
    assert (opened(clear) == 255).all(), "transparent is white"


def opened(picture):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["uri"].split(",")[1]))))


def test_attention_in_bytes():
    grid = np.array([[0.0, 2.0, 1.0], [0.5, 0.0, 0.5]])
    packed = pack_attention((("a", grid), ("b", np.zeros((2, 3)))), "row")
    assert packed == {
        "tokens": ["a", "b"], "height": 2, "width": 3, "peaks": [0.5, 0.0],
        "data": base64.b64encode(bytes([0, 255, 128, 64, 0, 64] + [0] * 6)).decode(),
    }  # fmt: skip
    assert pack_attention((), "row") is None


@pytest.mark.parametrize(
    ("sets", "samples", "message"),
    [
        ({}, [], "needs a set of scores"),
        ({"a": {"rows": 1}}, [], "set 'a' has no metric"),
        (
            {"b": {"x": {"score": 1}}},
            [one({"x": 1.0})],
            "sample '1' of set 'a': there are no scores of that set; the sets are 'b'",
        ),
        ({"a": {"x": {"score": 1}}}, [one({"x": 1.0})] * 2, "sample '1' of set 'a' is there twice"),
        ({"a": {"x": {"score": 1}}}, [one({})], "sample '1' of set 'a' has no score"),
        ({"a": {"x": {"score": 1}}}, [one({"x": 1.0}, twin_score=float("nan"))], "must be finite; got {'twin_score': nan}"),
        ({"a": {"x": {"score": 1}}}, [one({"x": 1.0}, attention=(("t", -spot(0, 0)),))], "'1' of set 'a': .*not negative"),
        (
            {"a": {"x": {"score": 1}}},
            [one({"x": 1.0}, attention=(("t", spot(0, 0)), ("u", np.ones((2, 2)))))],
            r"\(2, 2\), \(4, 4\)",
        ),
        ({"a": {"x": {"score": 1}}}, [one({"x": 1.0}, attention=(("t", np.ones(4)),))], r"one grid \[h, w\]"),
    ],
)
def test_errors_name_the_sample(tmp_path, sets, samples, message):
    with pytest.raises(VlaxError, match=message):
        write_report(tmp_path / "r.html", title="", subtitle="", sets=sets, formulas={}, protocol={}, samples=samples)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no chromium on the path (Debian: apt install chromium)")
    with Browser(chromium, tmp_path_factory.mktemp("chromium")) as browser:
        browser.screen(1280, 900)
        yield browser


def ids(browser):
    return browser.texts(".card .id")


def test_page_in_a_browser(browser, path):
    browser.open(f"{path.as_uri()}#")
    assert browser.eval("document.documentElement.dataset.errors") == "0"
    assert browser.eval("document.title") == "Stage <4> · vlax report"
    assert ids(browser) == [f"row/{i}" for i in range(24)] and browser.texts("#count b") == ["24 of 32"]
    assert browser.texts(".note")[1:] == [
        "Run B was made under another protocol (91aa03fe of captions; 2 settings differ), so differences between the "
        "runs are not differences between the models alone.",
        "A note.",
    ]
    assert browser.texts("#hash") == ["protocols eef7b522 of captions, 0c0c0c0c of questions"]
    assert browser.texts("#about tr") == [
        "Run ARun B", "modelruns/a/stage4/exportruns/b/stage4/export", "picture size32 x 32 pixels32 x 32 pixels",
    ]  # fmt: skip
    assert browser.texts(".panel .big") == ["3.500[3.200, 3.800]", "0.500"]
    captions = browser.texts("figcaption")
    assert [c[: c.index("Run")] for c in captions] == ["CIDEr of the 30 samples below", "accuracy by sample"]
    assert browser.texts(".panel .over") == [
        "A − twin ▲+2.500 [2.000, 3.000]", "A − prior ≈+0.100 [−0.200, 0.400]", "A − B ≈+0.100 [−0.200, 0.400]",
    ]  # fmt: skip
    rows = browser.texts("table.metrics tr:not(.opened)")
    assert rows[3] == "Bleu_40.750–––––––" and "ten times a cosine" in browser.texts("tr.opened")[0]
    hostile = ".card:nth-child(8) "
    assert browser.texts(f"{hostile} .prompt, {hostile} .own .text, {hostile} li") == [HOSTILE] * 3
    assert browser.texts(f"{hostile} .twin .text") == [f"{HOSTILE}same"]
    browser.eval("document.querySelector('#more button').click()")
    assert len(ids(browser)) == 32 and browser.texts("#more button") == []
    assert browser.texts(".card:nth-child(31) .truth li") == ["red ball ×8", "ball ×2"]
    assert browser.texts(".card:nth-child(32) .own .empty") == ["empty"]


def test_view_in_the_address(browser, path):
    browser.open(f"{path.as_uri()}#q=dog+number&sort=best&theme=dark")
    assert ids(browser) == ["row/23", "row/13", "row/3"] and browser.texts("#count b") == ["3 of 3"]
    assert browser.texts("#count")[0].endswith(" · mean CIDEr of these 3: 13.00, blind twin 10.00")
    assert browser.eval("getComputedStyle(document.body).colorScheme") == "dark"
    assert browser.eval("document.querySelector('#q').value") == "dog number"
    browser.open(f"{path.as_uri()}#set=captions&grade=wrong&sort=twin&change=worse")
    # i % 3 - 1 is this run's lead, so every third one is worse; the twin has 10 throughout.
    assert ids(browser) == ["row/0", "row/3", "row/6", "row/9"]
    assert browser.texts("#grade label") == ["All10", "High3", "Middle3", "Low4"]
    browser.open(f"{path.as_uri()}#sort=worst&type=nonsense&grade=nonsense")
    assert ids(browser)[:5] == ["row/0", "q2", "row/1", "q1", "row/2"], "sets take turns; unknown values are ignored"
    browser.eval("document.querySelector('#grade input[value=correct]').click()")
    assert browser.eval("location.hash") == "#sort=worst&grade=correct" and ids(browser)[:2] == ["row/20", "q1"]
    browser.open(f"{path.as_uri()}#set=captions")
    assert browser.texts("#count")[0].startswith("24 of 30 samples that match, 32 in all · mean CIDEr of all 30: 14.50")
    browser.open(f"{path.as_uri()}#q=nowhere")
    assert browser.texts("#cards > *") == ["No sample matches these filters."]
    browser.eval("document.querySelector('#clear').click()")
    assert len(ids(browser)) == 24


def bright(browser):
    """Where the overlay is brightest; None while it is hidden."""
    return browser.eval("""(() => {
      const stage = document.querySelector('.stage'), canvas = stage.querySelector('canvas');
      if (!stage.classList.contains('attending')) return null;
      const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      let best = 0;
      for (let i = 0; i < pixels.length; i += 4) if (pixels[i] + pixels[i + 1] > pixels[best] + pixels[best + 1]) best = i;
      const [x, y] = [best / 4 % canvas.width / canvas.width, best / 4 / canvas.width / canvas.height];
      return [x < 0.25 ? 'left' : x > 0.75 ? 'right' : x, y < 0.25 ? 'top' : y > 0.75 ? 'bottom' : y];
    })()""")


def test_attention_by_key_and_by_tap(browser, path):
    browser.open(f"{path.as_uri()}#q=q1")
    assert browser.texts(".chip") == ["mean", "red", "ball"] and bright(browser) is None
    browser.eval("document.querySelector('.chip').focus()")
    browser.key("ArrowRight", 39)
    assert bright(browser) == ["right", "top"], "focus by key shows the token's grid"
    assert browser.texts(".legend .scale") == ["0", "", "peak 100 %"]
    browser.key("ArrowRight", 39)
    assert bright(browser) == ["left", "bottom"] and browser.texts(".legend .hidden") == ["bottom left"]
    browser.key("Enter", 13)
    browser.eval("document.activeElement.blur()")
    assert bright(browser) == ["left", "bottom"], "chosen tokens stay"
    browser.eval("document.querySelectorAll('.chip')[2].click()")
    assert bright(browser) is None
    browser.eval("document.querySelector('.chip').click()")
    assert browser.texts(".legend .scale")[-1] == "peak 50 %", "the mean of two tokens"


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(browser, path, tmp_path, width):
    browser.screen(width, 844, phone=width < 500)
    for theme in ("light", "dark"):
        browser.colours(theme)
        browser.open(f"{path.as_uri()}#q=&set=")
        browser.eval("document.querySelectorAll('details').forEach((node) => (node.open = true))")
        assert browser.eval("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
        shot = Image.open(browser.shot(tmp_path / f"{theme}.png")).convert("RGB")
        assert shot.size == (width, 844) and len(shot.getcolors(1 << 24)) > 50
        assert (np.mean(shot) > 128) == (theme == "light")


def test_a_phone_shows_every_difference(browser, path):
    """All of the table lies within the screen, the difference of the two runs first."""
    browser.screen(390, 844, phone=True)
    browser.open(f"{path.as_uri()}#")
    found = browser.eval("""(() => {
      const cells = [...document.querySelectorAll('.metrics tr:not(.opened) td')].filter((cell) => cell.offsetWidth);
      return cells.map((cell) => [cell.dataset.head, cell.textContent, cell.offsetTop, cell.getBoundingClientRect().right]);
    })()""")
    assert {right <= 390 for *_, right in found} == {True}
    first = [cell for cell in found if cell[1] == "≈+0.100 [−0.200, 0.400]" and cell[0] == "A − B"]
    assert len(first) == 1 and first[0][2] == min(top for _, _, top, _ in found)
    assert "–" not in [text for _, text, *_ in found], "what there is not takes no line"
    browser.screen(1280, 900)


def test_no_request_and_no_error(browser, path):
    """Last: over everything that the tests above did."""
    browser.open(f"{path.as_uri()}#")
    assert browser.eval("document.documentElement.dataset.errors") == "0"
    sent = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert sent and {pathlib.PurePath(url.split("#")[0]).name for url in sent if not url.startswith("data:")} == {"report.html"}
    loud = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening")
    assert not [event for event in browser.events if event["method"] in loud]
    logged = [event["params"]["entry"] for event in browser.events if event["method"] == "Log.entryAdded"]
    assert not [entry for entry in logged if entry["level"] == "error"]


def test_a_page_that_fails_says_so(browser, path, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(path.read_text().replace('"pictures":[', '"pictures":{}, "images":[', 1))
    browser.open(f"{path.as_uri()}#")
    browser.order("Page.navigate", url=broken.as_uri())
    browser.wait("document.documentElement?.dataset.errors === '1'")
    assert browser.texts("#failed")[0].startswith("This report could not be drawn completely: ")


def test_sample_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        one({"x": 1.0}).id = "2"
