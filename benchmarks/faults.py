"""Breaks runs, one thing a round, goes on as a user would, and compares with a run that nothing happened to.

    python -m benchmarks.faults --rounds=60 --seed=0                 # a table by kind of fault; exit code 1 where one won
    python -m benchmarks.faults --rounds=10 --only="flipped bit"

A round: a micro chain of three stages (`micro_chain.py`) is started, something of `break_things.FAULTS` happens to it, and the
same command is given again, doing what its message says, until the chain is finished and evaluated. Survived: checksums of all
parameters, losses, row plans, predictions and scores are those of the undisturbed run. Silent: it ended well, and differs.
"""

import argparse
import collections
import dataclasses
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import break_things
from benchmarks.forks import Run, start

TRAIN = ["train", "--config=benchmarks/micro_chain.py", "--workdir"]
EVAL = ["eval", "--config=benchmarks/micro_chain.py", "--notwin", "--workdir"]
TRIES = 6  # how often a user gives each command again, on average
# Bars, and what every run that goes on says.
BAR = re.compile(r"\d+%\||^\s*$|^finished already: |first: running them in this order$|its seal$")


def result(workdir: Path) -> dict:
    """All that must not depend on what happened."""
    out: dict = {}
    for stage in ("stage0_decoder", "stage0_vision", "stage1"):
        manifest = json.loads((workdir / stage / "export/manifest.json").read_text())
        out[stage] = {key: manifest[key] for key in ("checksums", "data", "validation_loss", "micro_steps")}
        out[stage]["first losses"] = json.loads((workdir / stage / "first_losses.json").read_text())
    out["scores"] = json.loads((workdir / "stage1/eval/scores.json").read_text())["sets"]
    lines = (workdir / "stage1/eval/predictions.jsonl").read_text().splitlines()
    out["predictions"] = sorted(set(lines))
    return out


@dataclasses.dataclass
class Outcome:
    """What one round came to."""

    fault: str
    where: str
    seconds: float  # from the fault to the end of the process that it struck
    said: list[str]  # the longest message, by lines
    repeated: int  # micro-steps that were trained twice
    tries: int
    survived: bool
    silent: bool
    note: str = ""


def message(run: Run, known: set[str]) -> list[str]:
    """The lines of stderr that an undisturbed run doesn't print."""
    lines = (run.notes / "err").read_text(errors="replace").replace("\r", "\n").splitlines()
    return [line for line in lines if not BAR.search(line) and _shape(line) not in known]


def _shape(line: str) -> str:
    """Without numbers and the folder of the run."""
    return re.sub(r"\d[\d.]*", "#", re.sub(r"/\S+?/(w|calm)/", "W/", line))


def go_on(workdir: Path, notes: Path, known: set[str]) -> tuple[list[Run], str]:
    """Gives train and eval again, doing what the messages say, until both have ended well; (runs, why it was given up)."""
    runs: list[Run] = []
    coming = [TRAIN, EVAL]
    while coming:
        if len(runs) == 2 * TRIES:
            return runs, "it goes on failing"
        runs.append(run := start([*coming[0], str(workdir)], notes / f"again{len(runs)}"))
        if run.wait() == 0:
            coming.pop(0)
            continue
        said = message(run, known)
        if run.code == 2 and coming[0] is EVAL and any("train it first: python train.py" in line for line in said):
            coming.insert(0, TRAIN)
        elif run.code != 2 or not break_things.obey("\n".join(said), workdir):
            return runs, f"exit {run.code}: {' / '.join(said)[-300:]}"
    return runs, ""


