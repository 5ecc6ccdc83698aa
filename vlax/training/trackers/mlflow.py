"""MLflow (https://mlflow.org). MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME hold; without the former runs are kept in
WORKDIR/mlruns, which `mlflow ui --backend-store-uri=WORKDIR/mlruns` shows."""

import json
import os
import time
from collections.abc import Mapping

import mlflow
from etils import epath
from mlflow.entities import Metric

from vlax.storage import paths
from vlax.training.listeners import Progress
from vlax.training.trackers.tracker import PROJECT, About

ID = "vlax.id"  # the tag by which the run of a stage is found again


class Mlflow:
    """A Tracker, by the client alone: mlflow's active run is its user's own."""

    client: mlflow.MlflowClient
    run: str

    def begin(self, about: About) -> None:
        where = os.environ.get("MLFLOW_TRACKING_URI")
        if not where:  # a plain folder, which newer versions of mlflow want to be asked for
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            where = (paths.absolute(about.directory.parent) / "mlruns").as_uri()
        self.client = mlflow.MlflowClient(tracking_uri=where)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        found = self.client.search_runs([experiment], f"tags.`{ID}` = '{about.id}'", max_results=1)
        if found:
            self.run = found[0].info.run_id
            self.client.update_run(self.run, status="RUNNING")
            return
        tags = {
            ID: about.id,
            "mlflow.runName": about.name,
            "vlax.group": about.group,
            "vlax.parents": json.dumps(about.parents),
        }
        self.run = self.client.create_run(experiment, tags=tags).info.run_id
        for key, value in _flat(about.config).items():
            self.client.log_param(self.run, key, value)
        self.client.log_dict(self.run, dict(about.config), "config.json")

    def record(self, progress: Progress) -> None:
        now = int(time.time() * 1000)
        values = [Metric(_key(f"{progress.kind}/{name}"), float(value), now, progress.step)
                  for name, value in progress.metrics.items()]  # fmt: skip
        self.client.log_batch(self.run, metrics=values)
        rows: dict[str, list[dict[str, object]]] = {}
        for number, one in enumerate(progress.samples):
            where = f"samples/{_key(one.set)}/{progress.step}"
            if one.image is not None:
                self.client.log_image(self.run, one.image, artifact_file=f"{where}-{number}.png")
            row: dict[str, object] = {
                "row": one.id,
                "asked": one.prompt,
                "model": one.prediction,
                "truth": list(one.references),
            }
            rows.setdefault(f"{where}.json", []).append(row)
        for file, found in rows.items():
            self.client.log_dict(self.run, {"samples": found}, file)

    def attach(self, file: epath.Path) -> None:
        with paths.local_folder(file.parent) as local:
            self.client.log_artifact(self.run, f"{local}/{file.name}")

    def summary(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, _key(f"eval/{name}"), value)

    def end(self, whole: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if whole else "FAILED")


def _key(name: str) -> str:
    """What mlflow takes as a name: no brackets, and one slash, since what it keeps in a folder can't have a metric `loss` and
    another `loss/captions`: "validation/loss/captions" -> "validation/loss.captions"."""
    kind, slash, rest = name.partition("/")
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in f"{kind}{slash}{rest.replace('/', '.')}")


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """{"a": {"b": 1}} -> {"a.b": "1"}"""
    out: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[_key(f"{prefix}{key}")] = str(value)[:500]
    return out
