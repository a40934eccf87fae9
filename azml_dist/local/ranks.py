"""The processes of a local run as a table: of many, those that matter, and the others by how they ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from azml_dist.local.state import ProcessState, RunState
from azml_dist.show import Table
from azml_dist.words import ranks_text

MANY = 16
"""With more processes than that, equal ones share a row."""
_FEW = 4
"""So many that ended the same way have rows of their own."""


def processes_table(state: RunState, odd: Collection[int] = ()) -> Table:
    """A row for each process; of many, those that failed and the odd ones first, then the others in groups."""
    # If all processes have the same role, no column for it.
    roles = len({p.role for p in state.processes}) > 1
    many = len(state.processes) > MANY
    groups = _groups(state, odd) if many else [[process] for process in state.processes]
    rows = [_row(group, roles=roles, over=state.is_final()) for group in groups]
    return Table(("rank", "node", *["role"] * roles, "ended", "log"), rows)


def _groups(state: RunState, odd: Collection[int]) -> list[list[ProcessState]]:
    """Each process in one group: first those that matter, most of them alone."""
    first = {state.failed_rank, *odd}
    matter = [p for p in state.processes if p.rank in first]
    by_end: dict[tuple[bool, str, str], list[ProcessState]] = {}
    for process in state.processes:
        if process.rank not in first or len(matter) > MANY // 2:
            end = _ending(process, over=state.is_final())
            by_end.setdefault((not _failed(process), process.role, end), []).append(process)
    alone = [[process] for process in matter] if len(matter) <= MANY // 2 else []
    for _, group in sorted(by_end.items(), key=lambda pair: (pair[0][0], pair[1][0].rank)):
        few = len(group) <= _FEW and len(alone) + len(group) <= MANY
        alone += [[process] for process in group] if few else [group]
    # Hundreds of processes may have ended in hundreds of ways.
    rest = [process for group in alone[MANY:] for process in group]
    return [*alone[:MANY], *([sorted(rest, key=lambda p: p.rank)] if rest else [])]


def _failed(process: ProcessState) -> bool:
    return not process.stopped and bool(process.exit_code or process.signal)


def _row(group: Sequence[ProcessState], *, roles: bool, over: bool) -> Sequence[str]:
    ends = {_ending(process, over=over) for process in group}
    log = group[0].log if len(group) == 1 else f"{group[0].log} and {len(group) - 1} more"
    how = ends.pop() if len(ends) == 1 else f"in {len(ends)} different ways"
    role = [", ".join(sorted({process.role for process in group}))] * roles
    return (_numbers(p.rank for p in group), _numbers(p.node_rank for p in group), *role, how, log)


def _numbers(numbers: Iterable[int]) -> str:
    return ranks_text(numbers).partition(" ")[2]


def _ending(process: ProcessState, *, over: bool) -> str:
    if process.exit_code is None and process.signal is None:
        return "never started" if over else "not yet" if process.pid else "not started"
    how = f"exit code {process.exit_code}" if process.signal is None else f"signal {process.signal}"
    return f"stopped ({how})" if process.stopped else how
