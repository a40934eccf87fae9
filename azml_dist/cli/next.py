"""What to type after a run that completed: the submission of its job, or first a look at what is in its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azml_dist.cli.loading import with_values
from azml_dist.cli.named import RunName, typed
from azml_dist.errors import DistError, counted
from azml_dist.model.given import open_inputs_of
from azml_dist.show import Row

if TYPE_CHECKING:
    from azml_dist.as_job import AnyJob


def next_rows(job: str, written: AnyJob, settings: tuple[str, ...], inputs: tuple[str, ...]) -> list[Row]:
    """What comes next; `written` is the job without what `--input` changes."""
    if hasattr(written, "head"):  # a pipeline, which only `az ml` submits
        return []
    inputs = _for_azure(written, inputs)
    again = typed(job, settings, inputs)
    look = f"azml-dist submit {again} --dry-run" if isinstance(job, RunName) else f"azml-dist plan {again}"
    try:
        found = [one for one in with_values(written, inputs).plan().findings if one.level != "note"]
    except DistError:
        return [Row("next", look, whole=True)]
    if found:
        return [Row("plan", f"{counted(found)} to look at before you submit"), Row("next", look, whole=True)]
    return [Row("next", f"azml-dist submit {again}", whole=True)]


def _for_azure(job: AnyJob, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Values, and data that the job does not name itself: paths in place of such data are for this machine."""
    single: Any = getattr(job, "job", job)
    own = {name for name in single.inputs if single.is_data(name)} - {*open_inputs_of(job)}
    return tuple(text for text in inputs if text.partition("=")[0] not in own)
