"""The endpoint, by OpenAI's own client: the texts of `generate` and `chat`, whoever else asks; limits; errors in a sentence."""

import asyncio
import concurrent.futures
import dataclasses
import http.client
import json
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import openai
import pytest
from conftest import REPO
from report_cases import small_report
from serve_cases import BATCH, model, picture, serving, tokenizer, uri

from vlax.commands import front
from vlax.decoding.predict import Predictor
from vlax.decoding.seen import Kept
from vlax.evaluation.report.report import write_report
from vlax.model import exports
from vlax.models.build import abstract_model
from vlax.process import activity
from vlax.serve import samples, server
from vlax.serve.engine import Engine
from vlax.serve.limits import Limits, Refusal
from vlax.serve.served import named
from vlax.serve.words import Words
from vlax.text.prompts import make

KEY = {"api_key": "none", "max_retries": 0, "timeout": 60}


@pytest.fixture(scope="module")
def served():
    models = [("runs/a/stage4/export", model()), ("runs/b/stage4/export", model(8, layers=2))]
    with serving(models, pixels=10_000, body=100_000, characters=50_000) as made:
        yield made


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"{served[0]}/v1", **KEY)


def asked(text="", *images, before=()):
    parts = [{"type": "image_url", "image_url": {"url": uri(image)}} for image in images]
    return [*before, {"role": "user", "content": [*parts, *([{"type": "text", "text": text}] if text else [])]}]


def ask(client, messages, model="a/stage4", **fields):
    extra = {name: fields.pop(name) for name in ("task", "mask", "templates", "num_beams", "explain") if name in fields}
    return client.chat.completions.create(model=model, messages=messages, extra_body=extra, **fields)


def text(client, *args, **fields):
    return ask(client, *args, **fields).choices[0].message.content


def test_models_are_listed(client):
    assert [one.id for one in client.models.list()] == ["a/stage4", "b/stage4"]
    assert client.models.retrieve("b/stage4").owned_by == "vlax"


def test_texts_are_those_of_the_model(client):
    """By the prompt of every task, with a picture and without."""
    made, one, options = model(), picture(), {"max_new_tokens": 6, "batch_size": BATCH}
    assert text(client, asked("it?", one)) == made.answer(one, "it?", **options)
    assert text(client, asked("", one)) == made.caption(one, **options)
    assert text(client, asked("oh", one), task="raw") == made.generate(one, "oh", **options)
    assert text(client, asked("it?")) == made.answer([None], ["it?"], **options)[0]


@pytest.mark.slow
def test_every_way_to_answer_is_the_models(client):
    """Beams, sampling, another model, a mask and templates that are not the model's own."""
    made, one, options = model(), picture(), {"max_new_tokens": 6, "batch_size": BATCH}
    beams = made.answer(one, "it?", num_beams=2, **options)
    assert text(client, asked("it?", one), num_beams=2) == beams
    drawn = made.answer(one, "it?", temperature=1.5, top_p=0.9, seed=5, **options)
    assert text(client, asked("it?", one), temperature=1.5, top_p=0.9, seed=5) == drawn
    other = model(8, layers=2)
    answers = [other.answer(one, "it?", **options)]
    assert text(client, asked("it?", one), model="b/stage4") == answers[0]
    causal = dataclasses.replace(other, config=dataclasses.replace(other.config, mask="causal"))
    causal.graphdef = abstract_model(causal.config, np.float32)[0]
    answers.append(causal.answer(one, "it?", **options))
    assert text(client, asked("it?", one), model="b/stage4", mask="causal") == answers[1]
    instruct = dataclasses.replace(made, encoder=make(tokenizer(), "instruct"))
    answers.append(instruct.answer(one, "it?", **options))
    assert text(client, asked("it?", one), templates="instruct") == answers[2]
    assert len({beams, drawn, *answers}) == 5


def test_a_conversation_is_that_of_chat(client):
    begin, one = [{"role": "system", "content": "Be kind."}], picture()
    end = [{"role": "assistant", "content": "a cat"}, {"role": "user", "content": "sure?"}]
    local = [*begin, {"role": "user", "content": [{"type": "image", "image": one}, {"type": "text", "text": "hm"}]}, *end]
    sent = [*asked("hm", one, before=begin), *end]
    assert text(client, sent, task="chat") == model().chat(local, max_new_tokens=6, batch_size=BATCH)
    # by itself each turn is asked as the model was trained, which is by its questions' prompt
    assert text(client, sent) not in (text(client, sent, task="chat"), text(client, sent[:1] + sent[-1:]))


