"""MLflow's file store, as far as training scripts use it: one in each folder of runs, with an MLflow run for each run.

`ROOT/mlruns/EXPERIMENT/NAME` is a link to `ROOT/NAME/mlruns/EXPERIMENT/NAME`: MLflow sees all runs side by side, and a
run that is deleted disappears there too. Writers hold the store's lock and replace whole files; a metric is one line,
written at once. So readers that ignore the lock, such as MLflow's own pages, never see half-written data.
Standard library only: the supervisor imports it, and the server starts in a few hundredths of a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from azml_dist.words import late

STORE = "mlruns"
"""The store's folder, in a root and in a run."""
FINISHED, FAILED, KILLED, RUNNING = 3, 4, 5, 1
"""MLflow's numbers for the status of a run."""
STATUSES = {RUNNING: "RUNNING", 2: "SCHEDULED", FINISHED: "FINISHED", FAILED: "FAILED", KILLED: "KILLED"}

KEY_LENGTH, PARAMETER_LENGTH, TAG_LENGTH = 250, 6000, 8000
"""MLflow's own limits (`mlflow/utils/validation.py`). No page documents Azure ML's limit for parameters."""
TAGS, TAG_KEY_LENGTH, TAG_VALUE_LENGTH, METRIC_NAMES = 50, 100, 1000, 50
"""Azure ML's limits for a run, documented in "Service limits in Azure Machine Learning"."""

_KEY = late(r"[/\w.\- :]+")
_RUN_ID = late(r"[a-zA-Z0-9][\w-]{0,255}")
_EXPERIMENT = late(r"[a-zA-Z0-9][\w-]{0,63}")
_LOCK = ".azml-dist.lock"
_NAME_TAG = "mlflow.runName"
_PATIENCE = 60.0
"""Seconds to wait for the lock. MLflow retries by itself if the server is busy."""


