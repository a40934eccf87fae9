"""Why ranks on Azure ML waited for one another, by what they left when NCCL timed out. Pure.

`submit --watch-hangs` lets torch write a dump of its Flight Recorder for each rank, and Python its stacks into the log.
Without dumps, the watchdog of NCCL still says in each log which collective it waited for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from azml_dist.errors import DistError
from azml_dist.verdict.collectives import Difference, Entry, Group, Trace, plain_op, read_trace
from azml_dist.verdict.hang import Diagnosis, Picture, Seen, diagnose
from azml_dist.verdict.judge import judge, known_in_part
from azml_dist.verdict.known import CODE_ROOT, DUMP, Known, Log
from azml_dist.verdict.plain import read_plain
from azml_dist.verdict.stacks import Stack, from_faulthandler
from azml_dist.verdict.verdict import Evidence, Verdict

OF_A_HANG = frozenset(
    ["collective-timeout", "collective-mismatch", "hang", "timeout", "canceled", "unknown", "launcher"]
)
"""Kinds of verdicts about which dumps say more; any other has a cause of its own."""
_WORLD = ("", "0")
"""Names of the group of all ranks."""


@dataclass
class Left:
    """What the ranks of a run left."""

    size: int
    """How many ranks there are."""
    traces: dict[int, Trace] = field(default_factory=dict)
    paths: dict[int, str] = field(default_factory=dict)
    """The dump of each trace."""
    unread: list[DistError] = field(default_factory=list)
    stacks: dict[int, list[Stack]] = field(default_factory=dict)
    said: dict[int, Trace] = field(default_factory=dict)
    """What the watchdog wrote into the log of each rank."""
    heard: set[int] = field(default_factory=set)
    """The ranks that have a log."""
    logs: dict[int, str] = field(default_factory=dict)

    def take_dump(self, path: str, rank: int, data: bytes) -> None:
        """Read a dump; one that is not what it should be is noted."""
        try:
            dump = read_plain(data, path)
        except DistError as error:
            self.unread.append(error)
            return
        trace = read_trace(rank, dump)
        entries = [self._known(one) for one in trace.entries]
        groups = tuple(dict.fromkeys(self._whole(group) for group in trace.groups))
        self.paths[rank] = path
        self.traces[rank] = Trace(rank, _until_it_waits(entries) if _is_of_nccl(dump) else entries, groups)

    def listen(self, logs: Iterable[Log]) -> Iterator[Log]:
        """The logs, while noting what is in them; an abort by the watchdog of NCCL is taken out, as nobody's fault."""
        for log in logs:
            if log.rank is not None:
                self._hear(log.rank, log)
            yield _without_abort(log)

    @property
    def problems(self) -> list[tuple[str, str | None]]:
        """What could not be read, and why: at most one of each kind."""
        told = [(error.problems[0].message, error.problems[0].hint) for error in self.unread]
        return told[:1] if len(told) < 2 else [(f"{told[0][0]} (and {len(told) - 1} more)", told[0][1])]

    def _hear(self, rank: int, log: Log) -> None:
        self.heard.add(rank)
        lines = [line.text for line in log.lines]
        if stacks := _stacks(lines):
            self.stacks[rank], self.logs[rank] = stacks, log.name
        if trace := self._watchdog(rank, lines):
            self.said[rank], self.logs[rank] = trace, log.name

    def _watchdog(self, rank: int, lines: Sequence[str]) -> Trace | None:
        """The collective in which a rank waited, by the watchdog's words.

        The watchdog does not say which ranks are in a group that is not that of all ranks.
        """
        groups = {found["number"]: found for line in lines if (found := _GROUP.search(line))}
        for line in lines:
            found = _TIMED_OUT.search(line)
            if found and _is_world(groups.get(found["number"])):
                group = self._whole(Group("0", ()))
                size = f"{found['numel']} elements" if found["numel"] else ""
                return Trace(rank, [Entry(group, int(found["number"]), plain_op(found["op"]), size, False)], (group,))
        return None

    def _known(self, entry: Entry) -> Entry:
        at = entry.at and replace(entry.at, file=CODE_ROOT.sub("", entry.at.file))
        return replace(entry, group=self._whole(entry.group), at=at)

    def _whole(self, group: Group) -> Group:
        """The group of all ranks, which not every version of torch lists."""
        if group.ranks or group.name not in _WORLD:
            return group
        return Group("0", tuple(range(self.size)))


def _is_of_nccl(dump: Any) -> bool:
    entries = dump.get("entries") if isinstance(dump, Mapping) else None
    last = entries[-1] if isinstance(entries, list | tuple) and entries else None
    return isinstance(last, Mapping) and str(last.get("profiling_name")).startswith("nccl:")


def _until_it_waits(entries: Sequence[Entry]) -> list[Entry]:
    """Of each group, the collectives up to the first that is not done: under NCCL, a rank enqueues more behind it."""
    waits: set[Group] = set()
    kept = []
    for one in entries:
        if one.group not in waits:
            kept.append(one)
        if not one.left:
            waits.add(one.group)
    return kept


