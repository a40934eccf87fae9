"""What is not the same when a run of Azure ML is repeated on this machine, in sentences."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from azml_dist.azureml.addresses import is_https
from azml_dist.azureml.answers import BrokenAnswerError
from azml_dist.azureml.ranges import Ranges
from azml_dist.errors import DistError
from azml_dist.model.parts import Environment
from azml_dist.notation.document import parse_value
from azml_dist.runs.target import readable
from azml_dist.verdict.hidden import is_secret

if TYPE_CHECKING:
    from azml_dist.azureml.workspace import Workspace
    from azml_dist.model.job import JobFields

_HEAD = 1 << 16
"""How many bytes at the start of a log are searched for versions."""
_LOGS = 3
"""How many logs are searched."""
_SHOWN = 8
_REFERENCE = re.compile(r"azureml:([\w.-]+):([\w.-]+)")
_FREEZE = re.compile(rb"^([A-Za-z][\w.-]{1,60})==(\d[\w.+!-]{0,40})\s*$", re.MULTILINE)
"""A line of `pip freeze`."""
_SAID = re.compile(
    rb"(?i)\b(torch|pytorch|tensorflow|transformers|lightning|pytorch[-_]lightning|accelerate|deepspeed|horovod|numpy|ray"
    rb"|mpi4py|jax)(?:\.__version__)?(?:[ _-]version)?\s*(?:[:=]|\bis\b)?\s*v?(\d+\.\d+(?:\.\d+)?(?:\+[\w.]+)?)\b"
)
"""Such as `PyTorch version: 2.4.1`, `torch 2.4.1+cu121`."""
_PYTHON = re.compile(rb"\bPython(?: version)?[: ]\s*(3\.\d+)(?:\.\d+)?")
_NAMES = {"pytorch": "torch"}


class Installed(NamedTuple):
    """What the environment of a run is."""

    environment: Environment | None
    """Its definition, if it can be read."""
    note: str


def environment_of(workspace: Workspace, job: JobFields) -> Installed:
    """The definition of the environment that a job names, and what to say about it."""
    from azure.core.exceptions import AzureError

    reference = job.environment
    found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if not found:
        return Installed(None, f"it ran in {readable(str(reference))[:200]}, and here with the packages of your Python")
    try:
        properties = workspace.arm.read(f"environments/{found[1]}/versions/{found[2]}").object("properties")
        image, conda = properties.text("image"), properties.text("condaFile")
        data = parse_value(conda) if conda else None
        known = Environment(image=image, conda_file=data) if image else None
    except (AzureError, BrokenAnswerError, DistError) as error:
        why = str(error).partition("\n")[0][:200]
        return Installed(
            None, f"its environment {found[1]}:{found[2]} was not compared, because it cannot be read: {why}"
        )
    where = readable(image or "an image of its own")[:200]
    way = "; `--packages job` installs what its environment lists" if data else ""
    note = f"it ran in {where} (environment {found[1]}:{found[2]}), and here with the packages of your Python{way}"
    return Installed(known, note)


def without_secrets(job: JobFields) -> tuple[dict[str, str], str | None]:
    """The secret variables of a job with their values, and what to say about them."""
    secrets = {name: value for name, value in job.environment_variables.items() if value and is_secret(name, value)}
    names = ", ".join(secrets)
    if not secrets:
        return {}, None
    whose = (
        "has the value that the workspace keeps" if len(secrets) == 1 else "have the values that the workspace keeps"
    )
    return secrets, f"{names} {whose}, unless your own environment sets it; it is not written to any file here"


def identity_note(job: JobFields) -> str | None:
    """Which identity accessed data there."""
    if job.identity is None:
        return None
    kind = job.identity.type.replace("_", " ")
    return f"it accessed data with the identity `{kind}`, and here as you"


def versions_note(logs: Mapping[str, str], ranges: Ranges) -> str | None:
    """Packages whose version in the first lines of a run's logs differs from that here; None if none does."""
    there: dict[str, str] = {}
    for path, url in sorted(logs.items(), key=lambda log: not log[0].startswith("user_logs/"))[:_LOGS]:
        if is_https(url):
            there = {**dict(versions_in(ranges.get(path, url, 0, _HEAD).data)), **there}
    differing = [(name, version, here) for name, version in there.items() if (here := _here(name)) != version]
    if not differing:
        return None
    said = ", ".join(f"{name} {version}" for name, version, _ in differing[:_SHOWN])
    found = ", ".join(f"{name} {here}" if here else f"no {name}" for name, _, here in differing[:_SHOWN])
    return f"its logs show {said}; here: {found}"


def versions_in(text: bytes) -> Iterator[tuple[str, str]]:
    """Names and versions of packages, and of Python, as logs print them."""
    found: Iterable[Any] = [*_FREEZE.findall(text), *_SAID.findall(text)]
    for name, version in found:
        word = name.decode().lower().replace("_", "-")
        yield _NAMES.get(word, word), version.decode()
    if python := _PYTHON.search(text):
        yield "python", python[1].decode()


def _here(name: str) -> str | None:
    if name == "python":
        return ".".join(platform.python_version_tuple()[:2])
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
