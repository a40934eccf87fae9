"""Finds tracebacks in a log: what was raised, where, what caused what, and whether it ended the process."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from azml_dist.verdict.signatures import PROGRESS

_HEADER = re.compile(r"(?:Original )?Traceback \(most recent call last\)")
_GROUP = re.compile(r"^\s*(?:\+(?:-\+)?-+ (?:\d+|\.\.\.) -+|\+-+|\+ (?=Exception Group)|(?:\| ?)+)")
_FRAME = re.compile(r"^\s*(?:> ?)?\s*File \"(?P<path>[^\"]+)\", line (?P<line>\d+)(?:,? in (?P<name>.+))?$")
_BOX = re.compile(r"^[│|] ?(?P<inside>.*?) *[│|]?$")
_BOXED = re.compile(r"(?P<path>[^\s:]+\.py):(?P<line>\d+)(?: in(?: (?P<name>\S+))?)?$")
_IPYTHON = re.compile(r"^(?P<name>(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*) {2,}Traceback \(most recent call last\)\s*$")
_CELL = re.compile(
    r"^(?:File |Cell |Input )?(?P<path>In ?\[\d*\]|[^\s:,]+\.py)(?::(?P<line>\d+)|, line (?P<cell>\d+))?"
    r"(?:,? in (?P<name>[\w.<>]+).*)?$"
)
_ARROW = re.compile(r"^-+> ?(?P<line>\d+) ?(?P<source>.*)$")
_MOST_RECENT = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-fA-F]+.*\(most recent call first\):")
_MADE = re.compile(r"\bdefined at \(most recent call last\):")
_FATAL = re.compile(r"^Fatal Python error: (?P<what>.+)$")
_RAISED = re.compile(
    r"^(?P<name>(?:[A-Za-z_]\w*\.)*\w*(?:Error|Exception|Interrupt|Exit|Warning|Iteration|Timeout|Failure|Fault|Group"
    r"|Empty|Full|Expired|Unavailable|Aborted|Exhausted|OutOfMemory|Died|Refused|Denied|NotFound|Missing|Invalid))"
    r"(?P<of>\(\w+\))?(?:: ?(?P<message>.*))?$"
)
_PERHAPS_RAISED = re.compile(r"^(?P<name>(?:[A-Za-z_]\w*\.)*[A-Z]\w*)(?P<of>)(?:: (?P<message>.*))?$")
_QUALIFIED = re.compile(
    r"^(?P<name>(?:[A-Za-z_]\w*\.)+(?:<locals>\.|[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?P<of>)(?:: (?P<message>.*))?$"
)
"""A name with its module, as `struct.error` or that of a class in a function: only right below the frames."""
_BEGUN = re.compile(r"[A-Za-z_][\w.]*")
"""What may be the beginning of the name of an exception."""
_CAUSED = re.compile(r"The above exception was the direct cause|During handling of the above exception")
_INNER = re.compile(r"Original Traceback|terminated with the following error|^Caught .+ in ")
_THREAD = re.compile(r"^Exception in thread (?P<name>.+):")
_CHILD = re.compile(r"^Process \S+:$")
"""What multiprocessing writes before the traceback of a process that it started."""
_NOBODY_WAITED = re.compile(r"^(?:Task|Future) exception was never retrieved")
"""What asyncio writes of a task whose exception ends nothing."""
_AT_THE_END = re.compile(r"^(?:Exception ignored (?:in|on)|Error in (?:atexit|sys\.)|Exception in thread .*shutdown)")
_SHUTDOWN = re.compile(r"can't (?:create|register|start).* at (?:interpreter )?shutdown|sys\.meta_path is None")
_LOGGED = re.compile(r"^\[?\d{4}[-/]\d\d[-/]\d\d|^\[[EWI]\d{4} |^[EWI]\d{4} |^(?:INFO|WARNING|ERROR|DEBUG)\b")
LOGGED_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|(?<!NCCL )WARN(?:ING)?|EXCEPTION)\b|^\[?[EW]\d{4} ")
_BETWEEN = 8
"""Lines of other processes that may appear between two frames."""
_LOOK_AHEAD = 6
_MESSAGE = 14
"""How many lines of a message to read."""
_FRAMES = 200
_GRAPH_ERROR = "Graph execution error:"
_OF_A_LAYER = re.compile(r"Exception encountered when calling [^\n]*\.$")
"""What Keras puts before the message of an exception, which follows after an empty line."""
_NODE = "[[{{node "
"""What newer versions of TensorFlow write below the reason."""
_GRAPH = 400
"""How many lines below it to look for the reason: there are the frames in which each operation was made."""


class Frame(NamedTuple):
    """A place in a traceback."""

    path: str
    line: int
    function: str
    source: str | None


class Raised(NamedTuple):
    """One exception with its frames, the innermost last. `named` is the line that names it."""

    name: str
    message: str
    """Its first line."""
    text: str
    """All its lines, as far as they are in the log."""
    frames: tuple[Frame, ...]
    begin: int
    named: int
    end: int


class Traceback(NamedTuple):
    """A chain of exceptions: the first is the cause, the last ended the process."""

    chain: tuple[Raised, ...]
    thread: str | None = None
    logged: bool = False
    """A line of a log of errors stands right before it: the script has caught it."""
    at_the_end: bool = False
    """Raised while the interpreter exited, after the work had finished or failed."""
    of_a_child: bool = False
    """A process that the script started has ended by it."""
    fatal: str | None = None
    """The message of faulthandler or the interpreter, such as `Segmentation fault`."""

    @property
    def root(self) -> Raised:
        return self.chain[0]

    @property
    def last(self) -> Raised:
        return self.chain[-1]

    @property
    def begin(self) -> int:
        return min(one.begin for one in self.chain)

    @property
    def end(self) -> int:
        return max(one.end for one in self.chain)


def tracebacks(lines: Sequence[str], begins: Iterable[int] | None = None) -> list[Traceback]:
    """All tracebacks in the lines of one process, in their order; `begins` are lines at which one may begin."""
    found: list[Traceback] = []
    for begin, one in _blocks(lines, range(len(lines)) if begins is None else begins):
        previous = found[-1] if found else None
        first = max(previous.last.named + 1 if previous else 0, begin - 5)
        before = [line for line in lines[first : begin + 1] if line.strip()]
        if previous and _belongs(previous, one, lines[previous.end : begin + 1]):
            found[-1] = previous._replace(chain=_linked(previous.chain, one, lines[previous.end : begin + 1]))
            continue
        at_the_end = any(map(_AT_THE_END.match, before)) or bool(_SHUTDOWN.search(one.text))
        thread = next((m["name"] for line in before if (m := _THREAD.match(line))), None)
        fatal = one.message if one.name == "" else None
        label = before[-1].partition("Traceback")[0] if before else ""
        logged = any(map(LOGGED_ERROR.search, (*before[-2:-1], label))) or any(map(_NOBODY_WAITED.match, before))
        child = any(map(_CHILD.match, before[-2:]))
        found.append(Traceback((one,), thread, logged, at_the_end, child, fatal))
    return found


def unfinished(lines: Sequence[str], *, cut: bool) -> tuple[Frame, ...]:
    """The frames of a traceback at the end of a log without its exception, or, if cut, without its whole name."""
    lines = lines[: next((at for at in range(len(lines), 0, -1) if lines[at - 1].strip()), 0)]
    begun = cut and bool(lines) and _BEGUN.fullmatch(lines[-1]) and not _RAISED.match(lines[-1])
    end = len(lines) - 1 if begun else len(lines)
    begin = end - 1
    while begin >= 0 and lines[begin][:1].isspace():
        begin -= 1
    if begin < 0 or not _HEADER.search(lines[begin]):
        return ()
    places = [(at, frame) for at in range(begin + 1, end) if (frame := _FRAME.match(lines[at]))]
    return tuple(
        Frame(frame["path"], int(frame["line"]), frame["name"] or "<module>", _source(lines[:end], at + 1, False))
        for at, frame in places
    )


def _belongs(previous: Traceback, one: Raised, between: Sequence[str]) -> bool:
    if len(between) > 12 or previous.fatal:
        return False
    if one.name.endswith("CalledProcessError") and not any(line.strip() for line in between[:-1]):
        # The program that the script had started wrote its traceback, and ended: that is why this was raised.
        return not (previous.logged or previous.thread or previous.at_the_end)
    if any(_CAUSED.search(line) or _INNER.search(line) for line in between):
        return True
    # Inner exceptions follow an exception group; an inner traceback follows errors of Ray and spawned processes.
    outer = previous.last.name.rpartition(".")[2]
    return outer.endswith(("ExceptionGroup", "RayTaskError", "ProcessRaisedException")) or (
        bool(_INNER.search(previous.last.message)) and len(between) <= 3
    )


def _linked(chain: tuple[Raised, ...], one: Raised, between: Sequence[str]) -> tuple[Raised, ...]:
    """Python prints the cause first; an error that wraps another process's traceback prints itself first."""
    if any(map(_CAUSED.search, between)):
        return (*chain, one)
    wrappers = sum(_wraps(raised) for raised in reversed(chain))
    return (*chain[: len(chain) - wrappers], one, *chain[len(chain) - wrappers :])


