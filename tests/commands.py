"""Runs many commands as a user's shell would, and pays for the imports once: every one is a fork of a process that has them."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
DRIVER = """
import json, os, runpy, sys
sys.path.insert(0, os.getcwd())
import vlax.commands.export, vlax.commands.train, vlax.commands.eval
from vlax.evaluation import evaluate, sampling, terminal
from vlax.model import api, from_pretrained
from vlax.training import chain
from vlax.training.inspect import inspection
results = []
for number, (program, *args) in enumerate(json.load(open(sys.argv[1]))):
    out, err = (f"{sys.argv[1]}.{number}.{name}" for name in ("out", "err"))
    child = os.fork()
    if not child:
        for path, target in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), target)
        code = 0
        try:
            if program == "-c":
                exec(args[0], {"__name__": "__main__"})
            elif program == "-m":
                sys.argv = args
                runpy.run_module(args[0], run_name="__main__", alter_sys=True)
            else:
                sys.argv = [program, *args]
                runpy.run_path(program, run_name="__main__")
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results.append((code, open(out).read(), open(err).read()))
json.dump(results, open(sys.argv[2], "w"))
"""


def run(commands: list[list[str]], cwd: Path, notes: Path, path: str = "") -> list[tuple[int, str, str]]:
    """[(exit code, stdout, stderr)] of `python ARGS` in the folder cwd, one after the other; notes: a folder for our files;
    path: PYTHONPATH."""
    (notes / "commands").write_text(json.dumps(commands))
    command = [sys.executable, "-c", DRIVER, str(notes / "commands"), str(notes / "results")]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(REPO / ".cache" / "xla"), "PYTHONPATH": str(path)}
    subprocess.run(command, cwd=cwd, check=True, env=environment)
    return [tuple(result) for result in json.loads((notes / "results").read_text())]