class Refused(Exception):
    """A request that cannot be carried out, with MLflow's error code."""

    def __init__(self, message: str, code: str = "INVALID_PARAMETER_VALUE", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock of the root's store: only one process of all its runs may write."""
    fd = os.open(root / STORE / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _try_lock(fd):
            if time.monotonic() > deadline:
                raise Refused("another run keeps the MLflow store of this root locked", "TEMPORARILY_UNAVAILABLE", 503)
            time.sleep(0.002)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    import fcntl  # not available on Windows, which has no local runs

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# Our runs.


def begin_run(folder: Path, experiment: str, display_name: str, parameters: Mapping[str, str]) -> Path:
    """Create the MLflow run for the run in a folder, as the service does before a job starts; returns its folder."""
    root, now = folder.parent, int(time.time() * 1000)
    (root / STORE).mkdir(exist_ok=True)
    with locked(root):
        number = _experiment(root / STORE, experiment, now)
        _forget_the_deleted(root / STORE / number)
        run = folder / STORE / number / folder.name
        for name in ("metrics", "params", "tags", "artifacts"):
            (run / name).mkdir(parents=True)
        _write_experiment(run.parent, experiment, now)  # so that MLflow can also read the run's folder by itself
        for key, value in parameters.items():
            _replace(run, run / "params" / key, value)
        meta: dict[str, Any] = {
            "artifact_uri": (run / "artifacts").as_uri(),
            "end_time": None,
            "entry_point_name": "",
            "experiment_id": number,
            "lifecycle_stage": "active",
            "run_id": folder.name,
            "run_name": display_name,
            "run_uuid": folder.name,
            "source_name": "",
            "source_type": 4,
            "source_version": "",
            "start_time": now,
            "status": RUNNING,
            "tags": [],
            "user_id": "",
        }
        _write_meta(run, meta)
        _name_in_a_tag(run, display_name)
        link(root, run)
    return run


def end_run(run: Path, status: int) -> None:
    """Record how a run ended: Azure ML, not the script, sets the status of a job's run."""
    with locked(run.parents[3]):
        _write_meta(run, {**read_meta(run), "status": status, "end_time": int(time.time() * 1000)})


def _name_in_a_tag(run: Path, name: str) -> None:
    """What MLflow itself does for each run: its page (3.15) fails on an experiment that has a run without tags."""
    _replace(run, run / "tags" / _NAME_TAG, name)


def link(root: Path, run: Path) -> None:
    """Link a run's own folder into the store of the root."""
    with contextlib.suppress(FileExistsError):
        (root / STORE / run.parent.name / run.name).symlink_to(os.path.relpath(run, root / STORE / run.parent.name))


def gather(root: Path) -> None:
    """Link what is not in the store of the root yet: runs of older versions, and runs that were copied here."""
    with locked(root):
        for meta in root.glob(f"[!.]*/{STORE}/*/*/meta.yaml"):
            with contextlib.suppress(OSError, Refused):  # a damaged run keeps no other away
                _gather(root, meta.parent)


def _gather(root: Path, run: Path) -> None:
    experiment = root / STORE / run.parent.name
    if not _EXPERIMENT.fullmatch(experiment.name):
        return
    if not _names(run / "tags"):
        _name_in_a_tag(run, str(read_meta(run).get("run_name") or run.name))
    if not (experiment / "meta.yaml").exists():
        own = run.parent / "meta.yaml"
        name = str(read_meta(run.parent).get("name") or "") if own.is_file() else ""
        _write_experiment(experiment, name or experiment.name, int(time.time() * 1000))
    link(root, run)


def adopt(root: Path, run: Path, parent: Path) -> None:
    """Move what MLflow created in the root's store, such as a nested run, into the folder of its run."""
    ours = parent.parents[1] / run.parent.name / run.name
    ours.parent.mkdir(exist_ok=True)
    run.rename(ours)
    link(root, ours)


def differences(run: Path) -> Iterator[str]:
    """Findings about logged data that exceeds the service's documented limits."""
    metrics = _names(run / "metrics")
    tags = {key: value for key, value in _texts(run / "tags") if key != _NAME_TAG}  # not set by the script
    if len(metrics) > METRIC_NAMES:
        yield f"the run logged {len(metrics)} metrics: Azure ML documents a limit of {METRIC_NAMES} names per run"
    if len(tags) > TAGS:
        yield f"the run set {len(tags)} MLflow tags: Azure ML documents a limit of {TAGS} per run"
    for key, value in tags.items():
        if len(key) > TAG_KEY_LENGTH or len(value) > TAG_VALUE_LENGTH:
            yield (
                f"the MLflow tag `{key[:40]}` has {len(key)} characters in its key and {len(value):,} in its value: "
                f"Azure ML documents limits of {TAG_KEY_LENGTH} and {TAG_VALUE_LENGTH:,}"
            )


def _experiment(store: Path, name: str, now: int) -> str:
    """The id of an experiment, which is created if the store has none with that name."""
    for folder in sorted(store.iterdir()):
        with contextlib.suppress(OSError, Refused):
            if _EXPERIMENT.fullmatch(folder.name) and read_meta(folder).get("name") == name:
                return folder.name
    # As in MLflow: the first is 0 and named Default, any other has a long number that is unique across stores.
    number = "0" if name == "Default" and not (store / "0").exists() else str(time.time_ns())[:18]
    _write_experiment(store / number, name, now)
    return number


def _forget_the_deleted(experiment: Path) -> None:
    """Remove links to runs whose folders are gone: deleted, or never started."""
    for path in experiment.iterdir():
        if path.is_symlink() and not path.exists():
            path.unlink()


def _write_experiment(folder: Path, name: str, now: int) -> None:
    folder.mkdir(exist_ok=True)
    meta = {
        "artifact_location": folder.as_uri(),
        "creation_time": now,
        "experiment_id": folder.name,
        "last_update_time": now,
        "lifecycle_stage": "active",
        "name": name,
    }
    _write_meta(folder, meta)


# What scripts do with runs.


def find_run(root: Path, run_id: Any) -> Path:
    """The folder of a run in the store of a root."""
    if isinstance(run_id, str) and _RUN_ID.fullmatch(run_id):
        for meta in (root / STORE).glob(f"*/{run_id}/meta.yaml"):
            return meta.parent
    raise Refused(f"Run '{run_id}' not found", "RESOURCE_DOES_NOT_EXIST", 404)


def log_metrics(run: Path, metrics: list[dict[str, Any]]) -> None:
    """Append values to metrics."""
    lines: dict[str, str] = {}
    for metric in metrics:
        key = _checked_key(metric, "metric")
        try:
            value, step = float(metric["value"]), int(metric.get("step") or 0)
            at = int(metric.get("timestamp") or time.time() * 1000)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise Refused(f"metric '{key}': value, time and step must be numbers") from error
        lines[key] = lines.get(key, "") + f"{at} {value} {step}\n"
    for key, text in lines.items():
        file = run / "metrics" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def check_parameters(run: Path, parameters: list[dict[str, Any]], limit: int) -> dict[str, str]:
    """New parameters by key; raises if any of them cannot be logged."""
    there, new = set(_names(run / "params")), dict[str, str]()
    for parameter in parameters:
        key, value = _checked_key(parameter, "parameter"), str(parameter.get("value") or "")
        if len(value) > PARAMETER_LENGTH:
            raise Refused(f"the parameter '{key}' has {len(value)} characters; the limit is {PARAMETER_LENGTH}")
        before = (run / "params" / key).read_text() if key in there else new.get(key, value)
        if before != value:
            # In the service's own words (observed), and ours.
            raise Refused(
                f"A given key of Parameters can not modify its value after it is set: '{key}' is '{before}', and not "
                f"'{value}'. Azure ML logs the literal inputs of a job as parameters before its script starts."
            )
        if key not in there:
            new[key] = value
    if len(there) + len(new) > limit:
        raise Refused(
            f"A field of the entity is over the size limit. FieldName=Parameters, Limit={limit}, "
            f"Size={len(there) + len(new)}."
        )
    return new


def write_parameters(run: Path, parameters: Mapping[str, str]) -> None:
    """Log parameters that have been checked."""
    for key, value in parameters.items():
        _replace(run, run / "params" / key, value)


def set_tags(run: Path, tags: list[dict[str, Any]]) -> None:
    """Set tags, replacing their old values."""
    for tag in tags:
        key, value = _checked_key(tag, "tag"), str(tag.get("value") or "")
        if len(value) > TAG_LENGTH:
            raise Refused(f"the tag '{key}' has {len(value)} characters; the limit is {TAG_LENGTH}")
        _replace(run, run / "tags" / key, value)


def rename(run: Path, name: str) -> None:
    """Change the display name of a run."""
    _write_meta(run, {**read_meta(run), "run_name": name})
    _name_in_a_tag(run, name)


def info(run: Path) -> dict[str, Any]:
    """The info of a run, as MLflow's clients expect it."""
    meta = read_meta(run)
    found = {key: meta[key] for key in ("run_id", "run_uuid", "run_name", "experiment_id", "artifact_uri", "user_id")}
    found |= {"status": STATUSES[meta["status"]], "start_time": meta["start_time"], "lifecycle_stage": "active"}
    return found | ({"end_time": meta["end_time"]} if meta["end_time"] else {})


def data(run: Path) -> dict[str, Any]:
    """The last value of each metric, the parameters and the tags of a run."""
    metrics = []
    for key in _names(run / "metrics"):
        rows = [line.split() for line in (run / "metrics" / key).read_text().splitlines()]
        at, value, step, *_ = max(rows, key=lambda row: (int(row[2]), int(row[0]), float(row[1])))
        metrics.append({"key": key, "value": _number(float(value)), "timestamp": int(at), "step": int(step)})
    pairs = {kind: [{"key": key, "value": value} for key, value in _texts(run / kind)] for kind in ("params", "tags")}
    return {"metrics": metrics, **pairs}


def read_meta(folder: Path) -> dict[str, Any]:
    """The fields of a `meta.yaml`, one per line: JSON if we wrote it, plain text if MLflow did."""
    found = {}
    for line in (folder / "meta.yaml").read_text().splitlines():
        key, colon, value = line.partition(": ")
        if not colon:
            raise Refused(f"{folder / 'meta.yaml'} cannot be read", "INTERNAL_ERROR", 500)
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value.strip("'")
    return found


def _write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    _replace(folder, folder / "meta.yaml", "".join(f"{key}: {json.dumps(value)}\n" for key, value in meta.items()))


def _replace(folder: Path, file: Path, text: str) -> None:
    """Write a file atomically, through a draft in the run's own folder, which MLflow does not read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = folder / ".draft"
    draft.write_text(text)
    draft.replace(file)


def _checked_key(entity: Any, kind: str) -> str:
    key = entity.get("key") if isinstance(entity, dict) else None
    if not isinstance(key, str) or not _KEY.fullmatch(key) or len(key) > KEY_LENGTH or _leads_elsewhere(key):
        raise Refused(
            f"'{key}' is not a valid name for a {kind}: use up to {KEY_LENGTH} letters, digits, blanks and _-.:/, and "
            "no path that leads out of a folder"
        )
    return key


def _leads_elsewhere(key: str) -> bool:
    return posixpath.normpath(key) != key or key == "." or key.startswith(("/", ".."))


def _number(value: float) -> float | str:
    """A value as protobuf's JSON has it."""
    if value != value:
        return "NaN"
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(value, value)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for name in _names(folder):
        yield name, (folder / name).read_text()