def test_a_picture_is_looked_at_once_while_a_conversation_goes_on(client, served, monkeypatch):
    """By its pixels, whoever asks, and the text is the same where nothing is kept."""
    seen, looked, one = served[1].models["a/stage4"]._looking["image_bidirectional"], [], picture(77)
    see, read = seen._see, seen._read
    monkeypatch.setattr(seen, "_see", lambda *args: looked.append("tower") or see(*args))
    monkeypatch.setattr(seen, "_read", lambda *args: looked.append("decoder") or read(*args))
    first = text(client, asked("hm", one))
    assert looked == ["tower", "decoder"]
    more = [*asked("hm", one), {"role": "assistant", "content": "a cat"}, {"role": "user", "content": "sure?"}]
    texts = [text(client, asked("it?", one)), text(client, more), text(client, asked("hm", one))]
    assert looked == ["tower", "decoder"] and texts[2] == first
    monkeypatch.setattr(seen, "kept", Kept())
    assert [text(client, asked("it?", one)), text(client, more)] == texts[:2]
    assert looked == ["tower", "decoder"] * 3


def test_a_stream_has_the_same_text_and_log_probabilities(client):
    messages = asked("it?", picture())
    whole = ask(client, messages, logprobs=True, top_logprobs=3, max_tokens=12)
    chunks = list(
        ask(client, messages, logprobs=True, top_logprobs=3, max_tokens=12, stream=True, stream_options={"include_usage": True})
    )
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == whole.choices[0].message.content != ""
    assert len([choice for choice in choices if choice.delta.content]) > 1, "it comes in parts"
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert tokens == whole.choices[0].logprobs.content
    assert [choice.finish_reason for choice in choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage and whole.usage.completion_tokens >= len(tokens)
    prompt = model().encoder.prompt("question", "it?")
    assert whole.usage.prompt_tokens == len(prompt) + model().config.tokens_per_image


def test_log_probabilities_are_the_models(client):
    """Of every token under the uncached model, the best alternatives in order, whatever the temperature."""
    made, one = model(), picture()
    for fields in ({}, {"temperature": 2.0, "seed": 3}):
        found = ask(client, asked("it?", one), logprobs=True, top_logprobs=4, explain=True, **fields)
        tokens = found.choices[0].logprobs.content
        logits = made.logits([one], [made.encoder.prompt_text("question", "it?")], [found.choices[0].message.content])
        explained = found.model_extra["vlax"]["tokens"]
        for token, other in zip(tokens, explained, strict=False):
            assert token.top_logprobs[0].logprob == max(each.logprob for each in token.top_logprobs)
            assert len(token.top_logprobs) == 4 and token.logprob <= token.top_logprobs[0].logprob + 1e-6
            assert token.logprob == pytest.approx(other["logprob"], abs=1e-4)
            others = [each.token for each in token.top_logprobs if each.token != token.token]
            assert others == [text for text, _ in other["top"] if text != token.token][: len(others)] and others
        first = logits[0, 0] - np.log(np.exp(logits[0, 0]).sum())
        assert tokens[0].top_logprobs[0].logprob == pytest.approx(first.max(), abs=1e-4)


@pytest.mark.slow
def test_explained_answers_say_where_the_model_looked(client):
    found = ask(client, asked("it?", picture(), picture(1)), explain=True).model_extra["vlax"]
    one, other = found["attention"]
    count = len(found["tokens"])
    assert (one["height"], one["width"], len(one["peaks"]), len(one["tokens"])) == (2, 2, count, count)
    assert np.allclose(np.add(one["share"], other["share"]), 1, atol=1e-3) and min(one["share"]) > 0
    assert ask(client, asked("what?"), explain=True).model_extra["vlax"]["attention"] == []


def test_stop_ends_before_its_text(client):
    messages = asked("it?", picture())
    whole = text(client, messages, max_tokens=12)
    stop = whole[2:4]
    found = ask(client, messages, max_tokens=12, stop=["never", stop])
    assert found.choices[0].message.content == whole[: whole.index(stop)] and found.choices[0].finish_reason == "stop"
    parts = ask(client, messages, max_tokens=12, stop=stop, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole[: whole.index(stop)]
    assert ask(client, messages, max_tokens=1).choices[0].finish_reason == "length"


@pytest.mark.parametrize("count", (16, pytest.param(64, marks=pytest.mark.slow)))
def test_many_at_once_are_each_as_if_alone(client, count):
    """Of all kinds in the same batches: other pictures, other lengths, warm and cold, other models."""
    models = {"a/stage4": model(), **({"b/stage4": model(8, layers=2)} if count > 16 else {})}
    names = [list(models)[number % len(models)] for number in range(count)]
    made = [
        {"messages": asked("it?", *[picture(number)] * (number % 5 > 0)), "seed": number, "max_tokens": 3 + number % 4,
         "model": names[number], "temperature": (number % 3) / 2}
        for number in range(count)
    ]  # fmt: skip
    alone = [text(client, **fields) for fields in made]
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        together = list(pool.map(lambda fields: text(client, **fields), made))
    assert together == alone and len(set(alone)) > count / 2
    whole = [number for number in range(3, count, 12) if number % 5]
    options = {"max_new_tokens": 6, "batch_size": BATCH}
    assert [alone[n] for n in whole] == [models[names[n]].answer(picture(n), "it?", **options) for n in whole]


def status(client, messages, **fields):
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, messages, **fields)
    return caught.value.status_code, caught.value.body["message"]


WRONG = [
    ({"model": "gpt-5"}, 404, "there is no model 'gpt-5'; there are a/stage4, b/stage4"),
    ({"temperature": -1}, 400, "temperature: a number from 0 to 100, not '-1'"),
    ({"max_tokens": 5000}, 400, "max_tokens: a whole number from 1 to 4096, not '5000'"),
    ({"top_logprobs": 3}, 400, "top_logprobs: logprobs=true goes with it"),
    ({"n": 2}, 400, "n: vlax has no n; leave it out"),
    ({"stop": [""]}, 400, "or a list of at most 16, none of them empty"),
    ({"num_beams": 2, "temperature": 1}, 400, "num_beams: 2 searches and temperature=1 samples"),
    ({"task": "poem"}, 400, "task: one of caption, describe, question, chat, raw, not 'poem'"),
    ({"templates": "chat"}, 400, "templates: a/stage4 has no chat template"),
    ({"extra": {"max_token": 3}}, 400, "max_token: there is no such field; did you mean max_tokens?"),
    ({"messages": []}, 400, "messages: a list such as"),
    ({"messages": [{"role": "assistant", "content": "hi"}]}, 400, "user and assistant take turns, and the user is last"),
    ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 400, "messages[0] has a part that is neither"),
    ({"url": "https://example.org/a.png"}, 400, "vlax fetches nothing: send data:image/png;base64"),
    ({"url": "file:///etc/passwd"}, 400, "vlax fetches nothing"),
    ({"url": "data:image/png;base64,!!!!"}, 400, "messages[0]: the picture is no base64"),
    ({"url": "data:image/png;base64,aGVsbG8="}, 400, "the picture does not decode (it is of no format that Pillow knows)"),
    ({"url": uri(picture(size=(200, 100)))}, 400, "the picture has 200 x 100 pixels, limit 10,000"),
    ({"url": uri(picture())[:90]}, 400, "the picture does not decode"),
    ({"messages": [{"role": "user", "content": "x" * 200_000}]}, 413, "the body has more than 100,000 bytes"),
    ({"messages": [{"role": "user", "content": "x" * 60_000}]}, 400, "60,000 characters of text, limit 50,000"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}] * 9}]}, 400, "more than 8 pictures"),
    ({"messages": [{"role": "user", "content": "ab " * 3000}]}, 400, "tokens of text, limit 4,096"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "reason"), WRONG)
