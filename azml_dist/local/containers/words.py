"""The command lines of a container engine for a run: docker and podman understand all of them alike, but for GPUs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Sequence
from typing import NamedTuple

from azml_dist.errors import LaunchError
from azml_dist.plan.plan import LaunchPlan

SHARED_MEMORY = "2g"
"""Azure ML's default (documented in "CLI (v2) command job YAML schema")."""
INSIDE = "/run/azml-dist"
"""Where a container finds what it shares with the processes that stand for its ranks."""
HOLD = f"echo up > {INSIDE}/up && read -r _ < {INSIDE}/lifeline; exit 0"
"""What holds a node's container: it ends when nobody has the other end of the pipe open any more."""


class Engine(NamedTuple):
    """A container engine that works here."""

    path: str

    @property
    def name(self) -> str:
        return os.path.basename(self.path)


class Node(NamedTuple):
    """The container of one node."""

    name: str
    image: str
    shm_size: str
    docker_args: Sequence[str]
    mounts: Sequence[Mount]
    gpus: Sequence[str]
    joins: str | None
    """The container whose network it uses: that of node 0, so that the nodes of a run have one network of their own."""


class Mount(NamedTuple):
    """Something of this machine, under the path that the command and the variables of the run have for it."""

    source: str
    target: str
    read_only: bool = False


def node_of(plan: LaunchPlan, node: int, image: str, shared: str, gpus: Sequence[str]) -> Node:
    """The container of a node. `shared` is the folder that it shares with the processes that stand for its ranks."""
    names = [f"azml-dist-{plan.place.run_id}-{plan.place.attempt}-{one}" for one in (0, node)]
    args = plan.job.docker_args
    return Node(
        name=names[1],
        image=image,
        shm_size=plan.job.shm_size or SHARED_MEMORY,
        docker_args=shlex.split(args) if isinstance(args, str) else list(args or ()),
        mounts=[Mount(shared, INSIDE), *_mounts(plan, node)],
        gpus=gpus,
        joins=names[0] if node else None,
    )


def _mounts(plan: LaunchPlan, node: int) -> list[Mount]:
    place, job = plan.place, plan.job
    own = (place.working_dir(node), place.capability(node))
    found = [Mount(os.path.realpath(path), path) for path in own]
    for name, path in place.inputs.items():
        mode = getattr(job.inputs[name], "mode", None) or "ro_mount"
        found.append(Mount(os.path.realpath(path), path, mode in ("ro_mount", "mount", "eval_mount")))
    for name, path in place.outputs.items():
        # A `uri_file` output is a file that does not exist yet, in a folder of its own.
        folder = os.path.dirname(path) if job.outputs[name].type == "uri_file" else path
        found.append(Mount(os.path.realpath(folder), folder))
    return list(dict.fromkeys(found))


def run_words(engine: Engine, node: Node, verb: Sequence[str] = ("run", "--detach", "--rm")) -> list[str]:
    """Starts the container of a node, which holds it until the lifeline is cut."""
    return [engine.path, *verb, *_options(engine, node), "--entrypoint", "bash", node.image, "-c", HOLD]


def trial_words(engine: Engine, node: Node) -> list[str]:
    """Starts such a container, with bash and nothing to do, to find out whether that works here."""
    one = node._replace(name=f"{node.name}-trial", mounts=(), joins=None)
    return [engine.path, "run", "--rm", *_options(engine, one), "--entrypoint", "bash", one.image, "-c", ":"]


def _options(engine: Engine, node: Node) -> list[str]:
    network = ["--network", f"container:{node.joins}"] if node.joins else []
    mounts = [word for mount in node.mounts for word in ("--mount", _mount(mount))]
    # On systems with SELinux, a container may not read folders of this machine otherwise.
    own = ["--name", node.name, "--shm-size", node.shm_size, "--security-opt", "label=disable"]
    return [*own, *network, *mounts, *_gpus(engine, node.gpus), *node.docker_args]


def _mount(mount: Mount) -> str:
    if any(letter in mount.source + mount.target for letter in ',"\n'):
        raise LaunchError(
            f"{mount.source} cannot be mounted into a container: its path has a comma, a quote or a newline",
            hint="choose another path, for example a link to it",
        )
    return f"type=bind,source={mount.source},target={mount.target}{',readonly' if mount.read_only else ''}"


def _gpus(engine: Engine, gpus: Sequence[str]) -> list[str]:
    """Docker has an option for GPUs; podman knows them as devices of NVIDIA's container toolkit."""
    if not gpus:
        return []
    if engine.name == "podman":
        return [word for gpu in gpus for word in ("--device", f"nvidia.com/gpu={gpu}")]
    return ["--gpus", f'"device={",".join(gpus)}"']


def exec_words(engine: Engine, name: str, rank: str, cwd: str, variables: Collection[str]) -> list[str]:
    """The words before a command that run it in a container; values of variables come from the engine's own
    environment, so that none is on a command line."""
    env = [word for variable in sorted(variables) for word in ("--env", variable)]
    return [engine.path, "exec", "--workdir", cwd, *env, name, "bash", "-c", noted(rank), "bash"]


def noted(rank: str) -> str:
    """Notes the id of a process, which leads a session of its own, and becomes the command."""
    return f'echo $$ > {INSIDE}/{rank}.pid && exec "$@"'


def kill_words(engine: Engine, name: str, rank: str, signal: str) -> list[str]:
    """Sends a signal to all processes of a rank: an engine passes none on to what it runs in a container."""
    pid = f'"$(cat {INSIDE}/{rank}.pid)"'
    return [engine.path, "exec", name, "bash", "-c", f"kill -s {signal} -- -{pid} || kill -s {signal} {pid}"]


def build_words(engine: Engine, tag: str, dockerfile: str, folder: str) -> list[str]:
    """Builds the image of a job from its folder."""
    return [engine.path, "build", "--tag", tag, "--file", dockerfile, folder]
