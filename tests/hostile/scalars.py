"""Values and names that programs trip over, and trees of YAML that hold them."""

from __future__ import annotations

import json
import random
from typing import Any


class Raw(str):
    """Text that goes into a YAML file as it is, without quotes."""


def raw(*texts: str) -> tuple[Raw, ...]:
    return tuple(map(Raw, texts))


SCALARS: tuple[Any, ...] = (
    *raw(
        "null", "~", "true", "yes", "on", "NO", "1", "0", "-1", "2.5", "1e999", "-0", ".nan", ".inf", "-.inf", "1:30:00"
    ),
    *raw(
        "1" + "0" * 30, "-1" + "0" * 30, "9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 9000, "1_000", "0o17", "017", "08"
    ),
    *raw(
        "2020-01-01", "2020-13-45", "2020-01-01T99:00:00Z", "0000-00-00", "!!timestamp x", "!!timestamp 2020", "!!int x"
    ),
    *raw(
        "!!int ''", "!!float x", "!!float ''", "!!bool x", "!!bool ''", "!!binary '####'", "!!binary aGk=", "!!null x"
    ),
    *raw("!!set {a}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!map x", "!!seq x", "!!str 5", "!!str [a]", "!!str {a: b}"),
    *raw(
        "!!int [1]",
        "!!python/name:os.system ''",
        "!!python/object/apply:os.system ['touch PWNED']",
        "!x y",
        "!<tag:x> y",
    ),
    *raw(
        "[]",
        "{}",
        "[[]]",
        "{a: {}}",
        "{type: []}",
        "{type: {}}",
        "{type: null}",
        "{? [a] : b}",
        "[null]",
        "{null: null}",
    ),
    *raw(
        "{1: 2}", "{? {a: b} : c}", "[1, two, 3.0, null]", "{<<: 1}", "{<<: [1]}", "{<<: {a: 1}}", "&x [*x]", "*nothing"
    ),
    *raw("[" * 90 + "]" * 90, "[" * 500 + "]" * 500, "{a: " * 80 + "1" + "}" * 80, "|", ">", "@x", "`x`", "%x", "? x"),
    *raw("=", "<<", "''", "{path: {}}", "{path: []}", "{path: 5}", "{path: null}", "{type: uri_folder}", "{value: {}}"),
    *(
        "",
        " ",
        "\n",
        "\t",
        "\0",
        "\x1b[2J\x07",
        "\x9b2J",
        "\u202etxt",
        "\u200b",
        "\ufeff",
        "\U0001f600",
        "é" * 200,
        "\r\n",
    ),
    *(
        "a" * 300,
        "a" * 5000,
        "x " * 20000,
        "../" * 200,
        "/" * 300,
        "a/" * 2000,
        "9" * 400,
        "%s%n%d",
        "{0.__class__}",
        "\\",
    ),
    *("${{inputs.}}", "${{inputs.a", "${{}}", "${{ }}", "$[[", "$[[ ]]", "$[[${{inputs.nope}}]]", "${{inputs.a.b.c}}"),
    *("${{outputs.o}}", "${{parent.jobs.a.outputs.b}}", "${{parent.inputs.x}}", "${{search_space.x}}", "${{" * 3000),
    *(
        "azureml:",
        "azureml:a",
        "azureml:a:",
        "azureml:a:1:2",
        "azureml:a@",
        "azureml:@latest",
        "azureml://",
        "azureml:///",
    ),
    *("azureml://registries/", "azureml://datastores/d/paths/", "azureml://subscriptions/x", "file:", "file:nope.yml"),
    *(
        "file:///dev/zero",
        "file:job.yml",
        "file:..",
        "git+https://x",
        "git+ssh://",
        "https://",
        "http://[",
        "https://x:99999",
    ),
    *(
        "..",
        ".",
        "/",
        "~",
        "~nobody",
        "~/nope",
        "/dev/null",
        "/dev/zero",
        "/proc/self/mem",
        "/proc/self/fd/0",
        "//",
        "C:\\x",
    ),
    *(
        "fifo",
        "loop",
        "socket",
        "empty",
        "job.yml",
        "src",
        "src/",
        "$(touch PWNED)",
        "`touch PWNED`",
        "; touch PWNED",
        "-",
        "--",
    ),
    *(
        "-rf",
        "*",
        "?",
        "[a",
        "a b",
        "a:b",
        "a=b",
        "a#b",
        "a,b",
        "'",
        '"',
        "!",
        "&",
        "|",
        "$HOME",
        "$",
        "None",
        "NaN",
        "inf",
    ),
)
KEYS = (
    "",
    "<<",
    "null",
    "1",
    "true",
    "a" * 300,
    "a.b",
    "a b",
    "../x",
    "\x1b[2J",
    "é",
    "type",
    "path",
    "command",
    "jobs",
    "$schema",
)

