"""A browser for the tests of the report, and a small report for it.

    with Browser(chromium, tmp_path) as browser:
        browser.screen(390, 844)
        browser.open("file:///report.html#q=dog")
        browser.eval("document.title")

Chromium's own protocol over a pipe (https://chromedevtools.github.io/devtools-protocol): a window is never narrower than 500
pixels, so that a phone can only be had by emulation, and requests, errors and keys are seen as the browser sees them.
"""

import base64
import fcntl
import json
import os
import select
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from vlax.evaluation.report.report import ReportSample
from vlax.scores.statistics import Interval

PATIENCE = 60  # seconds for the browser to answer
# Chromium reads its orders from descriptor 3 and answers on 4.
_EXEC = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
_QUIET = ("background-networking", "component-update", "dev-shm-usage", "sync", "gpu")
_FLAGS = ("--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars")


def _high_pipe() -> tuple[int, int]:
    """A pipe whose descriptors are out of the way of 3 and 4."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in ends)
    for end in ends:
        os.close(end)
    return high


class Browser:
    """One headless page. `events` holds what the browser reported: requests, exceptions, console errors."""

    def __init__(self, chromium, home):
        self.events, self._last, self._buffer = [], 0, b""
        (orders, self._write), (self._read, answers) = _high_pipe(), _high_pipe()
        command = [sys.executable, "-c", _EXEC, str(orders), str(answers), chromium, *_FLAGS]
        command += [f"--user-data-dir={home}/browser", *(f"--disable-{part}" for part in _QUIET)]
        self._log = home / "browser.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, pass_fds=(orders, answers), stdout=log, stderr=log)
        os.close(orders)
        os.close(answers)
        target = self._order("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._order("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.order(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._write)  # the end of its orders ends the browser
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)

    def _order(self, method, session=None, **params):
        self._last += 1
        order = {"id": self._last, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._write, json.dumps(order).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while True:
            while b"\0" not in self._buffer:
                ready = select.select([self._read], [], [], max(0, until - time.monotonic()))[0]
                chunk = os.read(self._read, 1 << 20) if ready else b""
                if not chunk:
                    raise TimeoutError(f"{method}: the browser {'closed' if ready else 'does not answer'}; see {self._log}")
                self._buffer += chunk
            message, self._buffer = self._buffer.split(b"\0", 1)
            message = json.loads(message)
            if message.get("id") == self._last:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.events.append(message)

    def order(self, method, **params):
        return self._order(method, self._session, **params)

    def screen(self, width, height=900, phone=False):
        self.order("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def colours(self, scheme):
        self.order("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url):
        """Loads the page (or, where only the fragment differs, goes there) and waits until the report says it is ready."""
        self.order("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.documentElement?.dataset.ready === 'true'")

    def wait(self, condition):
        until = time.monotonic() + PATIENCE
        while not self.eval(condition):
            assert time.monotonic() < until, (condition, self.eval("document.documentElement.outerHTML.slice(0, 3000)"))
            time.sleep(0.02)

    def eval(self, code):
        """The JSON value of an expression; promises are awaited."""
        result = self.order("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, (code, result["exceptionDetails"])
        return result["result"].get("value")

    def texts(self, selector):
        return self.eval(f"[...document.querySelectorAll({json.dumps(selector)})].map((node) => node.textContent)")

    def key(self, key, code=0):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.order("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def shot(self, path, whole=False):
        png = self.order("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(png))
        return path


HOSTILE = "<img src=x onerror=alert(1)></script><script>document.title='hacked'</script><!-- \ud800 {{data}}"


def spot(row: int, column: int) -> np.ndarray:
    """Attention float[4,4] on one cell."""
    grid = np.zeros((4, 4))
    grid[row, column] = 1
    return grid


def small_report() -> dict:
    """Arguments of write_report: 30 captions of three pictures (the 8th is hostile), two questions, and a second run."""
    pictures = [
        Image.new("RGB", (32, 32), "#b03030"),
        Image.new("RGB", (32, 32), "#3030b0"),
        Image.new("RGB", (800, 500), "green"),
    ]
    captions = []
    for i in range(30):
        words = {
            "prompt": "",
            "prediction": f"a {'dog' if i % 10 == 3 else 'cat'} number {i}",
            "references": ("an animal", "a pet"),
        }
        scores = {"scores": {"CIDEr": float(i), "ROUGE_L": 0.5}, "twin_score": 10.0, "other_score": float(i - (i % 3 - 1))}
        captions.append(
            ReportSample(
                "captions", f"row/{i}", pictures[i % 3], **words, answer_type="", twin="a bird", other="a pet", **scores
            )
        )
    captions[7] = ReportSample("captions", "row/7", None, HOSTILE, HOSTILE, (HOSTILE,), HOSTILE, {"CIDEr": 7.0}, HOSTILE, 7.0)
    lit = (("red", spot(0, 3)), (" ball", spot(3, 0)))
    right = {"references": ("red ball",) * 8 + ("ball",) * 2, "answer_type": "other", "scores": {"accuracy": 1.0}}
    wrong = {"references": ("yes",) * 10, "answer_type": "yes/no", "scores": {"accuracy": 0.0}}
    asked = [
        ReportSample("questions", "q1", pictures[0], "which?", "red ball", **right, twin="no", twin_score=0.0, attention=lit),
        ReportSample("questions", "q2", pictures[1], "is it?", "", **wrong, twin="no", twin_score=0.0),
    ]
    close, apart = Interval(0.1, -0.2, 0.4), Interval(2.5, 2.0, 3.0)
    cider = {
        "score": 3.5,
        "interval": Interval(3.5, 3.2, 3.8),
        "twin": 1.0,
        "prior": 3.4,
        "over_twin": apart,
        "over_prior": close,
    }
    return {
        "title": "Stage <4>",
        "subtitle": "a subtitle",
        "sets": {
            "captions": {"CIDEr": cider, "Bleu_4": {"score": 0.75, "twin": None, "prior": None}, "rows": 300},
            "questions": {"accuracy": {"score": 0.5, "twin": 0.0, "prior": None}, "rows": 2},
        },
        "formulas": {"captions": {"CIDEr": "ten times a cosine"}},
        "protocol": {"sets": {"captions": {"hash": "eef7b522", "beams": 3}, "questions": {"hash": "0c0c0c0c", "beams": 1}}},
        "about": {"model": "runs/a/stage4/export", "picture size": "32 x 32 pixels"},
        "samples": captions + asked,
        "other": {
            "title": "run <b>",
            "sets": {"captions": {"CIDEr": {"score": 3.4}}},
            "differences": {"captions": {"CIDEr": close}},
            "protocol": {"sets": {"captions": {"hash": "91aa03fe", "beams": 1}, "questions": {"hash": "0c0c0c0c", "beams": 1}}},
            "about": {"model": "runs/b/stage4/export", "picture size": "32 x 32 pixels"},
        },
        "notes": ["A note."],
    }
