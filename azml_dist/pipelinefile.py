"""A `Pipeline` from the pipeline-job YAML of `az ml job create -f`. The schema is azure-ai-ml's `PipelineJobSchema`."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from azml_dist.component import component_of
from azml_dist.errors import JobError, Problem
from azml_dist.inputs import with_inputs
from azml_dist.job import Input, Job, Output
from azml_dist.jobfile import job_of
from azml_dist.model import nearest_or_all, shown
from azml_dist.parameter import Parameter
from azml_dist.pipeline import Pipeline, Step, in_order
from azml_dist.values import is_remote
from azml_dist.yamlfields import READ_ONLY, SAME_NAME, Fields, absolute
from azml_dist.yamlfile import Document, Part, parse_value, read_yaml

Place = tuple[Any, Document, tuple[str, ...]]

_HEAD = ("inputs", "outputs", "compute", "identity", "name", "display_name", "experiment_name", "description", "tags")
_KNOWN = (*_HEAD, "properties", "$schema", "type", "jobs", "settings", "component", *READ_ONLY)
_STEP = (*SAME_NAME, "queue_settings", "resources", "limits")
_OF_A_STEP = ("type", "$schema", "component", "comment", "jobs", *READ_ONLY)
_OVERRIDES = [name for name in _STEP if name not in ("inputs", "outputs", "command", "code", "name", "display_name")]
"""What a step may say otherwise than its component."""
_KINDS = {
    "sweep": "a sweep",
    "parallel": "a parallel job",
    "spark": "a Spark job",
    "automl": "an AutoML job",
    "pipeline": "a pipeline",
    "import": "an import job",
    "data_transfer": "a data transfer",
    "do_while": "a loop",
    "parallel_for": "a loop",
    "if_else": "a condition",
}
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_INPUT = re.compile(r"\$\{\{\s*parent\.inputs\.(\w+)\s*\}\}")
_OUTPUT = re.compile(r"\$\{\{\s*parent\.outputs\.(\w+)\s*\}\}")
_OF_STEP = re.compile(r"\$\{\{\s*parent\.jobs\.(\w+)\.(inputs|outputs)\.(\w+)\s*\}\}")
_PARENT = re.compile(r"\$\{\{\s*parent\.")


def load_pipeline(path: str | os.PathLike[str]) -> Pipeline:
    """The pipeline in a YAML file."""
    return pipeline_of(read_yaml(os.fspath(path), "pipeline"))


def pipeline_of(document: Document, head: Job | None = None) -> Pipeline:
    """The pipeline whose fields these are; with `head` in place of what the file says of the pipeline itself."""
    if problems := list(_problems(document)):
        raise JobError.of(problems)
    head = head or _head(document)
    loading = _Loading(document, head)
    steps = {name: loading.step(name) for name in document.data["jobs"]}
    if loading.problems:
        raise JobError.of(loading.problems)
    settings = document.data.get("settings") or {}
    return Pipeline(document, head, in_order(steps, document), settings.get("continue_on_step_failure") is not False)


def with_settings(pipeline: Pipeline, settings: Sequence[str]) -> Pipeline:
    """The pipeline with every `FIELD=VALUE` set in its file's own terms."""
    data = copy.deepcopy(pipeline.document.data)
    for setting in settings:
        path, equals, text = setting.partition("=")
        *parts, last = path.strip().split(".")
        if not equals or not last:
            raise JobError(f"{setting!r} is not FIELD=VALUE", hint="as in `inputs.epochs=4`", where="--set")
        inside = data
        for part in parts:
            if part in ("inputs", "outputs", "jobs") or inside.get(part) is None:
                inside.setdefault(part, {})
            inside = inside[part]
            if not isinstance(inside, dict):
                raise JobError(f"`{part}` is {shown(inside)}, and has no fields", where=f"--set {path}")
        if parts[:1] == ["jobs"] and parts[1:2] and parts[1] not in pipeline.steps:
            hint = nearest_or_all(parts[1], pipeline.steps)
            raise JobError(f"the pipeline has no step `{parts[1]}`", hint=hint, where=f"--set {path}")
        inside[last] = parse_value(text)
    return pipeline_of(pipeline.document._replace(data=data)) if settings else pipeline