COMMAND: dict[str, Any] = {
    "$schema": "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json",
    "type": "command",
    "name": "n1",
    "display_name": "shown",
    "experiment_name": "e",
    "description": "d",
    "command": "echo ${{inputs.epochs}} $[[--o ${{inputs.more}}]]",
    "code": "./src",
    "environment": {"image": "i", "conda_file": {"dependencies": ["python=3.11", {"pip": ["torch"]}]}},
    "environment_variables": {"A": "1", "B": "2"},
    "compute": "azureml:c",
    "resources": {"instance_count": 1, "shm_size": "2g", "instance_type": "s", "properties": {"a": {"b": "c"}}},
    "distribution": {"type": "pytorch", "process_count_per_instance": 1},
    "inputs": {"epochs": 3, "more": {"type": "integer", "default": 1, "optional": True}, "rate": 0.1},
    "outputs": {"o": {"type": "uri_folder", "mode": "rw_mount", "path": "azureml://datastores/d/paths/p"}},
    "limits": {"timeout": 20},
    "identity": {"type": "managed", "client_id": "c"},
    "tags": {"t": "u"},
    "properties": {"p": "q"},
    "services": {"s": {"type": "tensor_board", "log_dir": "outputs", "nodes": "all"}},
    "queue_settings": {"job_tier": "standard", "priority": "low"},
}
SWEEP: dict[str, Any] = {
    "type": "sweep",
    "sampling_algorithm": {"type": "random", "seed": 1, "rule": "sobol"},
    "search_space": {
        "lr": {"type": "uniform", "min_value": 0.1, "max_value": 0.9},
        "n": {"type": "choice", "values": [1, 2]},
        "q": {"type": "quniform", "min_value": 1, "max_value": 9, "q": 2},
        "r": {"type": "lognormal", "mu": 0, "sigma": 1},
    },
    "trial": {"command": "echo ${{search_space.lr}} ${{inputs.a}}", "code": "./src", "environment": "azureml:e:1"},
    "inputs": {"a": 1},
    "objective": {"goal": "minimize", "primary_metric": "loss"},
    "limits": {"max_total_trials": 2, "max_concurrent_trials": 1, "timeout": 60, "trial_timeout": 20},
    "early_termination": {"type": "bandit", "slack_factor": 0.1, "evaluation_interval": 1, "delay_evaluation": 1},
    "compute": "azureml:c",
}
PIPELINE: dict[str, Any] = {
    "type": "pipeline",
    "inputs": {"x": 1, "d": {"type": "uri_folder", "path": "./src"}},
    "outputs": {"y": {"type": "uri_folder"}},
    "settings": {"default_compute": "azureml:c", "continue_on_step_failure": False},
    "jobs": {
        "a": {
            "type": "command",
            "command": "echo ${{inputs.x}} > ${{outputs.o}}/f",
            "environment": "azureml:e:1",
            "inputs": {"x": "${{parent.inputs.x}}"},
            "outputs": {"o": {"type": "uri_folder"}},
        },
        "b": {
            "type": "command",
            "component": {
                "command": "cat ${{inputs.i}}/f",
                "environment": "azureml:e:1",
                "inputs": {"i": {"type": "uri_folder"}},
            },
            "inputs": {"i": "${{parent.jobs.a.outputs.o}}"},
        },
    },
}
COMPONENT: dict[str, Any] = {
    "$schema": "https://azuremlschemas.azureedge.net/latest/commandComponent.schema.json",
    "name": "c",
    "version": 1,
    "type": "command",
    "inputs": {"a": {"type": "integer", "default": 1, "min": 0, "max": 9}, "b": {"type": "string", "enum": ["x", "y"]}},
    "outputs": {"o": {"type": "uri_folder"}},
    "command": "echo ${{inputs.a}} ${{inputs.b}}",
    "environment": {"image": "i"},
}
KINDS = (COMMAND, COMMAND, SWEEP, PIPELINE, COMPONENT)


def yaml_text(random_: random.Random) -> bytes:
    """A job file with something wrong in it, or several things."""
    tree = json.loads(json.dumps(random_.choice(KINDS)))
    for _ in range(random_.choice((1, 1, 2, 4))):
        mutate(tree, random_)
    data = "".join(f"{_key(key)}: {flow(value)}\n" for key, value in tree.items()).encode("utf-8", "surrogatepass")
    return spoil(data, random_) if random_.random() < 0.2 else data


def flow(value: Any) -> str:
    """A tree as YAML on one line; what is `Raw` stands in it as it is."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return json.dumps(value)


def _key(key: str) -> str:
    return key if (key.isascii() and key.isidentifier()) or key in ("<<", "$schema", "1") else json.dumps(key)


def mutate(tree: Any, random_: random.Random, scalars: tuple[Any, ...] = SCALARS) -> None:
    """Change one place of a tree."""
    places = list(_places(tree))
    inside, key = random_.choice(places)
    how = random_.randrange(8)
    if how < 4:
        inside[key] = random_.choice(scalars)
    elif how == 4:
        del inside[key]
    elif how == 5:
        other, name = random_.choice(places)
        inside[key] = json.loads(json.dumps(other[name]))
    elif how == 6:
        inside[key] = random_.choice(([inside[key]], {random_.choice(KEYS): inside[key]}))
    elif isinstance(inside, dict):
        inside[random_.choice(KEYS)] = random_.choice(scalars)


def _places(tree: Any) -> Any:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def spoil(data: bytes, random_: random.Random) -> bytes:
    """Bytes that were cut, doubled, mixed with others, or saved by another program."""
    at = random_.randrange(len(data) + 1)
    return random_.choice(
        (
            data[:at],
            data[:at] + random_.randbytes(3) + data[at:],
            data[:at] + b"\0" + data[at:],
            data[:at]
            + random_.choice((b"\t", b"[", b"{", b"}", b": ", b"- ", b"'", b'"', b"#", b"\r", b"\x1b[2J"))
            + data[at:],
            data + data[at:],
            data + b"---\n" + data,
            b"\xef\xbb\xbf" + data,
            data.decode("utf-8", "replace").encode("utf-16"),
            data.replace(b"\n", b"\r\n"),
            b"%YAML 9.9\n---\n" + data,
            b"&a\n" + data,
        )
    )