def _wraps(raised: Raised) -> bool:
    last = raised.name.rpartition(".")[2]
    return last.endswith(("ExceptionGroup", "RayTaskError", "ProcessRaisedException")) or bool(
        _INNER.search(raised.message)
    )


def _blocks(lines: Sequence[str], begins: Iterable[int]) -> Iterator[tuple[int, Raised]]:
    """Each reported exception, with the index of its first line."""
    next_one = 0
    for at in begins:
        if at < next_one:
            continue
        line = lines[at]
        block = None
        if "Traceback (most" in line:
            shaped = _boxed if line.lstrip()[:1] in "╭┌" else _of_ipython if _IPYTHON.match(line) else None
            block = shaped(lines, at) if shaped else _block(lines, at, at + 1)
        elif line.startswith("Fatal Python error"):
            block = _fatal(lines, at)
        elif 'File "' in line and _FRAME.match(line):
            if at and _MADE.search(lines[at - 1]):  # where an operation was made: TensorFlow says so in a message
                next_one = _frames_at(lines, at)
                continue
            block = _block(lines, at, at)
        if block:
            yield at, block
            next_one = block.end


def _reason(lines: Sequence[str], *, of_a_graph: bool) -> str | None:
    """Why a graph of TensorFlow failed, which is next to the name of the node, or a layer of Keras."""
    if of_a_graph and not any(line.startswith("Node: ") for line in lines):
        end = next((n for n, line in enumerate(lines) if _NODE in line), 0)
        return next((line.strip() for line in reversed(lines[:end]) if line.strip()), None)
    named = (n + 1 for n, line in enumerate(lines) if line.startswith("Node: "))
    at = next(named, len(lines)) if of_a_graph else 0
    return next((line.strip() for line in lines[at:] if line.strip()), None)