def _problems(document: Document) -> Iterator[Problem]:
    for key in document.data:
        if key not in _KNOWN:
            yield Problem(f"unknown field `{key}`", nearest_or_all(key, _KNOWN), document.where((key,)))
    if "component" in document.data:
        hint = "a file with its `jobs` runs here"
        yield Problem("a pipeline made of one component does not run here", hint, document.where(("component",)))
        return
    jobs = document.data.get("jobs")
    if not isinstance(jobs, dict) or not jobs:
        yield Problem("`jobs` are the steps of a pipeline, by their names", None, document.where(("jobs",)))
        return
    for name, step in jobs.items():
        if not _NAME.fullmatch(name):
            hint = "letters, digits and `_`, not starting with a digit"
            yield Problem(f"{shown(name)} is not the name of a step", hint, document.where(("jobs", name)))
        if not isinstance(step, dict):
            yield Problem(f"{shown(step)} is not a mapping of fields to values", None, document.where(("jobs", name)))
    if not isinstance(document.data.get("settings") or {}, dict):
        yield Problem("`settings` is a mapping of fields to values", None, document.where(("settings",)))


def _head(document: Document) -> Job:
    values: dict[str, Place] = {
        name: (document.data[name], document, (name,)) for name in _HEAD if name in document.data
    }
    values["command"] = ("true", document, ())
    inputs = document.data.get("inputs")
    if isinstance(inputs, dict):
        values["inputs"] = ({name: _default(value) for name, value in inputs.items()}, document, ("inputs",))
    return job_of(Part.of(document.file, values))


def _default(value: Any) -> Any:
    """An input that is declared and not given: its default, or that it is still to be given."""
    if not isinstance(value, dict) or "path" in value or "value" in value or "type" not in value:
        return value
    if "default" in value:
        return value["default"]
    return Parameter(**{name: inner for name, inner in value.items() if name in ("type", "optional", "description")})


