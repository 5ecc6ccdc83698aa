"""Captions a picture, or answers a question about it, at the terminal.

python -m vlax ask runs/embedded/stage3/export picture.png
python -m vlax ask runs/embedded/stage4/export picture.png --question "what colour is the circle?"
"""

import argparse

from vlax.commands.flags import at_least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a question."""
    parser.add_argument(
        "export", help="WORKDIR/STAGE/export, a directory in the layout of LLaVA, PaliGemma, SmolVLM or Gemma 3, or a hub id"
    )
    parser.add_argument("image", help="a picture file")
    parser.add_argument("--question", default="", help="without one, a caption is written")
    parser.add_argument("--quantise", default="", choices=("", "int8", "nf4"), help="hold the matrices in few bits")
    parser.add_argument("--kv_cache", default="", choices=("", "int8"), help="keep keys and values in few bits, too")
    parser.add_argument("--system", default="", help="a system prompt in place of the model's own")
    parser.add_argument("--num_beams", type=at_least(1), default=1, help="beam width; 1: greedy")
    parser.add_argument("--max_new_tokens", type=at_least(1), default=32, help="longest answer, in tokens")


def main(args: argparse.Namespace) -> None:
    import vlax  # after the arguments: a typo should not wait for jax

    model = vlax.load(args.export, quantise=args.quantise)
    if args.system:
        model.encoder = model.encoder.says(args.system)
    options = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens, "batch_size": 1, "kv_cache": args.kv_cache}
    if args.question:
        print(model.answer([args.image], [args.question], **options)[0])
    else:
        print(model.caption([args.image], **options)[0])