def test_what_is_wrong_is_said_in_one_sentence(client, fields, code, reason):
    fields = dict(fields)
    messages = fields.pop("messages", asked("hm"))
    if url := fields.pop("url", None):
        messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    if extra := fields.pop("extra", None):
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="a/stage4", messages=messages, extra_body=extra)
        found = caught.value.status_code, caught.value.body["message"]
    else:
        found = status(client, messages, **fields)
    assert found[0] == code and reason in found[1] and len(found[1]) < 300, found


def raw(url, method="POST", path="/v1/chat/completions", body="{}", **headers):
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


JSON = {"content_type": "application/json"}


def test_other_sites_pages_are_not_let_in(served):
    """By a name that leads here, by a form that needs no leave, by script; and what is shown loads nothing from elsewhere."""
    url = served[0]
    assert raw(url, **JSON, host="evil.example")[0] == 403
    assert raw(url, **JSON, origin="https://evil.example")[0] == 403
    assert raw(url, content_type="text/plain")[0] == 415
    assert raw(url, **JSON, origin=url)[0] == 400  # let in, and an empty body
    assert raw(url, path="/nothing", method="GET")[:2] == (
        404, '{"error":{"message":"GET /nothing: Not Found","type":"not_found_error","param":null,"code":null}}'
    )  # fmt: skip
    half = '{"messages": [{"role": "user", "content": "\\ud800"}]}'
    for body, reason in (
        ("[1]", "the body is an object"),
        (half, "half a surrogate pair"),
        ("{", "the body is not JSON"),
        ("[" * 9999, "the body is not JSON"),
    ):
        code, said, headers = raw(url, body=body, **JSON)
        assert code == 400 and reason in json.loads(said)["error"]["message"]
    assert "default-src 'none'" in headers["content-security-policy"] and "access-control-allow-origin" not in headers


