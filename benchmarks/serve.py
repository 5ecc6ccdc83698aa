"""Prints how fast `vlax serve` answers requests one at a time and at once, and whether each text is that of `model.generate`.

    python -m benchmarks.serve runs/embedded/stage4/export
    python -m benchmarks.serve runs/embedded/stage4/export --batch_size 1 8 16 --requests 128
    python -m benchmarks.serve runs/embedded/stage4/export --kept_mb 0      # each picture looked at anew

The server is a process of its own for each batch size. Requests are questions about embedded scenes, or captions of them, each
about another picture; a request's time is from the connection to the last byte of its answer. Both ways are warm: the same
requests were answered once before, and so what was made of their pictures is there still, unless --kept_mb is 0.
"""

import argparse
import base64
import concurrent.futures
import contextlib
import datetime
import http.client
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import vlax
from vlax.data.embedded.scenes import SceneSource
from vlax.model.api import Model
from vlax.rows import Row

LENGTH = 32  # tokens


@contextlib.contextmanager
def serving(export: str, batch_size: int, kept: int) -> Iterator[str]:
    """HOST:PORT of a server of its own."""
    command = [sys.executable, "-m", "vlax", "serve", export, "--port=0", f"--batch_size={batch_size}", f"--kept_mb={kept}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line.split("//")[1].split("/")[0] for line in process.stdout if line.startswith("endpoint"))
        finally:
            process.terminate()


def body(row: Row) -> str:
    """The request that a row of the embedded data makes."""
    assert row.picture is not None
    file = io.BytesIO()
    row.picture.open().save(file, format="png")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}}]
    if row.turns[0].question:
        content.append({"type": "text", "text": row.turns[0].question})
    return json.dumps({"messages": [{"role": "user", "content": content}], "max_tokens": LENGTH})


def ask(address: str, content: str) -> tuple[float, str]:
    """(seconds, text) of one request."""
    begin = time.perf_counter()
    connection = http.client.HTTPConnection(address, timeout=600)
    connection.request("POST", "/v1/chat/completions", content, {"content-type": "application/json"})
    answer = json.load(connection.getresponse())
    connection.close()
    return time.perf_counter() - begin, answer["choices"][0]["message"]["content"]


def measured(address: str, bodies: Sequence[str], at_once: int) -> tuple[list[float], list[str], float]:
    """(seconds of each, texts, seconds of all)"""
    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(lambda content: ask(address, content), bodies))
    return [seconds for seconds, _ in found], [text for _, text in found], time.perf_counter() - begin


def generated(model: Model, rows: Sequence[Row], batch_size: int) -> list[str]:
    """What `model.generate` says of every row."""
    pictures = [row.picture.open() for row in rows if row.picture is not None]
    prompts = [model.encoder.prompt_text(row.task, row.turns[0].question) for row in rows]
    return list(model.generate(pictures, prompts, batch_size=batch_size, max_new_tokens=LENGTH))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--batch_size", type=int, nargs="+", default=[8])
    parser.add_argument("--kept_mb", type=int, default=256, help="of what was made of pictures")
    args = parser.parse_args()
    model = vlax.load(args.export)
    sources = [SceneSource("test", style, size=args.requests) for style in ("questions", "human")]
    rows = [sources[number % 2][number] for number in range(args.requests)]
    bodies = [body(row) for row in rows]
    print(f"{datetime.date.today()}, {os.cpu_count()} CPUs; {args.requests} requests of {LENGTH} tokens at most\n")
    print("| batch | requests | p50, ms | p95, ms | requests/s | the text of `generate` |\n|---|---|---|---|---|---|")
    for size in args.batch_size:
        want = generated(model, rows, size)
        with serving(args.export, size, args.kept_mb) as address:
            measured(address, bodies, 1), measured(address, bodies, args.requests)
            for name, at_once in (("one at a time", 1), (f"{args.requests} at once", args.requests)):
                each, texts, whole = measured(address, bodies, at_once)
                p50, p95 = np.percentile(1000 * np.array(each), (50, 95))
                same = sum(a == b for a, b in zip(texts, want, strict=True))
                print(
                    f"| {size} | {name} | {p50:,.0f} | {p95:,.0f} | {args.requests / whole:.1f} | {same} of {len(rows)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
