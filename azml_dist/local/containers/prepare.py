"""Prepares the containers of a run: what each process that stands for a rank has to know."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from azml_dist.errors import LaunchError
from azml_dist.local.containers.engine import Image, image_of, working_engine
from azml_dist.local.containers.words import INSIDE, Engine, Node, exec_words, kill_words, node_of, run_words
from azml_dist.local.gpus import visible_gpus
from azml_dist.plan.plan import LaunchPlan

_FOLDER = Path(__file__).parent
_OF_THE_GPUS = "CUDA_VISIBLE_DEVICES"
"""Not for a container: it has only the GPUs of its node, which count from 0 there."""


class Containers:
    """The engine and the image of a run."""

    def __init__(self, engine: Engine, image: Image) -> None:
        self.engine, self.image = engine, image

    @property
    def finding(self) -> str:
        return (
            f"the nodes are containers of {self.image.name}, started with {self.engine.name}: experimental, and hangs "
            "are not watched for"
        )

    def of_an_attempt(
        self, plan: LaunchPlan, temp: str, variables: Collection[str], slices: Sequence[Mapping[str, str]]
    ) -> list[list[str]]:
        """For each node the words before a rank and its command that run it in the container of that node."""
        names = [name for name in variables if name != _OF_THE_GPUS]
        folders = [Path(temp, "nodes", str(plan.place.attempt), str(node)) for node in range(plan.world.node_count)]
        for node, folder in enumerate(folders):
            folder.mkdir(parents=True)
            os.mkfifo(folder / "lifeline")
            seen = slices[node].get(_OF_THE_GPUS)
            gpus = visible_gpus(os.environ) if seen is None else [gpu for gpu in seen.split(",") if gpu]
            one = node_of(plan, node, self.image.name, str(folder), gpus)
            known = self._known(plan, node, one, folders, names)
            (folder / "node.json").write_text(json.dumps(known))
        return [[sys.executable, "-I", "-S", str(_FOLDER / "stand_in.py"), str(f / "node.json")] for f in folders]

    def _known(
        self, plan: LaunchPlan, node: int, one: Node, folders: Sequence[Path], names: Collection[str]
    ) -> dict[str, object]:
        return {
            "shared": str(folders[node]),
            "first": str(folders[0]),
            "others": [] if node else [str(folder) for folder in folders[1:]],
            "variables": sorted(names),
            "start": run_words(self.engine, one),
            "exec": exec_words(self.engine, one.name, "{rank}", plan.place.working_dir(node), names),
            "kill": kill_words(self.engine, one.name, "{rank}", "{signal}"),
            "bridge": None if node else self._bridge(plan, one, folders[0]),
        }

    def _bridge(self, plan: LaunchPlan, one: Node, folder: Path) -> list[list[str]] | None:
        """What connects the containers with the MLflow server of the run, outside and inside."""
        port = urlsplit(plan.place.tracking_uri).port
        if port is None:
            return None
        script = _FOLDER / "bridge.py"
        outside = [str(folder / "mlflow.sock"), str(port), str(folder / "lifeline")]
        inside = ["python3", "-c", script.read_text(encoding="utf-8"), "inside", f"{INSIDE}/mlflow.sock", str(port)]
        return [
            [sys.executable, "-I", "-S", str(script), "outside", *outside],
            [self.engine.path, "exec", "--detach", one.name, *inside],
        ]


def containers_of(plan: LaunchPlan, tell: Callable[[str], None] | None = None) -> Containers:
    """The containers of a run of this plan. Raises `LaunchError` if none can be started here, and says why."""
    if plan.world.distribution not in (None, "PyTorch", "TensorFlow"):
        raise LaunchError(
            f"{plan.world.distribution} jobs cannot run in containers: their launcher would have to run in the image",
            hint="leave out `--image`",
        )
    if sys.platform != "linux":
        raise LaunchError("runs in containers need Linux", hint="leave out `--image`")
    image = image_of(plan.job)

    def trial(engine: Engine) -> Node:
        return node_of(plan, 0, image.name, "/", visible_gpus(os.environ))._replace(name=f"azml-dist-{os.getpid()}")

    return Containers(working_engine(image, trial, tell), image)
