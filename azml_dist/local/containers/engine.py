"""Which container engine works here, and the image that a job asks for."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

from azml_dist.errors import JobError, LaunchError
from azml_dist.local.containers.words import Engine, Node, build_words, trial_words
from azml_dist.model.job import JobFields
from azml_dist.model.parts import Build

ENGINES = ("podman", "docker")
"""The engines that are tried, in this order."""
_PATIENCE = 30
"""Seconds for a question to an engine."""


class Image(NamedTuple):
    """The image of a job: a name, and the folder that it is built from, if it is."""

    name: str
    dockerfile: str | None = None
    folder: str | None = None


def image_of(job: JobFields) -> Image:
    """The image that the job's environment names. Raises `JobError` if only the workspace knows it."""
    environment = job.environment
    if environment is None or isinstance(environment, str):
        why = f"only the workspace knows the image of `{environment}`" if environment else "the job has no environment"
        raise JobError(
            f"`--image` needs the image of the job, but {why}",
            hint="name an image for this run: `--set 'environment={image: IMAGE}'`",
            where="environment",
        )
    if environment.conda_file:
        raise JobError(
            "the environment adds conda packages to an image, and only Azure ML builds that",
            hint="run in its packages with `--packages job`, or name a complete image: "
            "`--set 'environment={image: IMAGE}'`",
            where="environment.conda_file",
        )
    return _built(environment.build) if environment.build else Image(str(environment.image))


def _built(build: Build) -> Image:
    if not os.path.isdir(build.path):
        raise JobError(
            f"the image is built from {build.path}, which is not a folder on this machine",
            hint="name an image: `--set 'environment={image: IMAGE}'`",
            where="environment.build.path",
        )
    folder = os.path.abspath(build.path)
    dockerfile = os.path.join(folder, build.dockerfile_path or "Dockerfile")
    return Image(f"azml-dist/{hashlib.sha256(dockerfile.encode()).hexdigest()[:12]}", dockerfile, folder)


def working_engine(image: Image, trial: Callable[[Engine], Node], tell: Callable[[str], None] | None) -> Engine:
    """The first engine that starts a container of the image. Raises `LaunchError` with what each of them said."""
    whys = []
    for engine in _installed():
        if (why := _why_not(engine, image, trial, tell)) is None:
            return engine
        whys.append(f"{engine.name}: {why}")
    if not whys:
        raise LaunchError(
            "`--image` needs docker or podman, and neither is installed",
            hint="install one, or run in the packages of the environment: `--packages job`",
        )
    raise LaunchError(
        f"no container of {image.name} can be started here: {'; '.join(whys)}",
        hint="see whether `docker run` or `podman run` works with it; or run in its packages: `--packages job`",
    )


def _installed() -> Iterator[Engine]:
    for name in ENGINES:
        if path := shutil.which(name):
            yield Engine(os.path.abspath(path))


def _why_not(
    engine: Engine, image: Image, trial: Callable[[Engine], Node], tell: Callable[[str], None] | None
) -> str | None:
    """Why an engine does not work, in its own words; None if it does."""
    if why := _said([engine.path, "info"], _PATIENCE):
        return why
    if image.folder and image.dockerfile:
        if tell:
            tell(f"building the image of the job with {engine.name}")
        if why := _said(build_words(engine, image.name, image.dockerfile, image.folder), None):
            return why
    elif _said([engine.path, "image", "inspect", image.name], _PATIENCE):
        if tell:
            tell(f"pulling {image.name} with {engine.name}")
        if why := _said([engine.path, "pull", image.name], None):
            return why
    return _said(trial_words(engine, trial(engine)), None)


def _said(words: list[str], timeout: float | None) -> str | None:
    """The last line that a failing command printed; None if it succeeded."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return f"`{words[1]}` did not answer within {timeout} s"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in (done.stderr or done.stdout).decode(errors="replace").splitlines()]
    spoken = [line for line in lines if line and not line.startswith(("Run '", "See '"))]
    return spoken[-1].removeprefix("Error: ")[:300] if spoken else f"`{words[1]}` ended with {done.returncode}"
