"""Where processes are: their frames, which code these belong to, and what a process waits for. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Place = Literal["collective", "rendezvous", "mpi", "tensorflow", "data-loader", "lock", "process", "network", "sleep"]
"""What a process waits in."""
FOR_OTHERS: frozenset[str] = frozenset(["collective", "rendezvous", "mpi", "tensorflow"])
"""Waits that other ranks end, by doing the same."""


@dataclass(frozen=True)
class Frame:
    """A line that a thread is in."""

    file: str
    """Relative to the code folder for the user's own code."""
    line: int
    function: str
    own: bool = False
    """Whether it is the user's code, not a library's."""
    source: str = ""

    @property
    def at(self) -> str:
        return f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.at} in {self.function}{': ' if self.source else ''}{self.source}"


Stack = tuple[Frame, ...]
"""The frames of a thread, the innermost first."""


class Wait(NamedTuple):
    """What a thread is in, by its frames."""

    kind: Place
    call: str
    """The function that does not return: `all_reduce`, `comm.recv`."""


def own_frame(stack: Stack) -> Frame | None:
    """The innermost line of the user's own code."""
    return next((frame for frame in stack if frame.own), None)


_STARTED = re.compile(r"(?:^|/)multiprocessing/(?:process|popen_\w+|spawn|forkserver)\.py$")


def since_start(stack: Stack) -> Stack:
    """The frames of a worker process since it was started: below are those of its parent, from which it was forked."""
    return stack[: next((i for i, one in enumerate(stack) if _STARTED.search(one.file)), len(stack))]


_LIBRARY = re.compile(
    r"[/\\](?:site-packages|dist-packages)[/\\]|[/\\]lib(?:64)?[/\\]python\d|^<frozen |^<(?!string|stdin)"
)
_BELOW = re.compile(r".*[/\\](?:site-packages|dist-packages|python\d[\d.]*t?)[/\\]")


def frame(file: str, line: int, function: str, roots: Iterable[str] = (), source: str = "") -> Frame:
    """A frame, told apart: the user's own by its path in the code folder, a library's by that in the library."""
    for root in roots:
        if file.startswith(root):
            return Frame(file[len(root) :].lstrip("/\\"), line, function, True, source)
    if _LIBRARY.search(file):
        return Frame(_BELOW.sub("", file), line, function)
    return Frame(file, line, function, True, source)