def test_too_many_at_once_are_refused(served):
    """While they wait, and not after; those that were let in have their answers."""
    with serving(served[1], requests=2) as (url, house):
        client, held = openai.OpenAI(base_url=f"{url}/v1", **KEY), threading.Event()
        house.engine.call(held.wait)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(text, client, asked("hm")) for _ in range(2)]
            while house.engine.tickets < 2:
                pass
            code, _, headers = raw(url, body='{"messages": []}', **JSON)
            held.set()
            assert (code, headers["retry-after"]) == (429, "1")
            assert waiting[0].result() == waiting[1].result() != ""
        assert house.engine.tickets == 0


def test_a_client_that_leaves_gives_its_place_back(served):
    with serving(served[1]) as (url, house):
        held = threading.Event()
        house.engine.call(held.wait)
        for stream in (False, True):
            with pytest.raises(openai.APITimeoutError):
                ask(openai.OpenAI(base_url=f"{url}/v1", **{**KEY, "timeout": 1}), asked("hm"), stream=stream)
        while house.engine.tickets:
            pass
        held.set()
        assert text(openai.OpenAI(base_url=f"{url}/v1", **KEY), asked("hm")) != ""


def test_what_fails_on_the_device_is_said_and_the_next_is_answered(client, served, monkeypatch):
    def broken(*args):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nwhile allocating")

    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "place", broken)
        assert status(client, asked("hm")) == (500, "RuntimeError: RESOURCE_EXHAUSTED: out of memory")
        with pytest.raises(openai.InternalServerError):
            next(iter(ask(client, asked("hm"), stream=True)))
    assert text(client, asked("hm"))


def test_an_engine_that_ends_tells_who_waits():
    engine, held = Engine(2), threading.Event()
    engine.call(held.wait)
    later = engine.call(lambda: 1)
    engine.close()
    held.set()
    with pytest.raises(Refusal, match="the server is ending"):
        later.result(10)
    with pytest.raises(Refusal) as caught, engine.ticket():
        pass
    assert caught.value.status == 503


def test_words_show_nothing_that_they_would_take_back():
    encoder = model().encoder
    ids = encoder.ids(" naïve 🦊 fox END now")
    words = Words(encoder, ["END"])
    parts = [words.add([token], last=at == len(ids) - 1) for at, token in enumerate(ids)]
    assert "".join(parts) == words.text == "naïve 🦊 fox " and words.stopped
    assert "\ufffd" not in "".join(parts) and not any(part and "END".startswith(part) for part in parts)
    begun = Words(encoder, ["fox!"])
    assert begun.add(encoder.ids(" a fox")) == "a " and begun.add([encoder.stops[0]], last=True) == "fox"


# --- what the page is made of


def test_the_page_is_of_this_server_alone(served):
    code, page, headers = raw(served[0], "GET", "/")
    assert code == 200 and headers["content-type"] == "text/html; charset=utf-8"
    parts = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert set(parts) == {
        "data:,",
        "/report/base.css",
        "/page/page.css",
        "/page/page.js",
        "/report/base.js",
        "/report/attention.js",
    }
    held = [raw(served[0], "GET", part)[:2] for part in parts[1:]]
    assert all(code == 200 for code, _ in held) and not re.search(r"https?://", page + "".join(text for _, text in held))
    assert raw(served[0], "GET", "/page/..%2Fserver.py")[0] == raw(served[0], "GET", "/report/report.html")[0] == 404


def test_what_the_page_says_of_a_model(served):
    first, _ = json.loads(raw(served[0], "GET", "/api/models")[1])["models"]
    assert (first["name"], first["stage"], first["mask"], first["tasks"]) == (
        "a/stage4", "stage4", "image_bidirectional", ["caption", "question"],
    )  # fmt: skip
    assert first["frame"] == {"mode": "squash", "size": 8, "margin": 1.0} and first["templates"] == ["plain", "instruct"]
    assert (first["talks"], first["samples"], first["parameters"]) == (False, 0, sum(x.size for x in model().params.values()))


