"""A server for tests: in this process, on a port of its own."""

import base64
import contextlib
import dataclasses
import functools
import io
import threading
import time

import numpy as np
from PIL import Image
from small_tokenizers import KINDS
from tiny import config as tiny_config
from tiny import weights

from vlax.model import api
from vlax.params import sharding
from vlax.serve import server
from vlax.serve.app import House
from vlax.serve.engine import Engine
from vlax.serve.limits import Limits
from vlax.serve.served import named
from vlax.text.prompts import make

BATCH = 4


@functools.cache
def tokenizer():
    return KINDS["byte level"](extra=("<|user|>", "<|assistant|>", "<|system|>"))


@functools.cache
def model(seed=7, layers=1) -> api.Model:
    config = tiny_config(vocab_size=416, layers=layers)
    graphdef, params = weights(config, seed=seed)
    manifest = {"stage": "stage4", "tasks": ["caption", "question"]}
    return api.Model(config, params, make(tokenizer(), "plain"), graphdef, sharding.make_mesh((-1, 1, 1)), manifest)


def picture(number: int = 0, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def uri(image: Image.Image, kind: str = "png") -> str:
    file = io.BytesIO()
    image.save(file, format=kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


@contextlib.contextmanager
def serving(models, samples=None, length=6, **limits):
    """(url, House) of a server of [(where from, Model)], or of what another House has compiled."""
    made = dataclasses.replace(Limits(), **limits)
    if isinstance(models, House):
        house = dataclasses.replace(models, engine=Engine(made.requests), limits=made)
    else:
        house = House(named(models, BATCH, made), Engine(made.requests), made, length, 1, samples or {})
    listening = server.bound("127.0.0.1", 0)
    running = server.serving(house, "127.0.0.1")
    thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", house
    finally:
        running.should_exit = True
        thread.join(10)
        house.engine.close()
