"""Weights & Biases (https://docs.wandb.ai). WANDB_PROJECT, WANDB_MODE, WANDB_DIR and the like hold; without a key nothing is
sent: the run is kept offline in the stage's directory, and `wandb sync` sends it."""

import netrc
import os
import urllib.parse
from collections.abc import Mapping

import wandb
from etils import epath

from vlax.storage import paths
from vlax.training.listeners import Progress, Shown
from vlax.training.trackers.tracker import PROJECT, About


class Wandb:
    """A Tracker."""

    run: wandb.Run

    def begin(self, about: About) -> None:
        mode = None if os.environ.get("WANDB_MODE") or has_key() else "offline"  # it would ask on the terminal
        folder = None if paths.remote(about.directory) else os.fspath(about.directory)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), id=about.id, name=about.name, group=about.group, mode=mode,
            dir=os.environ.get("WANDB_DIR", folder), resume="allow", job_type=about.directory.name,
            config={**about.config, "parents": about.parents}, allow_val_change=True,
            settings=wandb.Settings(console="off", silent=True, disable_git=True),
        )  # fmt: skip
        self.run.define_metric("*", step_metric="update")  # its own step may not go back, as a stage does that is gone on with

    def record(self, progress: Progress) -> None:
        values = {f"{progress.kind}/{name}": value for name, value in progress.metrics.items()}
        sets = dict.fromkeys(one.set for one in progress.samples)
        tables = {f"samples/{name}": _table([one for one in progress.samples if one.set == name]) for name in sets}
        self.run.log({**values, **tables, "update": progress.step})

    def attach(self, file: epath.Path) -> None:
        if file.suffix == ".html":
            self.run.log({file.stem: wandb.Html(file.read_text(), inject=False)})
        artifact = wandb.Artifact(f"{self.run.id}-{file.stem}", type="report")
        with artifact.new_file(file.name, mode="wb") as copy:
            copy.write(file.read_bytes())
        self.run.log_artifact(artifact)

    def summary(self, values: Mapping[str, float]) -> None:
        self.run.summary.update({f"eval/{name}": value for name, value in values.items()})

    def end(self, whole: bool) -> None:
        self.run.finish(exit_code=0 if whole else 1)


def has_key() -> bool:
    """Whether `wandb login` or a variable has left a key for the server that is asked for."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC") or os.path.expanduser("~/.netrc")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _table(shown: list[Shown]) -> wandb.Table:
    table = wandb.Table(columns=["row", "picture", "asked", "model", "truth"])
    for one in shown:
        picture = None if one.image is None else wandb.Image(one.image)
        table.add_data(one.id, picture, one.prompt, one.prediction, "; ".join(dict.fromkeys(one.references)))
    return table
