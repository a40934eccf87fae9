"""Reads a `Pipeline` from the YAML of `az ml job create -f`. The schema is azure-ai-ml's `PipelineJobSchema`."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from azml_dist.errors import JobError, Problem
from azml_dist.files.component import component_of
from azml_dist.files.jobfile import job_of
from azml_dist.model.given import with_inputs
from azml_dist.model.job import JobFields
from azml_dist.model.parameter import Parameter
from azml_dist.model.parts import Input, Output
from azml_dist.model.pipeline import PipelineFields, Step, in_order
from azml_dist.notation.azml import READ_ONLY, SAME_NAME, Fields, absolute
from azml_dist.notation.document import Document, Part, parse_value, read_yaml
from azml_dist.notation.expressions import (
    OF_A_PREVIEW,
    OF_STEP,
    PARENT,
    PARENT_INPUT,
    PARENT_OUTPUT,
    expression,
    is_remote,
)
from azml_dist.regular import kind_of
from azml_dist.words import found_instead, in_ascii, nearest_or_all, shown

J = TypeVar("J", bound=JobFields)
P = TypeVar("P", bound=PipelineFields)
Located = tuple[Any, Document, tuple[str, ...]]

_HEAD = ("inputs", "outputs", "compute", "identity", "name", "display_name", "experiment_name", "description", "tags")
_KNOWN = (*_HEAD, "properties", "$schema", "type", "jobs", "settings", "component", *READ_ONLY)
_STEP = (*SAME_NAME, "queue_settings", "resources", "limits")
_OF_A_STEP = ("type", "$schema", "component", "comment", "jobs", *READ_ONLY)
_OVERRIDES = [name for name in _STEP if name not in ("inputs", "outputs", "command", "code", "name", "display_name")]
"""The fields of its component that a step may override."""
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
_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def load_pipeline(kind: type[P], job_kind: type[J], path: str | os.PathLike[str]) -> P:
    """The pipeline in a YAML file."""
    return pipeline_of(kind, job_kind, read_yaml(os.fspath(path), "pipeline"))


def pipeline_of(kind: type[P], job_kind: type[J], document: Document, head: J | None = None) -> P:
    """The pipeline with these fields; `head` replaces what the file says about the pipeline itself."""
    if problems := list(_problems(document)):
        raise JobError.of(problems)
    head = head or _head(job_kind, document)
    loading = _Loading(document, head)
    steps = {name: loading.step(name) for name in document.data["jobs"]}
    if loading.problems:
        raise JobError.of(loading.problems)
    settings = document.data.get("settings") or {}
    return kind(document, head, in_order(steps, document), settings.get("continue_on_step_failure") is not False)


def with_settings(pipeline: P, settings: Sequence[str]) -> P:
    """The pipeline with every `FIELD=VALUE` set, under the names of its file."""
    data = copy.deepcopy(pipeline.document.data)
    for setting in settings:
        path, equals, text = setting.partition("=")
        *parts, last = path.strip().split(".")
        if not equals or not last:
            raise JobError(f"{setting!r} is not FIELD=VALUE", hint="for example `inputs.epochs=4`", where="--set")
        if not parts and last not in data and last in (data.get("inputs") or {}):
            raise JobError(f"unknown field `{last}`", hint=f"did you mean `inputs.{last}`?", where="--set")
        inside = data
        for part in parts:
            if part in ("inputs", "outputs", "jobs") or inside.get(part) is None:
                inside.setdefault(part, {})
            inside = inside[part]
            if not isinstance(inside, dict):
                raise JobError(f"`{part}` is {shown(inside)}, which has no fields", where=f"--set {path}")
        if parts[:1] == ["jobs"] and parts[1:2] and parts[1] not in pipeline.steps:
            hint = nearest_or_all(parts[1], pipeline.steps)
            raise JobError(f"the pipeline has no step `{parts[1]}`", hint=hint, where=f"--set {path}")
        inside[last] = parse_value(text)
    if not settings:
        return pipeline
    return pipeline_of(type(pipeline), type(pipeline.head), pipeline.document._replace(data=data))


def _problems(document: Document) -> Iterator[Problem]:
    for key in document.data:
        if key not in _KNOWN:
            yield Problem(f"unknown field `{key}`", nearest_or_all(key, _KNOWN), document.where((key,)))
    if "component" in document.data:
        hint = "azml_dist needs a file with `jobs`"
        yield Problem(
            "azml_dist does not run a pipeline that consists of one component", hint, document.where(("component",))
        )
        return
    jobs = document.data.get("jobs")
    if not isinstance(jobs, dict) or not jobs:
        yield Problem("`jobs` must be a mapping of names to steps", None, document.where(("jobs",)))
        return
    for name, step in jobs.items():
        if not _NAME.fullmatch(name):
            hint = "use lower-case letters, digits and `_`, not starting with a digit"
            plain = re.sub(r"[-. ]", "_", in_ascii(name).lower())
            hint += f": `{plain}`" if _NAME.fullmatch(plain) else ""
            yield Problem(f"{shown(name)} is not a valid name for a step", hint, document.where(("jobs", name)))
        if not isinstance(step, dict):
            yield Problem(f"{shown(step)} is not a mapping of fields to values", None, document.where(("jobs", name)))
        elif str(step.get("type", "command")).lower() not in ("command", *_KINDS):
            near = nearest_or_all(step["type"], ["command", *_KINDS])
            near = "leave it out for a command or a command component" if step["type"] == "component" else near
            at = document.where(("jobs", name, "type"))
            yield Problem(f"{shown(step['type'])} is not a type of step that azure-ai-ml knows", near, at)
    if not isinstance(document.data.get("settings") or {}, dict):
        yield Problem("`settings` must be a mapping of fields to values", None, document.where(("settings",)))


def _check_spelling(value: Any) -> None:
    if isinstance(value, str) and (found := OF_A_PREVIEW.fullmatch(value)):
        raise JobError(
            f"azure-ai-ml does not accept {value}, which previews of Azure ML had",
            hint=f"write `{expression(f'parent.{found[1]}')}`",
        )


def _head(kind: type[J], document: Document) -> J:
    values: dict[str, Located] = {
        name: (document.data[name], document, (name,)) for name in _HEAD if name in document.data
    }
    values["command"] = ("true", document, ())
    inputs = document.data.get("inputs")
    if isinstance(inputs, dict):
        values["inputs"] = ({name: _default(value) for name, value in inputs.items()}, document, ("inputs",))
    return job_of(kind, Part.of(document.file, values))


def _default(value: Any) -> Any:
    """An input that is declared but not set: its default, or a mark that it needs a value."""
    if not isinstance(value, dict) or "path" in value or "value" in value or "type" not in value:
        return value
    if "default" in value:
        return value["default"]
    return Parameter(**{name: inner for name, inner in value.items() if name in ("type", "optional", "description")})


class _Loading:
    """Turns the steps of one pipeline into jobs."""

    def __init__(self, document: Document, head: JobFields) -> None:
        self._document, self._head = document, head
        self._kind = type(head)
        self._jobs: dict[str, dict[str, Any]] = document.data["jobs"]
        self._folder = Path(document.file).absolute().parent
        self._components: dict[str, JobFields | str] = {}
        self.problems: list[Problem] = []

    def step(self, name: str) -> Step:
        """One step; its problems are kept."""
        needs = tuple(dict.fromkeys(match[1] for match in OF_STEP.finditer(str(self._inputs_of(name).values()))))
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
        parents = {key: match[1] for key, text in texts.items() if (match := PARENT_INPUT.fullmatch(str(text)))}
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

    def _component(self, name: str) -> JobFields | str | None:
        """The component of a step as a job, or words for a step of another kind; None without a component."""
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
            values: dict[str, Located] = {key: (value, self._document, (*at, key)) for key, value in component.items()}
            found: JobFields | str = component_of(self._kind, Part.of(self._document.file, values))
        elif not isinstance(component, str):
            raise JobError(f"{shown(component)} is not a component", where=self._document.where(at))
        elif is_remote(component) and not component.startswith("file:"):
            return f"a component of a workspace or registry, {component}"
        else:
            found = self._component_file(component, at)
        self._components[name] = found
        return found

    def _component_file(self, component: str, at: tuple[str, ...]) -> JobFields | str:
        path = absolute(component, self._folder)
        if (kind := kind_of(path)) != "file":
            what = f"{path} is a {kind}, not a component file" if kind else f"there is no file {path}"
            hint = "name the YAML file of a component" if kind else found_instead(path)
            raise JobError(what, hint=hint, where=self._document.where(at))
        document = read_yaml(path, "component")
        kind = str(document.data.get("type", "command")).lower().removesuffix("_component")
        if kind != "command":
            return f"{_KINDS.get(kind, f'of type {shown(kind)}')}, according to {component}"
        return component_of(self._kind, document)

    def _inline(self, name: str) -> JobFields:
        """The job of a step that has its own command."""
        step = self._jobs[name]
        for key in step:
            if key not in (*_STEP, *_OF_A_STEP):
                at = self._document.where(("jobs", name, key))
                self.problems.append(Problem(f"unknown field `{key}`", nearest_or_all(key, _STEP), at))
        if "command" not in step:
            hint = "a step needs a `component` or a `command`"
            raise JobError("`command` is missing", hint=hint, where=self._document.where(("jobs", name)))
        values = self._values(name, [key for key in _STEP if key not in ("name", "inputs", "outputs")])
        inputs = {key: self._resolved(name, key, value) for key, value in self._inputs_of(name).items()}
        values["inputs"] = (_as_yaml(inputs), self._document, ("jobs", name, "inputs"))
        outputs = {key: {} if isinstance(value, str) else value for key, value in self._outputs_of(name).items()}
        values["outputs"] = (outputs, self._document, ("jobs", name, "outputs"))
        return job_of(self._kind, Part.of(self._document.file, values))

    def _values(self, name: str, keys: Sequence[str]) -> dict[str, Located]:
        """Fields of a step with the pipeline's literal inputs, except in the command, which has its own inputs."""
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
        if whole := PARENT_INPUT.fullmatch(value):
            return self._literal(whole[1])
        return PARENT_INPUT.sub(lambda match: str(self._literal(match[1])), value)

    def _literal(self, name: str) -> Any:
        value = self._parent(name)
        if isinstance(value, Input | Parameter):
            what = "is data" if isinstance(value, Input) or value.is_data else "has no value yet"
            raise JobError(f"`{name}` {what}, but a literal value is needed here", hint=f"`--input {name}=VALUE`")
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

    def _resolved(self, step: str, name: str, value: Any, way: tuple[str, ...] = ()) -> Any:
        """The value of a step's input: a literal or an `Input`; from another step, its path is the binding.

        `way` lists the inputs that led here.
        """
        try:
            if isinstance(value, dict):
                return self._data(step, name, value)
            if not isinstance(value, str) or not PARENT.search(value):
                _check_spelling(value)
                return value
            if match := PARENT_INPUT.fullmatch(value):
                return self._parent(match[1])
            if match := OF_STEP.fullmatch(value):
                return self._of_step(match[1], match[2], match[3], (*way, f"{step}.{name}"))
        except JobError as error:
            at = self._document.where(("jobs", step, "inputs", name))
            raise JobError.of(p if p.where else p._replace(where=at) for p in error.problems) from None
        raise JobError(
            f"{shown(value)} is not an input or output of a step or of the pipeline",
            hint="write only `${{parent.inputs.NAME}}` or `${{parent.jobs.STEP.outputs.NAME}}`, with nothing around it",
            where=self._document.where(("jobs", step, "inputs", name)),
        )

    def _data(self, step: str, name: str, value: dict[str, Any]) -> Any:
        path = value.get("path")
        _check_spelling(path)
        if not isinstance(path, str) or not PARENT.search(path):
            if isinstance(path, str):
                return Input(**{**value, "path": absolute(path, self._folder)})
            return _default(value)
        source = self._resolved(step, name, path)
        if not isinstance(source, Input):
            raise JobError(f"{path} is a literal value, but data is needed here")
        return source.with_(**{key: inner for key, inner in value.items() if key in ("type", "mode")})

    def _of_step(self, other: str, kind: str, name: str, way: tuple[str, ...]) -> Any:
        if other not in self._jobs:
            raise JobError(f"there is no step `{other}`", hint=nearest_or_all(other, self._jobs))
        if kind == "inputs":
            inputs = self._inputs_of(other)
            if name not in inputs:
                raise JobError(f"step `{other}` has no input `{name}`", hint=nearest_or_all(name, inputs))
            if f"{other}.{name}" in way:
                raise JobError(
                    f"these inputs of steps wait for each other: {', '.join(way)}", hint="set the value of one of them"
                )
            return self._resolved(other, name, inputs[name], way)
        output = self._output(other, name)
        return Input(type=output.type, path=expression(f"parent.jobs.{other}.outputs.{name}"))

    def _output(self, step: str, name: str) -> Output:
        given = self._outputs_of(step)
        component = self._component(step)
        declared = component.outputs if isinstance(component, JobFields) else {}
        if isinstance(component, str) and name not in given:
            return Output()  # only the service knows its outputs
        if name not in declared and name not in given:
            hint = nearest_or_all(name, [*declared, *given])
            raise JobError(f"step `{step}` has no output `{name}`", hint=hint)
        value = given.get(name)
        if isinstance(value, str) and (match := PARENT_OUTPUT.fullmatch(value)) and name not in declared:
            return self._head.outputs.get(match[1], Output())
        if isinstance(value, dict) and "type" in value:
            return Output(type=value["type"])
        return declared.get(name, Output())

    def _with_inputs(self, name: str, job: JobFields) -> JobFields:
        if self._jobs[name].get("component") is None:
            return job
        given = {}
        for key, value in self._inputs_of(name).items():
            resolved = self._resolved(name, key, value)
            if not isinstance(resolved, Parameter):
                given[key] = _let_pass(job.inputs.get(key), resolved)
        return with_inputs(job, given)

    def _with_overrides(self, name: str, job: JobFields) -> JobFields:
        step = self._jobs[name]
        for key in step:
            if key not in (*_OVERRIDES, *_OF_A_STEP, "inputs", "outputs", "display_name", "name"):
                hint = "the component sets it" if key in ("command", "code") else nearest_or_all(key, _OVERRIDES)
                at = self._document.where(("jobs", name, key))
                self.problems.append(Problem(f"a step with a component cannot have `{key}`", hint, at))
        fields = Fields(Part.of(self._document.file, self._values(name, [*_OVERRIDES, "display_name"])), {})
        values: dict[str, Any] = {}
        for key, value in fields.document.data.items():
            fields.take(key, value, values, self._folder)
        return fields.build(job.with_, values) if values or fields.problems else job

    def _with_outputs(self, name: str, job: JobFields) -> tuple[JobFields, dict[str, str]]:
        outputs, bound = dict(job.outputs), dict[str, str]()
        for key, value in self._outputs_of(name).items():
            at = f"outputs.{key}"
            if key not in outputs:
                hint = nearest_or_all(key, outputs) or "its component declares no outputs"
                raise JobError(f"step `{name}` has no output `{key}`", hint=hint, where=at)
            if isinstance(value, str):
                match = PARENT_OUTPUT.fullmatch(value)
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


def _let_pass(declared: Any, value: Any) -> Any:
    """The value of an input; violating `enum`, `min` or `max`, which azure-ai-ml does not check, is only a finding."""
    if not isinstance(declared, Parameter) or declared.is_data or isinstance(value, Input):
        return value
    try:
        return declared.with_(default=value) if declared.outside(value) else value
    except JobError:
        return value  # of the wrong type, which is reported for every input alike


def _as_yaml(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as in a file, with absolute paths."""
    return {
        name: value.model_dump(exclude_none=True) if isinstance(value, Input) else value
        for name, value in inputs.items()
    }
