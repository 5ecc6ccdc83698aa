"""Captions a picture, or answers a question about it, at the terminal.

python -m vlax.ask runs/embedded/stage3/export picture.png
python -m vlax.ask runs/embedded/stage4/export picture.png --question "what colour is the circle?"
"""

import argparse
import os
import sys

from vlax.errors import VlaxError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vlax.ask", description="Caption a picture or answer a question about it.")
    parser.add_argument("export", help="an export directory: WORKDIR/STAGE/export")
    parser.add_argument("image", help="a picture file")
    parser.add_argument("--question", default="", help="without one, a caption is written")
    parser.add_argument("--num_beams", type=int, default=1, help="beam width; 1: greedy")
    parser.add_argument("--max_new_tokens", type=int, default=32, help="longest answer, in tokens")
    args = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # there is no torch, which is as meant
    import vlax  # after the arguments: a typo should not wait for jax

    try:
        model = vlax.load(args.export)
        options = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens, "batch_size": 1}
        if args.question:
            print(model.answer([args.image], [args.question], **options)[0])
        else:
            print(model.caption([args.image], **options)[0])
    except VlaxError as error:
        print(f"vlax: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
