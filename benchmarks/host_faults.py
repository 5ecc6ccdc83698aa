"""Two processes that train together, of which one is killed, stopped, terminated, hangs or finds too many bad rows.

    python -m benchmarks.host_faults

Each is struck in the second stage, after a first one that is the undisturbed pair's; where, what both say and how long it
takes them to end is printed, and the same command is given again until the chain is finished, whose parameters are compared
with those of the undisturbed processes.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIRST, STAGE, STEP = "stage0_decoder", "stage0_vision: training", 6
REACHED, LIMIT = 1800.0, 240.0  # seconds until it is struck, on a machine that may be busy, and until both have ended
STRUCK_AT = "VLAX_STRUCK_AT"  # a file that a source touches when it breaks
STRUCK = {  # what happens: (signal, host that gets it, variant of the config)
    "kill -9 of host 0": (signal.SIGKILL, 0, ""),
    "kill -9 of host 1": (signal.SIGKILL, 1, ""),
    "SIGSTOP of host 1": (signal.SIGSTOP, 1, ""),
    "SIGTERM to host 0": (signal.SIGTERM, 0, ""),
    "SIGTERM to host 1": (signal.SIGTERM, 1, ""),
    "over budget on host 1": (None, 1, ":bad"),
    "hung source on host 1": (None, 1, ":hung"),
}


def break_reader(how: str) -> None:
    """On host 1, from some row on: rows that don't decode ("bad"), or one that never comes ("hung")."""
    from vlax.data.batches.pipeline import Collator
    from vlax.params import distributed
    from vlax.rows import RowFault

    accept, seen = Collator._accept, []

    def accepting(self: Collator, row_id: int):
        seen.append(row_id)
        if distributed.host() == 1 and len(seen) > 40:
            if (mark := Path(os.environ[STRUCK_AT])) and not mark.exists():
                mark.touch()
            if how == "hung":
                time.sleep(1e6)
            self.left_out.bad(row_id, str(RowFault("the picture does not decode")), f"row {row_id}")
        return accept(self, row_id)

    Collator._accept = accepting  # type: ignore[method-assign]


def launch(workdir: Path, variant: str) -> subprocess.Popen[str]:
    train = ["train", f"--config=benchmarks/micro_chain.py{variant}", f"--workdir={workdir}"]
    command = [sys.executable, "-m", "vlax", "launch", "--processes=2", "--devices_per_process=1", "--", *train]
    where = os.environ | {STRUCK_AT: f"{workdir}.struck"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1, env=where)


def hosts(parent: int) -> dict[int, int]:
    """{host: pid} of the processes that a launcher has started."""
    out = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                given = dict(x.split("=", 1) for x in (path.parent / "environ").read_text().split("\0") if "=" in x)
                out[int(given["PROCESS_ID"])] = int(path.parent.name)
        except (OSError, KeyError, ValueError):
            continue
    return out


def doing(pid: int) -> tuple[str, int]:
    try:
        given = dict(x.split("=", 1) for x in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in x)
        told = json.loads(Path(given["VLAX_ACTIVITY"]).read_text())
        return told["phase"], told["step"]
    except (OSError, KeyError, ValueError):
        return "", 0


def parameters(workdir: Path) -> dict:
    stages = ("stage0_decoder", "stage0_vision", "stage1")
    return {stage: json.loads((workdir / stage / "export/manifest.json").read_text())["checksums"] for stage in stages}


def play(name: str, workdir: Path, calm: Path) -> str:
    """One row of the table."""
    number, host, variant = STRUCK[name]
    shutil.copytree(calm / FIRST, workdir / FIRST)
    run, begun, mark = launch(workdir, variant), time.time(), Path(f"{workdir}.struck")
    phase, step = "", 0
    while run.poll() is None and time.time() - begun < REACHED and not mark.exists():
        pids = hosts(run.pid)
        phase, step = doing(pids[host]) if host in pids else ("", 0)
        if number is not None and phase == STAGE and step >= STEP:
            break
        time.sleep(0.05)
    struck = mark.stat().st_mtime if mark.exists() else time.time()
    if number is not None and run.poll() is None:
        os.kill(hosts(run.pid)[host], number)
    try:
        out, _ = run.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        run.terminate()  # the launcher ends its processes
        out, _ = run.communicate()
        out += "\nerror: HUNG"
    took = time.time() - struck
    said = [x for x in re.split(r"[\r\n]+", out) if re.search(r"error|SIG|died|killed|host \d|saved", x)]
    print(
        f"\n{name} at {phase}, step {step}: exit {run.returncode} after {took:.1f} s\n  " + "\n  ".join(x[:400] for x in said)
    )
    again, code = 0, run.returncode
    while again < 3 and code:
        more = launch(workdir, "")
        rest, _ = more.communicate(timeout=10 * LIMIT)  # two stages, on a machine that may be busy
        again, code, out = again + 1, more.returncode, rest
    same = code == 0 and parameters(workdir) == parameters(calm)
    row = f"| {name} | {phase}, step {step} | {run.returncode} | {took:.1f} | {len(said)} | {again} | {same} |"
    print(f"  {row}" if same else f"  {row}\n{out}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[""], help="what begins so, e.g. SIGSTOP hung")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm = launch(Path(folder) / "calm", "")
        out, _ = calm.communicate()
        if calm.returncode:
            sys.exit(out)
        names = [name for name in STRUCK if name.startswith(tuple(args.only))]
        rows = [play(name, Path(folder) / f"w{number}", Path(folder) / "calm") for number, name in enumerate(names)]
    print("\n| what happens | at | exit code | s to the end of both | lines | commands more | parameters as undisturbed |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