_TIMED_OUT = re.compile(
    r"Watchdog caught collective operation timeout: Work\w*\(SeqNum=(?P<number>\d{1,15}), OpType=(?P<op>\w{1,64})"
    r"(?:, NumelIn=(?P<numel>\d{1,15}))?"
)
_GROUP = re.compile(
    r"\[PG (?:ID )?(?P<name>\d{1,9})(?: PG GUID [^\s(]*)? ?(?:\((?P<what>[^)]*)\))? Rank \d+\]"
    r".*?(?:work sequence id|at (?:NCCL )?work): (?P<number>\d{1,15})"
)
"""`[PG ID 0 PG GUID 0(default_pg) Rank 3] … at work: 412`: the group is not in the line about the collective."""


def _is_world(group: re.Match[str] | None) -> bool:
    """Whether it is the group of all ranks; torch before 2.2 names none."""
    return group is None or group["name"] in _WORLD or "default" in (group["what"] or "")


_WATCHDOG = re.compile(
    r"Watchdog caught collective operation timeout|Observed flight recorder dump signal|Received a dump signal due to"
    r"|Heartbeat monitor timed out|taking the entire process down"
)
_ABORT = "Fatal Python error: Aborted"
_OF_AN_ABORT = re.compile(r'(?:Current thread|Thread) 0x|  File "|  <no Python frame>|Extension modules: |\s*$')


def _without_abort(log: Log) -> Log:
    """The log without what Python's faulthandler wrote after the watchdog."""
    begun = next((n for n, line in enumerate(log.lines) if line.text.startswith(_ABORT)), None)
    if begun is None or not any(_WATCHDOG.search(line.text) for line in log.lines[:begun]):
        return log
    rest = [line for line in log.lines[begun + 1 :] if not _OF_AN_ABORT.match(line.text)]
    return replace(log, lines=[*log.lines[:begun], *rest])


def _stacks(lines: Sequence[str]) -> list[Stack]:
    """What Python's faulthandler wrote when the watchdog aborted the rank."""
    begun = next((n for n, line in enumerate(lines) if line.startswith(_ABORT)), None)
    if begun is None:
        return []
    stacks = from_faulthandler("\n".join(lines[begun:]))
    return [tuple(replace(one, file=CODE_ROOT.sub("", one.file)) if one.own else one for one in s) for s in stacks]


def judge_with(known: Known, dumps: Mapping[str, bytes]) -> Verdict | None:
    """The verdict on logs in a folder, and on the dumps beside them."""
    logs = list(known.logs)
    by_rank = {int(found["rank"]): path for path in dumps if (found := DUMP.search(path))}
    left = Left(1 + max([*by_rank, *(log.rank for log in logs if log.rank is not None)], default=0))
    verdict = judge(replace(known, logs=left.listen(logs)))
    if verdict is None or verdict.kind not in OF_A_HANG:
        return verdict
    for rank, path in sorted(by_rank.items()):
        left.take_dump(path, rank, dumps[path])
    verdict = with_hang(verdict, left, known.nodes)
    for why_not, hint in left.problems:
        verdict = known_in_part(verdict, why_not, hint)
    return verdict


def with_hang(verdict: Verdict, left: Left, nodes: Mapping[int, int]) -> Verdict:
    """The verdict with what the ranks left; unchanged if it has another cause, or they left nothing."""
    found = _diagnosis(left, nodes) if verdict.kind in OF_A_HANG else None
    if found is None or (not left.traces and not found.odd):
        return verdict
    traces = left.traces or left.said
    place = found.frame
    rank = found.odd[0] if found.odd else None
    return replace(
        verdict,
        kind=verdict.kind if verdict.kind in ("collective-timeout", "hang") else "hang",
        certainty=found.certainty if left.traces else "likely",
        rank=rank,
        ranks=list(found.odd),
        node=nodes.get(rank) if rank is not None else None,
        message=found.summary,
        file=place.file if place else None,
        line=place.line if place else None,
        source=None,
        summary=found.summary,
        hint=found.hint,
        followers=list(found.waiting),
        evidence=[*(_evidence(trace, left) for _, trace in sorted(traces.items())[:_MOST]), *verdict.evidence],
    )


_MOST = 16


def _diagnosis(left: Left, nodes: Mapping[int, int]) -> Diagnosis | None:
    traces = left.traces or left.said
    if not traces:
        return None
    seen = [Seen(rank, 0, "python", stacks) for rank, stacks in sorted(left.stacks.items())]
    found = diagnose(Picture(seen, list(traces.values()), nodes=nodes, logs=left.logs))
    return found if found and found.collective and _is_shown(found.collective, left) else None


def _is_shown(difference: Difference, left: Left) -> bool:
    """Whether what ranks left shows it. That most of them left nothing does not show that they are elsewhere."""
    absent = {*difference.group.ranks} - {*difference.waiting}
    if difference.what != "missing" or absent <= left.traces.keys():
        return True
    return absent <= left.heard | left.traces.keys() and difference.odd != difference.waiting


def _evidence(trace: Trace, left: Left) -> Evidence:
    """The last collective of a rank."""
    log = left.paths.get(trace.rank) or left.logs.get(trace.rank, "")
    if not trace.entries:
        return Evidence(trace.rank, log, None, "has entered no collective")
    last = trace.entries[-1]
    at = f" at {last.at.at}" if last.at else ""
    text = f"{'last left' if last.left else 'is in'} {last.op} #{last.number}{at}  {last.sizes}".rstrip()
    return Evidence(trace.rank, log, None, text)