def _frames_at(lines: Sequence[str], at: int) -> int:
    """The first line after these frames."""
    while at < len(lines) and (_FRAME.match(lines[at]) or lines[at][:1].isspace()):
        at += 1
    return at


def _block(lines: Sequence[str], begin: int, at: int) -> Raised | None:
    """A traceback in Python's format, even with lines of other processes in it."""
    frames: list[Frame] = []
    others = 0
    grouped = bool(_GROUP.match(lines[begin]))
    while at < len(lines):
        line = _GROUP.sub("", lines[at]) if grouped else lines[at]
        if frame := _FRAME.match(line):
            source = _source(lines, at + 1, grouped)
            frames.append(Frame(frame["path"], int(frame["line"]), frame["name"] or "<module>", source))
            others = 0
        elif _HEADER.search(line):
            return None
        elif line.strip() and not line[0].isspace():
            raised = _raised(lines, at, line, grouped) or (_QUALIFIED.match(line) if frames and not others else None)
            if raised and frames:
                end, text = _message(lines, at, line, grouped)
                name = raised["name"] + (raised["of"] or "")
                message = _first_of(raised["message"] or "", text)
                if (message == _GRAPH_ERROR or _OF_A_LAYER.match(message)) and (
                    reason := _reason(lines[end : end + _GRAPH], of_a_graph=message == _GRAPH_ERROR)
                ):
                    message, text = reason, f"{text}\n{reason}"
                return Raised(name, message, text, tuple(frames[-_FRAMES:]), begin, at, end)
            if raised and not frames and begin != at:
                end, text = _message(lines, at, line, grouped)
                return Raised(raised["name"], raised["message"] or "", text, (), begin, at, end)
            others += 1
            if others > _BETWEEN:
                return None
        at += 1
    return None


def _first_of(message: str, text: str) -> str:
    """The first line of a message, with the next one if it says nothing without it."""
    if message.strip() and not message.rstrip().endswith(":"):
        return message
    below = next((line.strip() for line in text.splitlines()[1:] if line.strip()), "")
    return f"{message} {below}".strip() if message != _GRAPH_ERROR else message


