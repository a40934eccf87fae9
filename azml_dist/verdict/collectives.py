"""Which rank is the odd one out, by the collectives that each has entered: what torch's Flight Recorder has, compared.

Pure, and for dumps from anywhere: a run here, or one on Azure ML whose ranks left theirs in `./logs`. The recorder has
NCCL's collectives and gloo's. It counts those of each process group; as all of a group's ranks call them in one order,
the same number means the same call.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from azml_dist.verdict.stacks import Frame, frame, own_frame
from azml_dist.words import ranks_text

What = Literal["missing", "ended", "operation", "shapes", "crossed"]


class Group(NamedTuple):
    """A process group, as its ranks know it."""

    name: str
    ranks: tuple[int, ...]
    """Global ranks; empty if unknown."""


@dataclass(frozen=True)
class Entry:
    """A collective that a rank has entered."""

    group: Group
    number: int
    op: str
    sizes: str
    """`float32 [4, 3]`."""
    left: bool
    """Whether the rank has left it."""
    at: Frame | None = None


@dataclass(frozen=True)
class Trace:
    """What one rank has entered; of each group, in order."""

    rank: int
    entries: Sequence[Entry]
    groups: Sequence[Group] = ()

    def last(self, group: Group) -> Entry | None:
        return next((one for one in reversed(self.entries) if one.group == group), None)


@dataclass(frozen=True)
class Difference:
    """What keeps ranks waiting in a collective."""

    what: What
    group: Group
    number: int
    op: str
    odd: tuple[int, ...]
    """Empty for a tie, such as two against two."""
    waiting: tuple[int, ...]
    text: str
    certain: bool
    """The odd ones are few, and all ranks of the group are known."""
    at: Mapping[int, Frame] = field(default_factory=dict)
    """The user's line of each rank that is in it."""
    sizes: str = ""


# --- reading a dump


_DTYPES = {"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64"}
_DTYPES |= {"Int": "int32", "Short": "int16", "Byte": "uint8", "Char": "int8", "Bool": "bool"}
_COUNT = 1 << 48


def read_trace(rank: int, dump: Any, groups: Mapping[str, Any] | None = None, roots: Iterable[str] = ()) -> Trace:
    """Read a dump of the recorder, of any version, from plain values; entries with another shape are skipped.

    `groups` are those that the process itself knows: name, and then a description and the ranks.
    """
    dump = dump if isinstance(dump, Mapping) else {}
    known = {**_groups_of(dump), **_groups_given(groups)}
    status = dump.get("pg_status")
    done = {str(name): _number(one.get("last_completed_collective")) for name, one in _items(status)}
    roots = list(roots)
    given = dump.get("entries")
    raws = [raw for raw in given if isinstance(raw, Mapping)] if isinstance(given, list | tuple) else []
    entries = [entry for raw in raws if (entry := _entry(raw, known, done, roots))]
    return Trace(rank, entries, tuple(known.values()))


def _items(value: Any) -> list[tuple[Any, Mapping[str, Any]]]:
    return [(k, v) for k, v in value.items() if isinstance(v, Mapping)] if isinstance(value, Mapping) else []


def _number(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,15}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _COUNT else None


def _groups_of(dump: Mapping[str, Any]) -> dict[str, Group]:
    """Groups that the dump describes: NCCL's have their ranks, as a text."""
    found = {}
    for name, one in _items(dump.get("pg_config")):
        ranks = [int(n) for n in re.findall(r"\d{1,9}", str(one.get("ranks") or ""))[:100_000]]
        if ranks:
            found[str(one.get("name") or name)] = Group(str(one.get("name") or name), tuple(ranks))
    return found


def _groups_given(groups: Mapping[str, Any] | None) -> dict[str, Group]:
    return {str(name): Group(str(name), tuple(ranks)) for name, (_, ranks) in (groups or {}).items()}


def _entry(
    raw: Mapping[str, Any], groups: Mapping[str, Group], done: Mapping[str, int | None], roots: Sequence[str]
) -> Entry | None:
    number = _number(raw.get("collective_seq_id"))
    op = str(raw.get("profiling_name") or "").rpartition(":")[2]
    named = raw.get("process_group")
    name = str(named[0]) if isinstance(named, list | tuple) and named else str(raw.get("pg_id"))
    if not number or not op or raw.get("is_p2p"):
        return None
    state = raw.get("state")
    completed = done.get(str(raw.get("pg_id")))
    left = state == "completed" or bool(raw.get("retired")) or (completed is not None and number <= completed)
    sizes = _sizes(raw.get("input_sizes"), raw.get("input_dtypes"))
    return Entry(groups.get(name, Group(name, ())), number, plain_op(op), sizes, left, _line(raw.get("frames"), roots))


def plain_op(op: str) -> str:
    """The name that users know: `_allgather_base` is what `all_gather_into_tensor` is called inside."""
    return _NAMES.get(op.lower(), op.lower())