class _Loading:
    """The steps of one pipeline on their way into jobs."""

    def __init__(self, document: Document, head: Job) -> None:
        self._document, self._head = document, head
        self._jobs: dict[str, dict[str, Any]] = document.data["jobs"]
        self._folder = Path(document.file).absolute().parent
        self._components: dict[str, Job | str] = {}
        self.problems: list[Problem] = []

    def step(self, name: str) -> Step:
        """A step; what is wrong with it is kept."""
        needs = tuple(dict.fromkeys(match[1] for match in _OF_STEP.finditer(str(self._inputs_of(name).values()))))
        try:
            component = self._component(name)
            if isinstance(component, str):
                return Step(name, None, component, needs=self._known(name, needs))
            job = self._with_inputs(name, component or self._inline(name))
            if component:
                job = self._with_overrides(name, job)
            job, bound = self._with_outputs(name, job)
        except JobError as error:
            self.problems += [self._in_step(name, problem) for problem in error.problems]
            return Step(name, None)
        if job.compute is None and job.instance_type is None and (compute := self._default_compute()):
            job = job.with_(compute=compute)
        experiment = {"experiment_name": self._head.experiment_name} if self._head.experiment_name else {}
        texts = {
            key: value.get("path") if isinstance(value, dict) else value for key, value in self._inputs_of(name).items()
        }
        parents = {key: match[1] for key, text in texts.items() if (match := _INPUT.fullmatch(str(text)))}
        return Step(name, job.with_(**experiment), bound=bound, inputs=parents, needs=self._known(name, needs))

    def _in_step(self, name: str, problem: Problem) -> Problem:
        if problem.where and ":" in problem.where:
            return problem
        inside = tuple(problem.where.split(".")) if problem.where else ()
        return problem._replace(where=self._document.where(("jobs", name, *inside)))

    def _known(self, name: str, needs: Sequence[str]) -> tuple[str, ...]:
        for need in needs:
            if need not in self._jobs:
                at = self._document.where(("jobs", name, "inputs"))
                self.problems.append(Problem(f"there is no step `{need}`", nearest_or_all(need, self._jobs), at))
        return tuple(need for need in needs if need in self._jobs)

    def _component(self, name: str) -> Job | str | None:
        """The component of a step as a job; what the step is where it is of another kind; None without a component."""
        if name in self._components:
            return self._components[name]
        step = self._jobs[name]
        kind = str(step.get("type", "command")).lower()
        if kind != "command":
            return _KINDS.get(kind, f"of type {shown(kind)}")
        component = step.get("component")
        if component is None:
            return None
        at = ("jobs", name, "component")
        if isinstance(component, dict):
            values: dict[str, Place] = {key: (value, self._document, (*at, key)) for key, value in component.items()}
            found: Job | str = component_of(Part.of(self._document.file, values))
        elif not isinstance(component, str):
            raise JobError(f"{shown(component)} is not a component", where=self._document.where(at))
        elif is_remote(component) and not component.startswith("file:"):
            return f"a component of a workspace or registry, {component}"
        else:
            found = self._component_file(component, at)
        self._components[name] = found
        return found

    def _component_file(self, component: str, at: tuple[str, ...]) -> Job | str:
        path = absolute(component, self._folder)
        if not os.path.isfile(path):
            raise JobError(f"there is no file {path}", where=self._document.where(at))
        document = read_yaml(path, "component")
        kind = str(document.data.get("type", "command")).lower().removesuffix("_component")
        if kind != "command":
            return f"{_KINDS.get(kind, f'of type {shown(kind)}')}, as {component} says"
        return component_of(document)

    def _inline(self, name: str) -> Job:
        """The job of a step that says itself what it runs."""
        step = self._jobs[name]
        for key in step:
            if key not in (*_STEP, *_OF_A_STEP):
                at = self._document.where(("jobs", name, key))
                self.problems.append(Problem(f"unknown field `{key}`", nearest_or_all(key, _STEP), at))
        if "command" not in step:
            hint = "a step has a `component`, or a `command` of its own"
            raise JobError("`command` is missing", hint=hint, where=self._document.where(("jobs", name)))
        values = self._values(name, [key for key in _STEP if key not in ("name", "inputs", "outputs")])
        inputs = {key: self._resolved(name, key, value) for key, value in self._inputs_of(name).items()}
        values["inputs"] = (_as_yaml(inputs), self._document, ("jobs", name, "inputs"))
        outputs = {key: {} if isinstance(value, str) else value for key, value in self._outputs_of(name).items()}
        values["outputs"] = (outputs, self._document, ("jobs", name, "outputs"))
        return job_of(Part.of(self._document.file, values))

    def _values(self, name: str, keys: Sequence[str]) -> dict[str, Place]:
        """Fields of a step, the literal inputs of the pipeline in their places. The command has inputs of its own."""
        step = self._jobs[name]
        return {
            key: (
                step[key] if key == "command" else self._filled(step[key]),
                self._document,
                ("jobs", name, key),
            )
            for key in keys
            if key in step
        }

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._filled(inner) for inner in value]
        if not isinstance(value, str):
            return value
        if whole := _INPUT.fullmatch(value):
            return self._literal(whole[1])
        return _INPUT.sub(lambda match: str(self._literal(match[1])), value)

    def _literal(self, name: str) -> Any:
        value = self._parent(name)
        if isinstance(value, Input | Parameter):
            what = "is data" if isinstance(value, Input) or value.is_data else "has no value yet"
            raise JobError(f"`{name}` {what}, and a literal value is needed here", hint=f"`--input {name}=VALUE`")
        return value

    def _parent(self, name: str) -> Any:
        if name not in self._head.inputs:
            hint = nearest_or_all(name, self._head.inputs) or "the pipeline has no inputs"
            raise JobError(f"the pipeline has no input `{name}`", hint=hint)
        return self._head.inputs[name]

    def _inputs_of(self, name: str) -> dict[str, Any]:
        inputs = self._jobs[name].get("inputs")
        return inputs if isinstance(inputs, dict) else {}

    def _outputs_of(self, name: str) -> dict[str, Any]:
        outputs = self._jobs[name].get("outputs")
        return outputs if isinstance(outputs, dict) else {}

    def _resolved(self, step: str, name: str, value: Any, depth: int = 0) -> Any:
        """The value of a step's input: a literal, or an `Input`; from another step, with the binding as its path."""
        try:
            if isinstance(value, dict):
                return self._data(step, name, value)
            if not isinstance(value, str) or not _PARENT.search(value):
                return value
            if match := _INPUT.fullmatch(value):
                return self._parent(match[1])
            if match := _OF_STEP.fullmatch(value):
                return self._of_step(match[1], match[2], match[3], depth)
        except JobError as error:
            at = self._document.where(("jobs", step, "inputs", name))
            raise JobError.of(p if p.where else p._replace(where=at) for p in error.problems) from None
        raise JobError(
            f"{shown(value)} does not mean the input or output of a step or the pipeline",
            hint="`${{parent.inputs.NAME}}` or `${{parent.jobs.STEP.outputs.NAME}}`, and nothing beside it",
            where=self._document.where(("jobs", step, "inputs", name)),
        )

    def _data(self, step: str, name: str, value: dict[str, Any]) -> Any:
        path = value.get("path")
        if not isinstance(path, str) or not _PARENT.search(path):
            if isinstance(path, str):
                return Input(**{**value, "path": absolute(path, self._folder)})
            return _default(value)
        source = self._resolved(step, name, path)
        if not isinstance(source, Input):
            raise JobError(f"{path} is a literal value, and data is needed here")
        return source.with_(**{key: inner for key, inner in value.items() if key in ("type", "mode")})

    def _of_step(self, other: str, kind: str, name: str, depth: int) -> Any:
        if other not in self._jobs or depth > len(self._jobs):
            raise JobError(f"there is no step `{other}`", hint=nearest_or_all(other, self._jobs))
        if kind == "inputs":
            inputs = self._inputs_of(other)
            if name not in inputs:
                raise JobError(f"step `{other}` has no input `{name}`", hint=nearest_or_all(name, inputs))
            return self._resolved(other, name, inputs[name], depth + 1)
        output = self._output(other, name)
        return Input(type=output.type, path=f"${{{{parent.jobs.{other}.outputs.{name}}}}}")

    def _output(self, step: str, name: str) -> Output:
        given = self._outputs_of(step)
        component = self._component(step)
        declared = component.outputs if isinstance(component, Job) else {}
        if isinstance(component, str) and name not in given:
            return Output()  # only the service knows its outputs
        if name not in declared and name not in given:
            hint = nearest_or_all(name, [*declared, *given])
            raise JobError(f"step `{step}` has no output `{name}`", hint=hint)
        value = given.get(name)
        if isinstance(value, str) and (match := _OUTPUT.fullmatch(value)) and name not in declared:
            return self._head.outputs.get(match[1], Output())
        if isinstance(value, dict) and "type" in value:
            return Output(type=value["type"])
        return declared.get(name, Output())

    def _with_inputs(self, name: str, job: Job) -> Job:
        if self._jobs[name].get("component") is None:
            return job
        given = {}
        for key, value in self._inputs_of(name).items():
            resolved = self._resolved(name, key, value)
            if not isinstance(resolved, Parameter):
                given[key] = resolved
        return with_inputs(job, given)

    def _with_overrides(self, name: str, job: Job) -> Job:
        step = self._jobs[name]
        for key in step:
            if key not in (*_OVERRIDES, *_OF_A_STEP, "inputs", "outputs", "display_name", "name"):
                hint = "the component says that" if key in ("command", "code") else nearest_or_all(key, _OVERRIDES)
                at = self._document.where(("jobs", name, key))
                self.problems.append(Problem(f"`{key}` does not belong into a step with a component", hint, at))
        fields = Fields(Part.of(self._document.file, self._values(name, [*_OVERRIDES, "display_name"])), {})
        values: dict[str, Any] = {}
        for key, value in fields.document.data.items():
            fields.take(key, value, values, self._folder)
        return fields.build(job.with_, values) if values or fields.problems else job

    def _with_outputs(self, name: str, job: Job) -> tuple[Job, dict[str, str]]:
        outputs, bound = dict(job.outputs), dict[str, str]()
        for key, value in self._outputs_of(name).items():
            at = f"outputs.{key}"
            if key not in outputs:
                hint = nearest_or_all(key, outputs) or "its component declares none"
                raise JobError(f"step `{name}` has no output `{key}`", hint=hint, where=at)
            if isinstance(value, str):
                match = _OUTPUT.fullmatch(value)
                if not match or match[1] not in self._head.outputs:
                    near = nearest_or_all(match[1] if match else value, self._head.outputs)
                    raise JobError(f"{shown(value)} is not an output of the pipeline", hint=near, where=at)
                bound[key] = match[1]
                if self._jobs[name].get("component") is None:
                    outputs[key] = self._head.outputs[match[1]]
            elif isinstance(value, dict) and self._jobs[name].get("component") is not None:
                outputs[key] = outputs[key].with_(**{k: v for k, v in value.items() if v is not None})
        return (job.with_(outputs=outputs) if outputs != dict(job.outputs) else job), bound

    def _default_compute(self) -> str | None:
        settings = self._document.data.get("settings") or {}
        compute = self._head.compute or settings.get("default_compute")
        name = compute.removeprefix("azureml:") if isinstance(compute, str) else None
        return None if name == "serverless" else name


def _as_yaml(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as they stand in a file: the paths in them are absolute."""
    return {
        name: value.model_dump(exclude_none=True) if isinstance(value, Input) else value
        for name, value in inputs.items()
    }