def test_samples_are_those_of_the_report(tmp_path):
    write_report(tmp_path / "eval" / "report.html", **small_report())
    found = samples.of(str(tmp_path / "export"), {})
    assert len(found) > 20 and {one["set"] for one in found} == {"captions", "questions"}
    assert all(one["picture"].startswith("data:image/") for one in found)
    assert samples.of(str(tmp_path / "export"), {"config": {"stage": {"images": 2}}}) == []
    (tmp_path / "eval" / "report.html").write_text("an older one")
    assert samples.of(str(tmp_path / "export"), {}) == samples.of(str(tmp_path / "none" / "export"), {}) == []


# --- the command


def said(*argv, capsys):
    assert front.main(["serve", *map(str, argv)]) == 2
    return capsys.readouterr().err


def test_without_a_model_it_is_the_workdir_of_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert front.main(["serve", "--port", "0"]) == 2
    assert capsys.readouterr().err.startswith("vlax: error: runs/embedded is no directory; give WORKDIR/STAGE/export, WORKDIR,")


def test_mistakes_at_the_command_line(tmp_path, capsys, served):
    taken = served[0].rpartition(":")[2]
    assert "cannot listen at 127.0.0.1:" in said(tmp_path, f"--port={taken}", capsys=capsys)
    assert "has no model: no manifest.json, no config.json" in said(tmp_path, "--port=0", capsys=capsys)
    assert "vlax serve fetches nothing" in said("org/name", "--port=0", capsys=capsys)
    assert "an answer has at most 4096 tokens" in said(tmp_path, "--port=0", "--max-new-tokens=5000", capsys=capsys)


def test_a_directory_stands_for_its_newest_model(tmp_path):
    for stage, created in (("stage0_vision", "2026-03"), ("stage3", "2026-02"), ("stage4", "2026-01")):
        folder = tmp_path / stage / "export"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"format": 1, "created": created}))
        (folder.parent / "config.json").write_text("{}")  # a stage's own
    assert server.found(tmp_path) == str(tmp_path / "stage3" / "export") == server.found(tmp_path / "stage3")
    (tmp_path / "config.json").write_text("{}")
    assert server.found(tmp_path / "stage3" / "export") == str(tmp_path / "stage3" / "export")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "config.json").write_text("{}")
    assert server.found(tmp_path / "whole") == str(tmp_path / "whole")


def test_names_are_the_last_folders():
    places = ["runs/a/stage4/export", "elsewhere/a/stage4/export/", "llava", "./m/export"]
    assert list(named([(place, model()) for place in places], 1, Limits())) == ["a/stage4", "a/stage4-2", "llava", "m"]


def test_keys_and_values_in_eight_bits():
    [made] = named([("m", model())], 1, Limits(kv_cache="int8")).values()
    program = made.program(made.model, 6, 1)
    generators = program.live, program.predictor.generate, program.alone.generate
    assert {each.decode.kv_cache for each in generators} == {"int8"}


def test_a_signal_that_a_callback_of_the_loop_lost_ends_it(monkeypatch):
    """uvloop, where it is installed, takes what a handler raises within its callbacks for a connection's error."""
    monkeypatch.setattr(server.app, "make", lambda made, host: None)
    made = server.serving(None, "127.0.0.1")
    assert made.config.loop == "asyncio"
    assert not asyncio.run(made.on_tick(1))
    monkeypatch.setattr(activity.NOW, "requested", "SIGTERM")
    assert asyncio.run(made.on_tick(1))


@pytest.mark.slow
def test_the_command_serves_until_it_is_asked_to_end(tmp_path):
    """Also while an answer is under way: nothing is waited for."""
    made = model()
    manifest = {"stage": "s", "template_name": "plain", "text": made.encoder.settings.to_dict()}
    exports.export(tmp_path / "run" / "s" / "export", made.params, made.config, made.encoder.tokenizer, manifest)
    command = [
        sys.executable,
        "-m",
        "vlax",
        "serve",
        str(tmp_path / "run"),
        "--port=0",
        f"--compilation_cache={tmp_path}/xla",
        "--kv_cache=int8",
    ]
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                url = next(line.split()[1] for line in process.stdout if line.startswith("endpoint"))
                stream = ask(openai.OpenAI(base_url=url, **KEY), asked("it?"), model="run/s", stream=True, max_tokens=1000)
                next(iter(stream))
                process.send_signal(number)
                assert process.wait(10) == 128 + number
                assert "the same command serves again" in process.stderr.read()
            finally:
                process.kill()
