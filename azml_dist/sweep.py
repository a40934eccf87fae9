"""`Sweep`: one job, run many times with different values of its inputs, and what you can do with it."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

from azml_dist.files.settings import with_sweep_settings
from azml_dist.files.sweepfile import load_sweep
from azml_dist.job import Job
from azml_dist.model.given import with_inputs
from azml_dist.model.sweep import BayesianSampling as BayesianSampling
from azml_dist.model.sweep import GridSampling as GridSampling
from azml_dist.model.sweep import Limits as Limits
from azml_dist.model.sweep import Objective as Objective
from azml_dist.model.sweep import RandomSampling as RandomSampling
from azml_dist.model.sweep import SweepFields, Values
from azml_dist.plan.sweep import SweepPlan, plan_sweep
from azml_dist.sdk.from_sweep import from_sweep
from azml_dist.sdk.sweep import to_azure

if TYPE_CHECKING:
    from azure.ai.ml.entities import Sweep as AzureSweep
    from azure.ai.ml.sweep import SweepJob


class Sweep(SweepFields):
    """One job, run with different values for some of its literal inputs in each trial."""

    job: Job
    """What each trial runs. Inputs in the search space get the values of the trial; the name, compute, inputs, outputs
    and so on are those of the sweep."""

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Sweep:
        """The sweep in an `az ml` YAML file, with paths relative to its folder."""
        return load_sweep(cls, Job, path)

    def plan(self) -> SweepPlan:
        """What this sweep means: offline, without credentials. `print` it."""
        return plan_sweep(self)

    def to_azure(self) -> AzureSweep:
        """azure-ai-ml's own sweep, for its client to submit or for a pipeline."""
        return to_azure(self)

    @classmethod
    def from_azure(cls, sweep: AzureSweep | SweepJob) -> Sweep:
        """The sweep that azure-ai-ml's own stands for: what `command(...).sweep(...)` or `load_job` returns."""
        job, fields = from_sweep(Job, sweep)
        return cls(job=job, **fields)

    def with_inputs(self, given: Mapping[str, Any]) -> Sweep:
        """The sweep with other inputs for its job: paths for data, values for literals."""
        return self.with_(job=with_inputs(self.job, given)) if given else self

    def with_set(self, *settings: str) -> Sweep:
        """A changed copy, with the syntax of `--set FIELD=VALUE`, for fields of the sweep or of its job."""
        return with_sweep_settings(self, settings)

    def trial(self, values: Values) -> Job:
        """The job of a trial, with its values."""
        return cast(Job, super().trial(values))