_NAMES = {
    "_allgather_base": "all_gather_into_tensor",
    "_reduce_scatter_base": "reduce_scatter_tensor",
    "alltoall_base": "all_to_all_single",
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "alltoall": "all_to_all",
}


def _sizes(sizes: Any, dtypes: Any) -> str:
    if not isinstance(sizes, list | tuple):
        return ""
    kinds = [str(one) for one in dtypes] if isinstance(dtypes, list | tuple) else []
    texts = [
        f"{_DTYPES.get(kind, kind)} {list(one) if isinstance(one, list | tuple) else one}"
        for one, kind in zip(sizes[:8], [*kinds, *[""] * len(sizes)], strict=False)
    ]
    return ", ".join(text.strip() for text in texts) + (" …" if len(sizes) > 8 else "")


def _line(frames: Any, roots: Sequence[str]) -> Frame | None:
    if not isinstance(frames, list | tuple):
        return None
    stack = tuple(
        frame(str(f.get("filename")), _number(f.get("line")) or 0, str(f.get("name")), roots)
        for f in frames
        if isinstance(f, Mapping)
    )
    return own_frame(stack)


# --- comparing


_SAME_SIZES = frozenset(
    ["all_reduce", "broadcast", "reduce", "all_gather", "all_gather_into_tensor", "reduce_scatter_tensor"]
)
"""Collectives to which all ranks bring tensors of one size."""


def compare(traces: Iterable[Trace], ended: Mapping[int, str] | None = None) -> list[Difference]:
    """What keeps ranks waiting, what is at the root of it first. `ended` says how ranks ended that are gone."""
    by_rank = {one.rank: one for one in traces}
    gone = dict(ended or {})
    groups: dict[Group, set[int]] = defaultdict(set)
    for trace in by_rank.values():
        for group in (*trace.groups, *(entry.group for entry in trace.entries)):
            groups[group] |= {*(group.ranks or ()), trace.rank}
    found = [
        one
        for group, members in groups.items()
        if (one := _in_group(group, sorted(members), by_rank, gone)) is not None
    ]
    return _roots_first(found, by_rank)


def _in_group(
    group: Group, members: Sequence[int], traces: Mapping[int, Trace], gone: Mapping[int, str]
) -> Difference | None:
    last = {rank: traces[rank].last(group) for rank in members if rank in traces}
    waiting = sorted(rank for rank, one in last.items() if one and not one.left)
    if not waiting:
        return None
    if differs := _first_mismatch(group, members, traces):
        return differs
    gone_or_unknown = [rank for rank in members if rank not in last]
    # The first that some have not entered: a rank that waits in an earlier one holds up those in later ones.
    for number in sorted({one.number for rank in waiting if (one := last[rank])}):
        behind = [rank for rank, one in last.items() if (one.number if one else 0) < number]
        if behind or gone_or_unknown:
            inside = {rank: one for rank, one in last.items() if one and one.number >= number and not one.left}
            return _missing(group, number, inside, behind, gone_or_unknown, gone)
    return None


def _missing(
    group: Group,
    number: int,
    inside: Mapping[int, Entry],
    behind: Sequence[int],
    without_trace: Sequence[int],
    gone: Mapping[int, str],
) -> Difference:
    here = {rank: entry for rank, entry in inside.items() if entry.number == number}
    entry = next(iter(here.values()))
    unknown = [rank for rank in without_trace if rank not in gone]
    missing = sorted([*behind, *(rank for rank in without_trace if rank in gone)] or unknown)
    of = f"{entry.op} #{number}{_of_group(group)}"
    ended = [rank for rank in missing if rank in gone]
    verb = "has" if len(missing) == 1 else "have"
    wait = "waits" if len(here) == 1 else "wait"
    if ended and len(ended) == len(missing):
        how = {gone[rank] for rank in ended}
        why = f" ({how.pop()})" if len(how) == 1 else ""
        text = f"{ranks_text(missing)} {verb} ended{why}, and {ranks_text(here)} {wait} in {of}"
    else:
        text = f"{ranks_text(missing)} {verb} not entered {of}, in which {ranks_text(here)} {wait}"
    # As many or more ranks are missing: then those inside are just as likely to be in the wrong place.
    odd = missing if len(missing) <= len(inside) else sorted(inside)
    what: What = "ended" if ended else "missing"
    certain = len(missing) < len(inside) and not unknown
    at = {rank: one.at for rank, one in here.items() if one.at}
    return Difference(what, group, number, entry.op, tuple(odd), tuple(sorted(inside)), text, certain, at, entry.sizes)


