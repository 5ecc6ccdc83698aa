"""Trackio (https://github.com/gradio-app/trackio), which keeps runs on this machine; TRACKIO_DIR says where, TRACKIO_PROJECT
under which project, and `trackio show` shows them. TRACKIO_SPACE_ID sends them to a Space."""

import os
from collections.abc import Mapping

import trackio
from etils import epath

from vlax.storage import paths
from vlax.training.listeners import Progress
from vlax.training.trackers.tracker import PROJECT, About


class Trackio:
    """A Tracker."""

    run: trackio.Run

    def begin(self, about: About) -> None:
        self.run = trackio.init(
            os.environ.get("TRACKIO_PROJECT", PROJECT), name=f"{about.name} {about.id[:8]}", group=about.group, resume="allow",
            space_id=os.environ.get("TRACKIO_SPACE_ID"), config={**about.config, "parents": dict(about.parents)}, embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def record(self, progress: Progress) -> None:
        values: dict[str, object] = {f"{progress.kind}/{name}": value for name, value in progress.metrics.items()}
        for number, one in enumerate(progress.samples):
            said = f"{one.prompt} {one.prediction} ({'; '.join(dict.fromkeys(one.references))})".strip()
            text: object = said if one.image is None else trackio.Image(one.image, caption=said)
            values[f"samples/{one.set}/{number}"] = text
        self.run.log(values, step=progress.step)

    def attach(self, file: epath.Path) -> None:
        artifact = trackio.Artifact(f"{self.run.name}-{file.stem}".replace("/", "-").replace(" ", "-"), type="report")
        with paths.local_folder(file.parent) as local:
            artifact.add_file(f"{local}/{file.name}")
            self.run.log_artifact(artifact)

    def summary(self, values: Mapping[str, float]) -> None:
        self.run.log({f"eval/{name}": value for name, value in values.items()})

    def end(self, whole: bool) -> None:
        del whole  # it knows no failed runs
        self.run.finish()
