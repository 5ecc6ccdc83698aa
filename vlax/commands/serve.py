"""Serves models on this machine: a page to try them, and an endpoint for OpenAI's clients. Nothing leaves the machine.

python -m vlax serve                                                 # the newest stage of runs/embedded, where train writes
python -m vlax serve WORKDIR                                         # the newest stage of a workdir
python -m vlax serve runs/embedded/stage3 runs/embedded/stage4       # two models, side by side on one picture
"""

import argparse
import importlib.util

from vlax.commands.flags import Parser, at_least
from vlax.errors import VlaxError
from vlax.storage import paths


def add_arguments(parser: Parser) -> None:
    """Models, the address, limits."""
    add = parser.add_argument
    add(
        "models",
        nargs="*",
        default=[paths.WORKDIR],
        metavar="MODEL",
        help=f"WORKDIR/STAGE/export, WORKDIR, or a LLaVA, PaliGemma, SmolVLM or Gemma 3 directory; none: {paths.WORKDIR}",
    )
    add(
        "--host",
        default="127.0.0.1",
        help="the address to listen at; any other lets other machines in, who are asked for nothing",
    )
    add("--port", type=at_least(0), default=8000, help="0: any that is free")
    add("--batch_size", type=at_least(1), default=8, help="requests that are decoded together; no answer depends on it")
    add("--max_new_tokens", type=at_least(1), default=64, help="longest answer, in tokens, where a request does not say")
    add("--queue", type=at_least(1), default=256, help="requests at once, those that wait included; more are refused (429)")
    add("--max_body_mb", type=at_least(1), default=32, help="of one request")
    add("--max_megapixels", type=at_least(1), default=50, help="of one picture")
    add(
        "--kept_mb",
        type=at_least(0),
        default=256,
        help="of what each model made of pictures, kept on the device for later requests about them; 0: nothing",
    )
    add("--kv_cache", default="", choices=("", "int8"), help="how keys and values are kept: as computed, or in eight bits")
    add("--compilation_cache", default="~/.cache/vlax/xla", help="where compiled programs are kept; empty: nowhere")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="compute and storage: float32 or bfloat16")


def main(args: argparse.Namespace) -> None:
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise VlaxError(f"vlax serve needs {' and '.join(missing)}: pip install -r requirements-serve.txt, or 'vlax[serve]'")
    from vlax.serve import server  # after the flags: a typo should not wait for jax
    from vlax.serve.limits import Limits
    from vlax.storage import compiled

    listening = server.bound(args.host, args.port)
    size, pixels = args.max_body_mb << 20, args.max_megapixels * 10**6
    limits = Limits(body=size, pixels=pixels, requests=args.queue, kept=args.kept_mb << 20, kv_cache=args.kv_cache)
    if args.max_new_tokens > limits.answer:
        raise VlaxError(f"--max_new_tokens={args.max_new_tokens}: an answer has at most {limits.answer} tokens here")
    compiled.keep(args.compilation_cache)
    made = server.house(args.models, limits, args.batch_size, args.max_new_tokens, args.dtype)
    server.run(made, listening, args.host)