def _first_mismatch(group: Group, members: Sequence[int], traces: Mapping[int, Trace]) -> Difference | None:
    """The first number at which ranks called different things."""
    by_number: dict[int, dict[int, Entry]] = defaultdict(dict)
    for rank in members:
        for entry in traces[rank].entries if rank in traces else ():
            if entry.group == group:
                by_number[entry.number][rank] = entry
    for number in sorted(by_number):
        entries = by_number[number]
        if len({one.op for one in entries.values()}) > 1:
            return _mismatch("operation", group, number, entries, {r: one.op for r, one in entries.items()})
        op = next(iter(entries.values())).op
        sizes = {r: one.sizes for r, one in entries.items()}
        if op in _SAME_SIZES and len(set(sizes.values())) > 1 and not _only_root_brings(op, sizes):
            return _mismatch("shapes", group, number, entries, sizes)
    return None


def _only_root_brings(op: str, sizes: Mapping[int, str]) -> bool:
    return op in ("broadcast", "reduce") and not all(sizes.values())


def _mismatch(
    what: What, group: Group, number: int, entries: Mapping[int, Entry], called: Mapping[int, str]
) -> Difference:
    by_call: dict[str, list[int]] = defaultdict(list)
    for rank, call in called.items():
        by_call[call].append(rank)
    usual = max(by_call, key=lambda call: len(by_call[call]))
    others = {call: ranks for call, ranks in by_call.items() if call != usual}
    odd = sorted(rank for ranks in others.values() for rank in ranks)
    is_few = len(odd) < len(by_call[usual])
    op = next(iter(entries.values())).op
    verb = "call" if what == "operation" else "bring"
    told = " and ".join(_verb(ranks, verb, call or "nothing") for call, ranks in others.items())
    rest = f"the others {verb}" if len(by_call[usual]) > 1 else f"{ranks_text(by_call[usual])} {verb}s"
    if what == "operation":
        text = f"at collective #{number}{_of_group(group)} {told} where {rest} {usual}"
    else:
        text = f"shapes differ in {op} #{number}{_of_group(group)}: {told}, {rest} {usual or 'nothing'}"
    at = {rank: one.at for rank, one in entries.items() if one.at}
    sizes = called[by_call[usual][0]] if what == "shapes" else ""
    op = usual if what == "operation" else op
    return Difference(
        what, group, number, op, tuple(odd) if is_few else (), tuple(sorted(entries)), text, True, at, sizes
    )


def _verb(ranks: Sequence[int], verb: str, what: str) -> str:
    return f"{ranks_text(ranks)} {verb}{'s' if len(ranks) == 1 else ''} {what}"


def _of_group(group: Group) -> str:
    if group.name in ("0", "") or not group.ranks:
        return ""
    return f" of the group of {ranks_text(group.ranks)}"


def _roots_first(found: list[Difference], traces: Mapping[int, Trace]) -> list[Difference]:
    """A rank that waits elsewhere is not the root, but the rank that keeps it waiting; in a circle, all of them are."""
    waits_in = {rank: one for one in found for rank in one.waiting if one.what in ("missing", "ended")}
    held_up = [one for one in found if one.what == "missing" and one.odd and all(r in waits_in for r in _late(one))]
    if found and len(held_up) == len(found) and len(found) > 1:
        return [_behind_its_siblings(found, traces) or _crossed(found, waits_in)]
    order = {"operation": 0, "shapes": 0, "ended": 1, "missing": 2, "crossed": 3}
    return sorted(found, key=lambda one: (one in held_up, order[one.what], -one.certain, one.group.name))


def _late(one: Difference) -> tuple[int, ...]:
    return one.odd if one.odd != one.waiting else ()


def _behind_its_siblings(found: Sequence[Difference], traces: Mapping[int, Trace]) -> Difference | None:
    """Of two ranks that wait for each other, the one that has not done in its group what ranks of like groups have."""
    groups = {group for trace in traces.values() for group in trace.groups}
    for one in found:
        like = [g for g in groups if len(g.ranks) == len(one.group.ranks) and not {*g.ranks} & {*one.group.ranks}]
        last = [traces[rank].last(group) for group in like for rank in group.ranks if rank in traces]
        if last and all(entry and entry.number >= one.number for entry in last):
            return replace(one, certain=False)
    return None


def _crossed(found: Sequence[Difference], waits_in: Mapping[int, Difference]) -> Difference:
    first = found[0]
    told = [f"{ranks_text(one.waiting)} in {one.op} #{one.number}{_of_group(one.group)}" for one in found[:4]]
    text = f"ranks wait for each other in different groups: {'; '.join(told)}"
    everyone = tuple(sorted(waits_in))
    at = {rank: line for one in found for rank, line in one.at.items()}
    odd = _few(found)
    return Difference("crossed", first.group, first.number, first.op, odd, everyone, text, not odd, at)


def _few(found: Sequence[Difference]) -> tuple[int, ...]:
    """The ranks that are alone in their group, if all groups have the same ranks; empty for a tie."""
    fewest = sorted(found, key=lambda one: len(one.waiting))
    is_same = len({frozenset(one.group.ranks) for one in found}) == 1
    return fewest[0].waiting if is_same and len(fewest[0].waiting) < len(fewest[1].waiting) else ()