def _raised(lines: Sequence[str], at: int, line: str, grouped: bool) -> re.Match[str] | None:
    """The name and message of an exception, if the line ends a traceback."""
    if found := _RAISED.match(line):
        return found
    found = _PERHAPS_RAISED.match(line)
    ahead = lines[at + 1 : at + 1 + _LOOK_AHEAD]
    for one in ahead:
        if _HEADER.search(one):
            break
        if _FRAME.match(_GROUP.sub("", one) if grouped else one):
            return None
    return found


def _source(lines: Sequence[str], at: int, grouped: bool) -> str | None:
    if at >= len(lines):
        return None
    line = _GROUP.sub("", lines[at]) if grouped else lines[at]
    text = line.strip()
    return text if text and line[0].isspace() and not _FRAME.match(line) and set(text) - set("^~ ") else None


def _message(lines: Sequence[str], at: int, first: str, grouped: bool) -> tuple[int, str]:
    """The end of an exception's message, and the whole message."""
    kept = [first]
    end = at + 1
    while end < len(lines) and len(kept) < _MESSAGE:
        line = _GROUP.sub("", lines[end]) if grouped else lines[end]
        if not line.strip() or _HEADER.search(line) or _FRAME.match(line) or _CAUSED.search(line):
            break
        if _LOGGED.match(line) or line.startswith(("=====", "-----", '"""', "terminate called")):
            break
        if PROGRESS.search(line) and not line[0].isspace():
            break
        kept.append(line)
        end += 1
    return end, "\n".join(kept)


def _boxed(lines: Sequence[str], begin: int) -> Raised | None:
    """A traceback in rich's format: a box of places, with the exception below."""
    frames: list[Frame] = []
    at, wrapped = begin + 1, ""
    while at < len(lines) and not lines[at].lstrip().startswith(("╰", "└")):
        box = _BOX.match(lines[at].strip())
        inside = box["inside"].strip() if box else ""
        wrapped += inside
        if place := _BOXED.search(wrapped):
            frames.append(Frame(place["path"], int(place["line"]), place["name"] or "<module>", None))
        elif inside.startswith("❱") and frames:
            frames[-1] = frames[-1]._replace(source=re.sub(r"^❱\s*\d+\s*[│|]?\s*", "", inside).strip() or None)
        wrapped = wrapped if wrapped.startswith("/") and " " not in wrapped and not place else ""
        at += 1
    at += 1
    while at < len(lines) and not lines[at].strip():
        at += 1
    if at >= len(lines) or not (raised := _RAISED.match(lines[at]) or _PERHAPS_RAISED.match(lines[at])):
        return None
    end, text = _message(lines, at, lines[at], grouped=False)
    return Raised(raised["name"], raised["message"] or "", text, tuple(frames), begin, at, end)


def _of_ipython(lines: Sequence[str], begin: int) -> Raised | None:
    """A traceback in IPython's format, as notebooks have it: an arrow marks the line in each frame."""
    header = _IPYTHON.match(lines[begin])
    assert header
    name = header["name"]
    frames: list[Frame] = []
    for at in range(begin + 1, min(len(lines), begin + 2000)):
        line = lines[at]
        if line == name or line.startswith(f"{name}: "):
            end, text = _message(lines, at, line, grouped=False)
            return Raised(name, line[len(name) + 2 :], text, tuple(frames[-_FRAMES:]), begin, at, end)
        if _HEADER.search(line):
            return None
        if place := _CELL.match(line):
            frames.append(
                Frame(place["path"], int(place["line"] or place["cell"] or 0), place["name"] or "<module>", None)
            )
        elif frames and (arrow := _ARROW.match(line)):
            frames[-1] = frames[-1]._replace(line=int(arrow["line"]), source=arrow["source"].strip() or None)
    return None


def _fatal(lines: Sequence[str], begin: int) -> Raised | None:
    """faulthandler's output: the innermost frame first, and the failed thread first."""
    fatal = _FATAL.match(lines[begin])
    if not fatal:
        return None
    frames: list[Frame] = []
    at = begin + 1
    threads = 0
    current = False
    while at < len(lines) and at < begin + 2000:
        line = lines[at]
        if _MOST_RECENT.match(line):
            threads += 1
            current = line.startswith("Current")
            if current:
                frames = []
        elif frame := _FRAME.match(line):
            if current or threads == 1:
                frames.insert(0, Frame(frame["path"], int(frame["line"]), frame["name"] or "", None))
        elif line.strip() and not line[0].isspace():
            break
        at += 1
    return Raised("", fatal["what"], lines[begin], tuple(frames), begin, begin, at)