_COLLECTIVES = (
    *("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "all_to_all", "all_to_all_single"),
    *("barrier", "broadcast", "broadcast_object_list", "gather", "gather_object", "monitored_barrier", "reduce"),
    *("reduce_scatter", "reduce_scatter_tensor", "scatter", "scatter_object_list", "send", "recv", "isend", "irecv"),
    *("batch_isend_irecv", "send_object_list", "recv_object_list", "all_reduce_coalesced", "all_gather_coalesced"),
)
_BY_FILE: tuple[tuple[re.Pattern[str], Place, str], ...] = (
    (re.compile(r"torch/distributed/rendezvous\.py$|torch/distributed/elastic/rendezvous/"), "rendezvous", ""),
    (re.compile(r"torch/utils/data/dataloader\.py$"), "data-loader", "the next batch of a DataLoader"),
    (re.compile(r"tensorflow/python/(eager/(execute|context)|client/session)\.py$"), "tensorflow", ""),
    (re.compile(r"(?:^|/)(?:subprocess|multiprocessing/(?:popen_\w+|process))\.py$"), "process", ""),
    (re.compile(r"(?:^|/)(?:threading|queue|multiprocessing/(?:queues|synchronize|connection))\.py$"), "lock", ""),
    (re.compile(r"(?:^|/)(?:socket|ssl|selectors|http/client|urllib/request)\.py$"), "network", ""),
)
_C10D = "torch/distributed/distributed_c10d.py"
_MEETING = ("init_process_group", "_new_process_group_helper", "new_group", "_store_based_barrier")
_MPI_CALL = re.compile(
    r"(\w[\w.]*)\.((?:I|i)?(?:all)?(?:Barrier|barrier|[Bb]cast|[Gg]atherv?|[Ss]catterv?|[Rr]educe|[Aa]lltoall[vw]?|"
    r"[Ss]?[Ss]end|[Rr]ecv|[Ss]endrecv|[Ww]aitall|[Ww]aitany|[Pp]robe|[Mm]probe|[Ee]?[Ss]can|Wait|wait)"
    r"|All(?:reduce|gatherv?|toall[vw]?)|Reduce_scatter\w*|Ssend|ssend|Ibarrier|Exscan|exscan|Fence|Finalize|Lock)\("
)
_SLEEP = re.compile(r"\bsleep\(")


def wait_of(stack: Stack, *, uses_mpi: bool = False) -> Wait | None:
    """What the thread waits in; None if its frames do not show it, or it computes."""
    before = stack[: next((i for i, one in enumerate(stack) if one.own), len(stack))]
    if found := _wait_in_libraries(before):
        return found
    own = own_frame(stack)
    if own is None or (before and not all(_is_thin(one) for one in before)):
        return None
    if uses_mpi and (call := _MPI_CALL.search(own.source)):
        return Wait("mpi", f"{call[1].rpartition('.')[2]}.{call[2]}")
    return Wait("sleep", "sleep") if _SLEEP.search(own.source) else None


def _is_thin(one: Frame) -> bool:
    """A frame that adds nothing to the call of the user's."""
    return one.function in ("wrapper", "inner", "_fn") or one.file.endswith(("contextlib.py", "functools.py"))


def _wait_in_libraries(frames: Sequence[Frame]) -> Wait | None:
    """By the frames between the user's own and the innermost: what is nearest to the user's own has the name."""
    in_c10d = [one for one in frames if one.file.endswith(_C10D)]
    if meeting := [one for one in in_c10d if one.function in _MEETING]:
        return Wait("rendezvous", meeting[-1].function.lstrip("_"))
    if any(_BY_FILE[0][0].search(one.file) for one in frames):
        return Wait("rendezvous", "init_process_group")
    if called := [one for one in in_c10d if one.function in _COLLECTIVES]:
        return Wait("collective", called[-1].function)
    for pattern, kind, call in _BY_FILE[1:]:
        if found := [one for one in frames if pattern.search(one.file)]:
            return Wait(kind, call or found[-1].function)
    return None


# --- what others wrote of stacks


_THREAD = re.compile(r"^(?:Thread|Current thread) 0x[0-9a-f]+(?: \[(?P<name>[^]]*)\])? \(most recent call first\):")
_AT = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)$')


def from_faulthandler(text: str, roots: Iterable[str] = ()) -> list[Stack]:
    """The threads of a dump that faulthandler wrote, the main one first: it writes that one last."""
    roots = list(roots)
    threads: list[list[Frame]] = []
    for line in text.splitlines():
        if _THREAD.match(line):
            threads.append([])
        elif threads and (at := _AT.match(line)):
            threads[-1].append(frame(at["file"], int(at["line"]), at["function"], roots))
    return [tuple(one) for one in reversed(threads) if one]


def from_py_spy(threads: Sequence[Mapping[str, Any]], roots: Iterable[str] = ()) -> list[Stack]:
    """The threads of `py-spy dump --json`, the main one first."""
    roots = list(roots)
    main = [one for one in threads if one.get("thread_name") == "MainThread"]
    main = main or [one for one in threads if one.get("os_thread_id") == one.get("pid")]
    ordered = [*main[:1], *(one for one in threads if one not in main[:1])]
    return [
        tuple(
            frame(str(f.get("filename")), int(f.get("line") or 0), str(f.get("name")).rpartition(">.")[2], roots)
            for f in one.get("frames") or ()
        )
        for one in ordered
        if one.get("frames")
    ]


# --- grouping


def library_text(stack: Stack) -> str:
    """The libraries' frames above the user's own, folded into a few words."""
    above = stack[: next((i for i, one in enumerate(stack) if one.own), len(stack))]
    if not above:
        return ""
    first = above[-1]
    more = f" and {len(above) - 1} more" if len(above) > 1 else ""
    return f"in {first.function} ({first.at}){more}"
