"""Identifies files and environments by their content: the hashes under which a workspace stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from azml_dist.errors import JobError
from azml_dist.model.parts import Environment
from azml_dist.notation.expressions import is_remote
from azml_dist.plan.snapshot import CodeFile, Snapshot, take_snapshot
from azml_dist.sdk.command import environment_entity
from azml_dist.words import is_utf8

ANONYMOUS = "CliV2AnonymousEnvironment"
"""The name that azure-ai-ml gives to anything defined in a job; its version is a hash."""


def content_hash(code: Snapshot) -> str:
    """azure-ai-ml's own hash of a folder, so that its uploads are found too."""
    files = sorted(code.files, key=lambda file: file.path.lower())
    if odd := next((file.path for file in files if not is_utf8(file.path)), None):
        hint = "rename it, or exclude it in an .amlignore"
        raise JobError(f"the name of {odd} is not UTF-8, which Azure's storage requires", hint=hint, where="code")
    digest = hashlib.sha256(str(len(files)).encode())
    for file in files:
        digest.update(f"#{file.path}#{file.size}".encode())
    for file in files:
        for chunk in _chunks(Path(file.source)):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def local_files(path: Path, where: str) -> Snapshot:
    """The files of a folder to upload, or the one file."""
    if not path.is_dir():
        return Snapshot(None, (CodeFile("", str(path.resolve()), path.stat().st_size),), ())
    found = take_snapshot(path)
    if found.broken_links:
        raise JobError(
            f"the link `{found.broken_links[0]}` in {path} is broken",
            hint="fix it, or list it in an .amlignore there",
            where=where,
        )
    if found.irregular:
        raise JobError(
            f"{found.irregular[0]}, is in {path}, but only files can be uploaded",
            hint="remove it, or list it in an .amlignore there",
            where=where,
        )
    if not found.files:
        raise JobError(f"the folder {path} has no files", hint="Azure ML refuses empty data", where=where)
    return found


def build_version(digest: str, dockerfile: str | None) -> str:
    """The version of an environment that is built from a folder with this content."""
    return hashlib.sha256(f"{digest} {dockerfile or ''}".encode()).hexdigest()


def registered_as(environment: Environment) -> tuple[str, str] | None:
    """The name and version under which an environment of a job is registered; None if the service chooses them."""
    build = environment.build
    if environment.name is not None:
        return (environment.name, environment.version) if environment.version else None
    if build is not None and not is_remote(build.path):
        digest = content_hash(local_files(Path(build.path), "environment.build.path"))
        return ANONYMOUS, build_version(digest, build.dockerfile_path)
    entity = environment_entity(environment)
    return (str(entity.name), str(entity.version)) if entity.name and entity.version else None
