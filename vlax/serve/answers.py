"""Answers in the form of OpenAI's API, whole or as a stream of events."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlax.serve.asking import Ask
from vlax.serve.engine import Job, News
from vlax.serve.words import Words
from vlax.text.pieces import pieces
from vlax.text.prompts import Encoder


class Answer:
    """One answer as it comes. `news` is given until `over`."""

    def __init__(self, ask: Ask, job: Job, encoder: Encoder):
        self.ask, self.job, self.encoder = ask, job, encoder
        self.words, self.over = Words(encoder, ask.stop), False
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        self.ids: list[int] = []
        self.logprobs: list[dict[str, Any]] = []

    def add(self, news: News) -> tuple[str, list[dict[str, Any]]]:
        """(text that is new, log-probabilities of its tokens)"""
        begin = len(self.ids)
        self.ids += news.ids
        text = self.words.add(news.ids, news.done)
        self.over = news.done or self.words.stopped
        if self.ask.top is None:
            return text, []
        new = [
            self._token(token, begin + n, float(news.logp[n]), news.top[n], news.top_logp[n])
            for n, token in enumerate(news.ids)
            if token not in self.encoder.stops
        ]
        self.logprobs += new
        return text, new

    def _token(self, token: int, at: int, logp: float, top: np.ndarray, top_logp: np.ndarray) -> dict[str, Any]:
        count = self.ask.top or 0
        others = [
            _entry(alternative(self.encoder, self.ids[:at], int(other)), float(value))
            for other, value in zip(top[:count], top_logp[:count], strict=True)
        ]
        return {**_entry(alternative(self.encoder, self.ids[:at], token), logp), "top_logprobs": others}

    @property
    def ended(self) -> str:
        """OpenAI's finish_reason."""
        by_itself = self.words.stopped or (self.ids and self.ids[-1] in self.encoder.stops)
        return "stop" if by_itself or (self.ask.beams > 1 and len(self.ids) < self.job.limit) else "length"

    @property
    def usage(self) -> dict[str, int]:
        """Tokens; those of pictures are the prompt's."""
        config, request = self.job.lane.program.model.config, self.job.request
        prompt = len(request.prompt) + sum(map(config.tokens_of, request.images))
        return {"prompt_tokens": prompt, "completion_tokens": len(self.ids), "total_tokens": prompt + len(self.ids)}

    def whole(self, **more: Any) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.words.text, "refusal": None},
            "logprobs": self._logprobs(self.logprobs),
            "finish_reason": self.ended,
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": self.usage, **more}

    def chunk(
        self, delta: Mapping[str, Any], logprobs: Sequence[Mapping[str, Any]] = (), end: str | None = None, **more: Any
    ) -> bytes:
        """An event of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": self._logprobs(logprobs), "finish_reason": end}
        return event({**self._head("chat.completion.chunk"), "choices": [choice], **more})

    def last(self) -> bytes:
        """The event of stream_options.include_usage."""
        return event({**self._head("chat.completion.chunk"), "choices": [], "usage": self.usage})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.ask.model}

    def _logprobs(self, tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        return None if self.ask.top is None else {"content": list(tokens), "refusal": None}


def alternative(encoder: Encoder, before: Sequence[int], token: int) -> str:
    """The text of a token as it would follow these."""
    return pieces(encoder.tokenizer, [*before[-1:], token])[-1]


def _entry(text: str, logp: float) -> dict[str, Any]:
    whole = "\ufffd" not in text  # a part of a character has no text
    return {"token": text, "logprob": max(logp, -9999.0), "bytes": list(text.encode()) if whole else None}


def event(data: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


async def parts(answer: Answer, news: AsyncIterator[News]) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """What is new of an answer, until it is over."""
    async for one in news:
        yield answer.add(one)
        if answer.over:
            return
