"""Whose code the frames of a traceback are, and what they say of an exception that could mean several things."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from azml_dist.verdict.known import CODE_ROOT, Known
from azml_dist.verdict.signatures import CUT_FILE, NO_ANSWER, UNSET, Signature, compiled
from azml_dist.verdict.tracebacks import Frame, Raised

_LIBRARY = re.compile(
    r"(?:site|dist)-packages[/\\]|[/\\]lib(?:64)?[/\\]python\d|[/\\]Lib[/\\]|^<|azureml-setup[/\\]|[/\\]runpy\.py$"
    r"|context_manager_injector\.py|^/tmp/ray/|[/\\]miniconda\w*[/\\]|[/\\]bin[/\\](?:torchrun|accelerate|deepspeed)$"
    r"|__autograph_generated_file|^(?![/\\]).*\.(?:pyx|pxi|pxd)$"
)
"""Paths of code that is not the user's. AutoGraph of TensorFlow rewrites functions into temporary files; compiled
packages, as pandas and mpi4py, name their Cython files as they were when they were built."""


class _By(NamedTuple):
    """What an exception means that libraries with these paths have raised."""

    paths: str
    names: str
    signature: Signature


_BY_FRAMES = (
    _By(
        r"[/\\](?:urllib3?|requests|httpx\d?|httpcore\d?|aiohttp|botocore|fsspec|adlfs|s3fs|gcsfs|huggingface_hub"
        r"|azure[/\\](?:core|storage|identity|data))[/\\]|[/\\](?:http[/\\]client|ftplib|smtplib)\.py$",
        r"(?:Connection|BrokenPipe|Timeout|Disconnected|Protocol|SSL|Incomplete|Transport|TooShort)\w*|IncompleteRead|timeout"
        r"|SSL\w*Error|EOFError",
        NO_ANSWER,
    ),
    _By(r"[/\\]torch[/\\](?:serialization|_weights_only_unpickler)\.py$|[/\\]pickle\.py$", "EOFError", CUT_FILE),
)
_ENVIRONMENT = re.compile(r"^<frozen os>$|[/\\]os\.py$")


def is_own(path: str, known: Known) -> bool:
    """Whether a path in a traceback belongs to the user's own code."""
    if any(path.startswith(root) for root in known.code_roots):
        return True
    return not _LIBRARY.search(path)


def relative(path: str, known: Known) -> str:
    """A path of the user's code, relative to the code folder."""
    path = path.replace("\\", "/")
    for root in known.code_roots:
        if path.startswith(root):
            return path[len(root) :].lstrip("/")
    short = CODE_ROOT.sub("", path, count=1)
    return short.removeprefix("./")


def is_here(frames: Sequence[Frame], known: Known) -> bool:
    """Whether the innermost frame is the user's own code, and not that of a text which the script has only printed.

    Python writes the whole path, except of a script that another program runs, as `python -m mpi4py train.py` does.
    """
    path = frames[-1].path
    whole = path.startswith(("/", "<")) or path[1:3] in (":\\", ":/") or path.split("/")[-1] in (known.command or "")
    return is_own(path, known) and (whole or any(frame.path.startswith("/") for frame in frames))


def by_frames(raised: Raised) -> Signature | None:
    """What an exception means by where it was raised: a connection or an end may be that of a server or a file."""
    name = raised.name.rpartition(".")[2]
    last = raised.frames[-1] if raised.frames else None
    if name == "KeyError" and last and last.function == "__getitem__" and _ENVIRONMENT.search(last.path):
        return UNSET
    for one in _BY_FRAMES:
        if re.fullmatch(one.names, name) and any(compiled(one.paths).search(frame.path) for frame in raised.frames):
            return one.signature
    return None