def play(fault: break_things.Fault, rng: random.Random, folder: Path, calm: tuple[float, dict, set[str]]) -> Outcome:
    """One round."""
    seconds, want, known = calm
    workdir, notes = folder / "w", folder / "notes"
    shutil.rmtree(workdir, ignore_errors=True)
    break_things.prepare(fault, workdir)
    moment = rng.uniform(0.02, 0.95) * seconds
    run = start([*TRAIN, str(workdir)], notes / "struck", fault.patch and (lambda: fault.patch(rng)))
    while run.poll() is None and time.monotonic() - run.begun < moment:
        time.sleep(0.01)
    doing, at = run.doing, time.monotonic()
    where = f"{doing['phase']} {doing['step']}"
    if fault.strike and not fault.damage and run.poll() is not None:  # it was faster than the undisturbed one: again
        break_things.clean(fault, workdir)
        return play(fault, rng, folder, calm)
    what = fault.strike(run, workdir, rng) if fault.strike and run.poll() is None else ""
    code = run.wait()
    took = time.monotonic() - (at if fault.strike else run.begun)
    said = message(run, known)
    last = run.doing
    if fault.damage:
        what = fault.damage(workdir, rng)
    break_things.mend(fault, workdir)
    again, given_up = go_on(workdir, notes, known)
    said = max([said, *(message(x, known) for x in again)], key=len)
    resumed = re.findall(r"resuming +at micro-step (\d+) of", again[0].text)
    same_stage = str(last["phase"]).split(":")[0]
    repeated = max(0, int(last["step"]) - int(resumed[0])) if resumed and f"=== {same_stage}" in again[0].text else 0
    got = None if given_up else result(workdir)
    survived = got == want
    silent = got is not None and not survived
    note = given_up or ("" if survived else ", ".join(key for key in want if got and got[key] != want[key]))
    break_things.clean(fault, workdir)
    return Outcome(fault.name, f"{where} {what}", took, said, repeated, len(again) - 1, survived, silent,
                   note or f"exit {code}")  # fmt: skip


def table(outcomes: list[Outcome]) -> str:
    groups = collections.defaultdict(list)
    for outcome in outcomes:
        groups[outcome.fault].append(outcome)
    rows = ["| fault | rounds | survived | silent differences | steps repeated, most | s to the end, most | lines, most |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, found in [*sorted(groups.items()), ("all", outcomes)]:
        survived, silent = sum(x.survived for x in found), sum(x.silent for x in found)
        rows.append(
            f"| {name} | {len(found)} | {survived} | {silent} | {max(x.repeated for x in found)} | "
            f"{max(x.seconds for x in found):.1f} | {max(len(x.said) for x in found)} |"
        )
    return "\n".join(rows)


def undisturbed(folder: Path) -> tuple[float, dict, set[str]]:
    """(seconds of training, result, the lines that it prints to stderr)"""
    start([*TRAIN, str(folder / "warm")], folder / "notes/warm").wait()  # programs are compiled once for all
    run = start([*TRAIN, str(folder / "calm")], folder / "notes/calm")
    if run.wait():
        raise SystemExit(run.text)
    seconds = time.monotonic() - run.begun
    resumed = start([*TRAIN, str(folder / "calm")], folder / "notes/calm-again")
    scored = start([*EVAL, str(folder / "calm")], folder / "notes/calm-eval")
    if resumed.wait() or scored.wait():
        raise SystemExit(scored.text)
    known = {_shape(line) for x in (run, resumed, scored) for line in message(x, set())}
    return seconds, result(folder / "calm"), known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="faults whose name begins so")
    args = parser.parse_args()
    import vlax.commands.eval
    import vlax.commands.train
    import vlax.evaluation.evaluate
    import vlax.evaluation.sampling
    import vlax.training.chain  # noqa: F401

    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/vlax/xla"))
    rng, outcomes = random.Random(args.seed), []
    faults = [fault for fault in break_things.FAULTS if fault.name.startswith(args.only) and fault.possible()]
    with tempfile.TemporaryDirectory() as folder:
        calm = undisturbed(Path(folder))
        print(f"undisturbed: {calm[0]:.1f} s", flush=True)
        for number in range(args.rounds):
            fault = faults[number % len(faults)]  # each as often as the others; when and where is drawn
            outcomes.append(outcome := play(fault, rng, Path(folder), calm))
            print(f"{number + 1:3d} {json.dumps(dataclasses.asdict(outcome))}", flush=True)
    print(table(outcomes))
    sys.exit(not all(outcome.survived for outcome in outcomes))


if __name__ == "__main__":
    main()
