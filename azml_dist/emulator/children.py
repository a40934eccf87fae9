"""The jobs that a sweep or a pipeline consists of, as the service would be asked for each. Pure."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from azml_dist.emulator.wire import Json
from azml_dist.emulator.world import NotEmulatedError

_OF_A_JOB = ("computeId", "experimentName", "resources", "environmentVariables", "identity", "queueSettings")
_WORDS = {"pytorch": "PyTorch", "mpi": "Mpi", "tensorflow": "TensorFlow", "ray": "Ray"}
_BINDING = re.compile(r"\$\{\{\s*parent\.([\w.]+)\s*\}\}")
_SEARCHED = re.compile(r"\$\{\{\s*search_space\.(\w+)\s*\}\}")


# Sweeps


def trials(body: Json) -> Iterator[tuple[Json, Json]]:
    """The values and the body of each trial, in the order in which they start."""
    limits = body.get("limits") or {}
    algorithm = body["samplingAlgorithm"]
    kind = algorithm["samplingAlgorithmType"].lower()
    values = _grid(body["searchSpace"]) if kind == "grid" else _drawn(body["searchSpace"], algorithm.get("seed"))
    for chosen in itertools.islice(values, limits.get("maxTotalTrials") or 1000):
        yield chosen, _trial(body, chosen)


def _trial(body: Json, chosen: Json) -> Json:
    trial = body["trial"]
    command = _SEARCHED.sub(lambda found: _text(chosen[found[1]]), trial["command"])
    timeout = (body.get("limits") or {}).get("trialTimeout")
    inputs = {name: one for name, one in (body.get("inputs") or {}).items() if name not in chosen}
    literals = {name: {"jobInputType": "literal", "value": _text(value)} for name, value in chosen.items()}
    return {
        **{key: body[key] for key in _OF_A_JOB if body.get(key) is not None},
        **{key: value for key, value in trial.items() if value is not None},
        "jobType": "Command",
        "command": command,
        "inputs": inputs | literals,
        "outputs": {name: {**one, "uri": None} for name, one in (body.get("outputs") or {}).items()},
        "limits": {"jobLimitsType": "Command", "timeout": timeout} if timeout else None,
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _grid(space: Json) -> Iterator[Json]:
    if other := [name for name, (kind, _) in space.items() if kind != "choice"]:
        raise NotEmulatedError(f"a grid over {', '.join(other)}, which is no choice")
    for chosen in itertools.product(*(values[0] for _, values in space.values())):
        yield dict(zip(space, chosen, strict=True))


def _drawn(space: Json, seed: int | None) -> Iterator[Json]:
    """Values at random. Bayesian sampling is played as random: what the service draws is documented nowhere."""
    source = random.Random(seed)
    while True:
        yield {name: _DRAW[kind](source, *values) for name, (kind, values) in space.items()}


def _rounded(value: float, step: float) -> float:
    return round(value / step) * step


_DRAW: dict[str, Callable[..., Any]] = {
    "choice": lambda source, values: source.choice(values),
    "randint": lambda source, upper: source.randrange(upper),
    "uniform": lambda source, low, high: source.uniform(low, high),
    "quniform": lambda source, low, high, step: _rounded(source.uniform(low, high), step),
    "loguniform": lambda source, low, high: math.exp(source.uniform(low, high)),
    "qloguniform": lambda source, low, high, step: _rounded(math.exp(source.uniform(low, high)), step),
    "normal": lambda source, mean, deviation: source.gauss(mean, deviation),
    "qnormal": lambda source, mean, deviation, step: _rounded(source.gauss(mean, deviation), step),
    "lognormal": lambda source, mean, deviation: math.exp(source.gauss(mean, deviation)),
    "qlognormal": lambda source, mean, deviation, step: _rounded(math.exp(source.gauss(mean, deviation)), step),
}
"""By the name on the wire, each as documented under "Search space" of hyperparameter tuning."""


# Pipelines


def needs(step: Json) -> set[str]:
    """The steps whose outputs a step reads."""
    return set(re.findall(r"\$\{\{\s*parent\.jobs\.(\w+)\.outputs\.", json.dumps(step.get("inputs") or {})))


def step_body(
    step: Json, spec: Json, parent: Json, of_parent: Callable[[str], str], of_step: Callable[[str, str], Json]
) -> Json:
    """What the service would be asked for a step.

    `spec` is its component, `parent` the pipeline; `of_parent` says where an output of the pipeline goes, and
    `of_step` what an output of a step that has ended is as an input.
    """
    inputs: Json = {}
    for name, declared in (spec.get("inputs") or {}).items():
        sent = (step.get("inputs") or {}).get(name)
        if sent is not None:
            bound = _bound(sent, parent, of_step)
            if bound is not None:
                inputs[name] = bound
        elif declared.get("default") is not None:
            inputs[name] = {"jobInputType": "literal", "value": _text(declared["default"])}
    outputs = {
        name: _output((step.get("outputs") or {}).get(name) or {}, declared, of_parent)
        for name, declared in (spec.get("outputs") or {}).items()
    }
    settings = parent.get("settings") or {}
    shared = {
        "inputs": inputs,
        "outputs": outputs,
        "computeId": step.get("computeId") or parent.get("computeId") or settings.get("default_compute"),
        "experimentName": parent.get("experimentName"),
    }
    if spec["type"] == "pipeline":
        return {**shared, "jobType": "Pipeline", "jobs": spec["jobs"], "settings": settings}
    if spec["type"] != "command":
        raise NotEmulatedError(f"a step of type {spec['type']}")
    return {**shared, **_program(step, spec)}


def _program(step: Json, spec: Json) -> Json:
    """The command of a component, with what the step says of it."""
    asked = {**(spec.get("resources") or {}), **(step.get("resources") or {})}
    timeout = (step.get("limits") or {}).get("timeout")
    variables = {**(spec.get("environment_variables") or {}), **(step.get("environment_variables") or {})}
    return {
        "jobType": "Command",
        "command": spec["command"],
        "codeId": _id(spec.get("code")),
        "environmentId": _id(spec["environment"]),
        "environmentVariables": variables,
        "distribution": _distribution(step.get("distribution") or spec.get("distribution")),
        "resources": {_camel(name): value for name, value in asked.items() if name != "properties"},
        "limits": {"jobLimitsType": "Command", "timeout": f"PT{timeout}S" if isinstance(timeout, int) else timeout},
    }


def _bound(sent: Json, parent: Json, of_step: Callable[[str, str], Json]) -> Json | None:
    """An input of a step: what it is bound to, or its value. None if it is bound to an input without a value."""
    if sent.get("value") is None:
        return {**{_camel(key): value for key, value in sent.items()}, "jobInputType": _kind(sent)}
    value = str(sent["value"])
    whole = _BINDING.fullmatch(value)
    if whole is None:
        text = _BINDING.sub(lambda found: _literal(found[1], parent), value)
        return {"jobInputType": "literal", "value": text}
    parts = whole[1].split(".")
    known: Json = parent.get("inputs") or {}
    found: Json | None = of_step(parts[1], parts[3]) if parts[0] == "jobs" else known.get(parts[1])
    mode = sent.get("mode")
    return {**found, **({"mode": mode} if mode else {})} if found else None


def _literal(path: str, parent: Json) -> str:
    return str(parent["inputs"][path.split(".")[1]]["value"])


def _kind(sent: Json) -> str:
    return str(sent.get("jobInputType") or sent.get("job_input_type") or sent.get("type") or "uri_folder")


def _output(sent: Json, declared: Json, of_parent: Callable[[str], str]) -> Json:
    found = _BINDING.fullmatch(str(sent.get("value") or ""))
    uri = of_parent(found[1].split(".")[1]) if found else sent.get("uri")
    return {"jobOutputType": declared.get("type", "uri_folder"), "mode": sent.get("mode"), "uri": uri}


def _distribution(said: Json | None) -> Json | None:
    if not said:
        return None
    kind = said.get("distribution_type") or said.get("type") or ""
    rest = {_camel(name): value for name, value in said.items() if name not in ("type", "distribution_type")}
    return {**rest, "distributionType": _WORDS.get(kind.lower(), kind)}


def _id(reference: str | None) -> str | None:
    """An ARM id, as a component refers to it: with `azureml:` in front."""
    return reference.removeprefix("azureml:") if reference and reference.startswith("azureml:/sub") else reference


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)
