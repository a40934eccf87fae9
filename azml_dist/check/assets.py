"""Whether everything exists that a job refers to by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from azml_dist.check.facts import Asset, Facts, Here, Missing, NotChecked, Size, Unknown
from azml_dist.check.parts import Part, Reference
from azml_dist.errors import Finding, JobError
from azml_dist.model.parts import Input
from azml_dist.plan.snapshot import take_snapshot
from azml_dist.words import did_you_mean, size_text


def asset_findings(
    reference: Reference, found: Mapping[Asset, Here | Missing | Unknown]
) -> Iterator[Finding | NotChecked]:
    """The findings about one reference."""
    asset = reference.asset
    if asset is None:
        yield NotChecked(f"`{reference.text}`", "it is not in this workspace")
        return
    match found.get(asset):
        case Unknown(why):
            yield NotChecked(str(asset), why)
        case Missing() as missing:
            yield _missing(asset, missing, reference.where)


def image_findings(environment: object, facts: Facts) -> Iterator[Finding]:
    """Whether this submission registers the environment, so that its image is built before the run starts."""
    asset = facts.written_out.get(repr(environment))
    if asset and isinstance(facts.assets.get(asset), Missing):
        yield Finding(
            "builds-image",
            "warning",
            "the environment is new in the workspace: Azure ML builds its image before the run starts, which takes"
            " from a few minutes to half an hour",
            "to use an existing image, refer to a registered environment: `azureml:NAME:VERSION`",
            "environment",
        )


def _missing(asset: Asset, missing: Missing, where: str) -> Finding:
    if missing.latest:
        hint = f"its latest version is {missing.latest}"
    elif missing.near:
        hint = str(did_you_mean(missing.near[:3]))
    else:
        hint = f"`az ml {asset.noun.replace('code', 'data')} list` shows what exists"
    return Finding(f"no-such-{asset.noun}", "error", f"the workspace has no {asset}", hint, where)


def download_findings(part: Part, size: Size | None) -> Iterator[Finding]:
    """Whether the disk of a node has room for what it downloads, as far as we can know from local data."""
    if size is None or not size.disk_mb:
        return
    downloaded = {
        name: _bytes(path)
        for name, value in part.job.inputs.items()
        if isinstance(value, Input) and value.mode == "download" and (path := part.job.local_path(name))
    }
    if sum(downloaded.values()) > size.disk_mb * 2**20:
        largest = max(downloaded, key=lambda name: downloaded[name])
        yield Finding(
            "small-disk",
            "warning",
            f"a node of {size.name} has a disk of {size_text(size.disk_mb * 2**20)}, but the inputs to download have"
            f" {size_text(sum(downloaded.values()))}",
            "write `mode: ro_mount`, which reads the data without a copy",
            f"inputs.{largest}",
        )


def _bytes(path: str) -> int:
    try:
        return take_snapshot(path).bytes
    except (OSError, JobError):  # the submission will refuse it
        return 0
