"""`Pipeline`: jobs that pass data on, and what you can do with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

from azml_dist.files.pipelinefile import load_pipeline, pipeline_of, with_settings
from azml_dist.job import Job
from azml_dist.model.given import with_inputs
from azml_dist.model.pipeline import PipelineFields
from azml_dist.plan.pipeline import PipelinePlan, plan_pipeline
from azml_dist.sdk.from_pipeline import document_of

if TYPE_CHECKING:
    from azure.ai.ml.entities import PipelineJob


@dataclass(frozen=True)
class Pipeline(PipelineFields):
    """Several jobs; each starts when the jobs whose outputs it reads have finished."""

    head: Job
    """The fields of the pipeline itself: its name, inputs, outputs and so on. Its command never runs."""

    @classmethod
    def from_azure(cls, pipeline: PipelineJob) -> Pipeline:
        """The pipeline that azure-ai-ml's own stands for: what a `@dsl.pipeline` function or `load_job` returns."""
        return pipeline_of(cls, Job, document_of(pipeline))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Pipeline:
        """The pipeline in an `az ml` YAML file, with paths relative to its folder."""
        return load_pipeline(cls, Job, path)

    def step(self, name: str) -> Job:
        """The job of one step; set the inputs that would come from other steps, like any data that is not local."""
        return cast(Job, super().step(name))

    def with_inputs(self, given: Mapping[str, Any]) -> Pipeline:
        """The pipeline with other inputs: paths for data, values for literals."""
        return pipeline_of(type(self), Job, self.document, with_inputs(self.head, given)) if given else self

    def with_set(self, *settings: str) -> Pipeline:
        """A changed copy, with the syntax of `--set FIELD=VALUE` and the file's names: `jobs.train.inputs.epochs=3`."""
        return with_settings(self, settings)

    def plan(self) -> PipelinePlan:
        """What this pipeline means: offline, without credentials. `print` it."""
        return plan_pipeline(self)
