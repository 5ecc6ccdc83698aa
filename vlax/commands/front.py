"""The one way in: finds the command, reads its flags, runs it. train.py and eval.py are two of the commands by themselves."""

import importlib
import os
import sys
from collections.abc import Sequence

from vlax.commands.flags import Parser
from vlax.errors import VlaxError, guard
from vlax.process import activity, initialise, memory, stop, supervise
from vlax.process.activity import NOW, Interrupted, Lost
from vlax.storage import disk

# Modules of this folder, each with a docstring (its help), add_arguments(parser) and main(args) -> exit code, None for 0.
COMMANDS = {
    "train": "trains a stage, and the stages that it needs",
    "eval": "scores a trained stage; compares two of them",
    "ask": "captions a picture, or answers a question about it",
    "serve": "a page to try models, and an endpoint for OpenAI's clients, on this machine",
    "export": "writes a trained model in Hugging Face layout",
    "launch": "trains or evaluates in several processes on this machine",
    "runs": "lists runs: stages, steps, scores, sizes, what can be gone on with; one page of all curves",
    "findings": "runs the paper's findings as experiments: arms, seeds, paired tests, a page for each",
    "clean": "deletes old checkpoints, second exports and caches, and asks first",
    "completion": "prints the completion of bash, zsh or fish",
    "data preview": "what a file or folder is, and five rows as the model will see them",
    "data doctor": "broken pictures, faulty rows, duplicates, leaks; writes a quarantine list",
    "data prepare": "pictures resized once and rows sharded, for fast training",
}
COMPUTE = ("train", "eval", "findings")  # for long, so that what they free is worth keeping
# What a command that is stopped says; training has more to say.
KEPT = {
    "ask": "nothing was written; the same command begins again",
    "eval": "the predictions so far are kept; the same command goes on",
    "data prepare": "the shards that are whole are kept; the same command goes on",
    "findings": "what is trained and measured is kept; the same command goes on",
    "serve": "what was asked last is not answered; the same command serves again",
    "train": "nothing is lost; the same command goes on",
}


def main(argv: Sequence[str] | None = None, prog: str = "") -> int:
    """Runs `argv`, e.g. ["data", "preview", "captions.json"]; returns the exit code. `prog`: a program that is one command."""
    line = list(sys.argv[1:] if argv is None else argv)
    if (argv is None or prog) and line and line[0] in COMPUTE:  # a process of our own, not another's that calls us
        memory.keep()
    disk.quieten()
    with stop.listening():
        try:
            code = guard(disk.explained()(lambda: run(line, prog)))
        except Interrupted as stopped:
            code = int(stopped.code or 0)
        if NOW.requested or code == Lost.code:
            stop.now(code)  # Python would wait for threads that may never end
        return code


def run(argv: list[str], prog: str = "") -> int | None:
    """The same; VlaxError for a command or flag that there is not."""
    front = "vlax" if os.path.basename(sys.argv[0]) == "vlax" else "python -m vlax"
    group = ["data"] if argv[:1] == ["data"] else []
    rest = argv[len(group) :]
    known = {name: about for name, about in COMMANDS.items() if name.split()[:-1] == group or not group}
    if not rest or rest[0] in ("-h", "--help"):
        print(f"{front} COMMAND: small vision-language models, trained, scored, asked.\n")
        print("\n".join(f"  {front} {name:<14}{about}" for name, about in known.items()))
        print(f"\n{front} COMMAND --help has the flags of a command.")
        return 0
    name = " ".join([*group, rest[0]])
    if name not in COMMANDS:
        words = dict.fromkeys(name.split()[len(group)] for name in known)
        where = " ".join([front, *group])
        raise VlaxError(f"there is no command {rest[0]!r}; the commands are {', '.join(words)}. See {where} --help")
    command = importlib.import_module(f"vlax.commands.{name.replace(' ', '.')}")
    parser = Parser(prog or f"{front} {name}", command.__doc__ or "")
    command.add_arguments(parser)
    args = parser.parse_args(rest[1:])
    config = getattr(args, "config", None)
    if config is not None and initialise.wanted(config.run) and supervise.LAUNCHED not in os.environ:
        return supervise.run([sys.executable, *sys.orig_argv[1:]], [os.environ])
    with activity.phase(name, KEPT.get(name, "what it was writing is unfinished; the same command begins again")):
        return command.main(args)
