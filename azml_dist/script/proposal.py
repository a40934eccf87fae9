"""What a job for a training script may look like, from what the script imports and which arguments it takes.

Nothing is imported or run. What the source does not say is left to the one who edits the job.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal, NamedTuple

from azml_dist.notation.argv import UNKNOWN
from azml_dist.script.arguments import Parser, parser_of
from azml_dist.script.source import Program
from azml_dist.words import in_ascii

Distribution = Literal["pytorch", "mpi", "tensorflow", "ray"]

_SAYS_ITS_PLACE = re.compile(
    r"local[_-]?rank|init_process_group|\bDistributedDataParallel\b|\bfully_shard\b|\bFullyShardedDataParallel\b"
    r"|\bRANK\b|\bWORLD_SIZE\b|init_device_mesh"
)
"""What a script of torch says if it is meant to run in several processes."""
_PLACE = frozenset(
    [
        *("local_rank", "rank", "node_rank", "world_size", "master_addr", "master_port", "dist_url", "nnodes", "nodes"),
        *("dist_backend", "nproc_per_node", "num_nodes", "gpu", "ngpus_per_node", "multiprocessing_distributed"),
    ]
)
"""Options about the place of a process, which a launcher sets or the script reads from its environment."""
_OUTPUT = re.compile(
    r"(?:output|out|save|model|checkpoint|ckpt|checkpoints|result|results|export)(?:_?(?:dir|path|folder))?"
)
_DATA = re.compile(r"(?:data|dataset|train|training|val|valid|test|eval|input)s?_?(?:dir|path|folder|file|root)?")


class Value(NamedTuple):
    """An argument of the script, as an input or output of the job."""

    name: str
    flag: str
    """`--epochs`; empty for a positional argument."""
    default: Any
    """A literal, or the path of local data."""
    kind: Literal["value", "data", "output"]
    help: str = ""
    open: bool = False
    """Whether the script requires it and has no default: `default` is a guess."""


class Proposed(NamedTuple):
    """What a job for a script may look like."""

    script: str
    frameworks: list[str]
    """What it imports of those that matter here."""
    distribution: Distribution | None
    processes: int
    """Of each node."""
    parameter_servers: int
    values: list[Value]
    left: list[str]
    """Options that are left to the script, with the reason."""
    notes: list[str]
    variables: dict[str, str]


_OTHER_PARSERS = frozenset({"absl", "click", "docopt", "fire", "hydra", "jsonargparse", "tap", "typer", "tyro"})
"""Packages that give a script options, as argparse does."""


def proposed(script: str, files: Mapping[str, str]) -> Proposed | str:
    """A job for a script in a folder with these files; what is wrong if the script cannot be read."""
    program = Program(script, os.path.dirname(script), files)
    if program.entry is None:
        unread = next(iter(program.unread), None)
        return (f"line {unread.line}: " if unread and unread.line else "") + (unread.why if unread else "no such file")
    imported = {name.split(".")[0] for module in program.modules for name in module.names.values()}
    text = "\n".join(module.text for module in program.modules)
    distribution, frameworks = _distribution(imported, text)
    parser = parser_of(program)
    if parser and parser.parser._subparsers:
        parser = None  # the source does not say which subcommand is meant
    values, left = _values(parser, Path(files[script]).parent) if parser else ([], [])
    notes = []
    if parser is None and "argparse" in imported:
        notes.append("its arguments could not be read from its source: add them to the command yourself")
    others = sorted(imported & _OTHER_PARSERS) + ["HfArgumentParser"] * ("HfArgumentParser(" in text)
    if parser is None and others:
        notes.append(f"options of {' and '.join(others)} are not read: add them to the command yourself")
    variables = {"ACCELERATE_USE_CPU": "true"} if "accelerate" in imported else {}
    return Proposed(
        script,
        frameworks,
        distribution,
        2 if distribution in ("pytorch", "mpi") else 1,
        1 if "ParameterServerStrategy" in text and distribution == "tensorflow" else 0,
        values,
        left,
        notes,
        variables,
    )


_FRAMEWORKS: Sequence[tuple[tuple[str, ...], str, Distribution]] = (
    (("horovod",), "Horovod", "mpi"),
    (("mpi4py",), "mpi4py", "mpi"),
    (("ray",), "Ray", "ray"),
    (("deepspeed",), "DeepSpeed", "pytorch"),
    (("lightning", "pytorch_lightning"), "Lightning", "pytorch"),
    (("accelerate",), "Accelerate", "pytorch"),
)


def _distribution(imported: set[str], text: str) -> tuple[Distribution | None, list[str]]:
    """How its processes are started; None for a script of a single process."""
    found = [(name, how) for modules, name, how in _FRAMEWORKS if imported.intersection(modules)]
    names = [name for name, _ in found]
    names += ["torch"] if "torch" in imported else []
    names += ["TensorFlow"] if imported & {"tensorflow", "keras"} else []
    if found:
        return found[0][1], names
    if "torch" in imported and _SAYS_ITS_PLACE.search(text):
        return "pytorch", names
    if "tensorflow" in imported and re.search(r"MultiWorkerMirroredStrategy|ParameterServerStrategy|TF_CONFIG", text):
        return "tensorflow", names
    if imported & {"transformers", "trl"} and re.search(r"Trainer\(", text):
        return "pytorch", [*names, "Transformers"]
    return None, names


def _values(parser: Parser, folder: Path) -> tuple[list[Value], list[str]]:
    values: list[Value] = []
    left: list[str] = []
    helps, texts = _helps(parser), _defaults(parser)
    for action in parser.parser._actions:
        flag = next((one for one in action.option_strings if one.startswith("--")), "".join(action.option_strings[:1]))
        if action.dest == "help" or action.dest in _PLACE:
            continue
        if UNKNOWN in str(action.default) and (text := texts.get(flag)):
            action.default = text  # `Path("outputs")`
        if why := _why_left(action):
            left.append(f"{flag or action.dest} ({why})")
        else:
            name = _input_name(action.dest, {value.name for value in values})
            values.append(_value(action, name, flag, folder, helps.get(flag or action.dest, "")))
    return values, left


def _why_left(action: argparse.Action) -> str | None:
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return "a switch"
    if action.nargs not in (None, "?") or type(action).__name__ not in ("_StoreAction",):
        return "takes several values"
    if action.default is None or action.default is argparse.SUPPRESS:
        return None if action.required else "has no default"
    if UNKNOWN in str(action.default):
        return "has a default that is computed"
    return "has an empty default" if action.default == "" else None


def _input_name(dest: str, taken: Collection[str]) -> str:
    """A name that Azure ML accepts for an input: those of `--größe` and `--2nd` are none."""
    plain = re.sub(r"^(?=\d)|\W", "_", in_ascii(dest), flags=re.ASCII)
    return next(name for name in chain([plain], (f"{plain}_{n}" for n in count(2))) if name not in taken)


def _value(action: argparse.Action, name: str, flag: str, folder: Path, said: str) -> Value:
    is_open = action.default in (None, argparse.SUPPRESS)
    default = action.default
    of_text = getattr(action.type, "__name__", "str") not in ("int", "float") and not action.choices
    looks_like_file = bool(os.path.splitext(str(default or ""))[1])
    if of_text and _OUTPUT.fullmatch(name) and not (default and looks_like_file):
        return Value(name, flag, None, "output", said)
    if of_text and _DATA.fullmatch(name) and default and (folder / str(default)).exists():
        return Value(name, flag, str(default), "data", said)
    if is_open:
        default = _guess(action)
    return Value(name, flag, default, "value", said, is_open)


def _guess(action: argparse.Action) -> Any:
    """A value for an argument that the script requires: one that argparse takes."""
    if action.choices:
        return next(iter(action.choices))
    return {"int": 1, "float": 1.0}.get(getattr(action.type, "__name__", ""), "CHANGE-ME")


def _helps(parser: Parser) -> dict[str, str]:
    """What the script says about each argument."""
    helps = dict(_texts(parser, "help"))
    return {flag: " ".join(said.split()) for flag, said in helps.items()}


def _defaults(parser: Parser) -> dict[str, str]:
    """The text in a default such as `Path("outputs")`."""
    return dict(_texts(parser, "default"))


def _texts(parser: Parser, keyword: str) -> Iterator[tuple[str, str]]:
    """The one text in a keyword of `add_argument`, for each flag."""
    for call, name in parser.module.calls:
        value = next((k.value for k in call.keywords if k.arg == keyword), None)
        if not name.endswith("add_argument") or value is None:
            continue
        if (
            isinstance(value, ast.Call)
            and parser.module.full_name(value.func) == "pathlib.Path"
            and len(value.args) == 1
        ):
            value = value.args[0]
        if isinstance(value, ast.Constant) and isinstance(text := value.value, str):
            for arg in call.args:
                if isinstance(arg, ast.Constant) and isinstance(arg.value, str):
                    yield arg.value, text
