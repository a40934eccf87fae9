"""Plans and runs as people see them: text for a terminal, HTML for a notebook. Both show the same."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from azml_dist.errors import SubmitError, visible
from azml_dist.plan import World

if TYPE_CHECKING:
    from azml_dist.local.state import ProcessState, RunState
    from azml_dist.plan import LaunchPlan, ProcessContext
    from azml_dist.runs import Run

_AT_A_TIME = 8
"""Runs that are asked for their status together."""
_UNBROKEN = 40
"""Characters of a cell that a notebook keeps on one line."""
_NUMBER = re.compile(r"\d+")
_SHOWN = 16
_HEAD, _FOOT = 8, 3
"""Of a larger world, the first processes and the last."""


class Table(NamedTuple):
    """Rows under headings; None is a gap, where rows were left out."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str] | None]


def plan_text(plan: LaunchPlan) -> str:
    """The plan as a person likes to read it."""
    blocks = [_title(plan), pairs_text(plan_facts(plan)), table_text(_processes(plan))]
    blocks.append("environment of each process\n" + pairs_text(_env(plan)))
    blocks += [pairs_text([("note", str(p)), ("hint", p.hint or "")]) for p in plan.findings]
    return visible("\n\n".join(blocks))


def plan_html(plan: LaunchPlan) -> str:
    """The same for a notebook."""
    notes = "".join(
        f"<p><b>note</b> {escape(str(p))}{f'<br><b>hint</b> {escape(p.hint)}' if p.hint else ''}</p>"
        for p in plan.findings
    )
    return (
        f"{title_html(*_title_parts(plan))}"
        f"{table_html(Table((), plan_facts(plan)))}{table_html(_processes(plan))}"
        f"<details><summary>environment of each process</summary>{table_html(Table((), _env(plan)))}</details>{notes}"
    )


def run_text(state: RunState) -> str:
    """How a local run stands: its processes, and what it found."""
    blocks = [f"{state.name}  {state.status}  {_world(state)}  {duration_text(state)}"]
    blocks.append(table_text(_run_processes(state)))
    if state.earlier:
        blocks.append(pairs_text(_attempts(state)))
    if state.error:
        blocks.append(pairs_text([("error", state.error), ("hint", state.hint or "")]))
    blocks += [pairs_text([("note", finding)]) for finding in state.findings]
    return "\n\n".join(blocks)


def run_html(state: RunState) -> str:
    """The same for a notebook."""
    error = error_html(state.error, state.hint)
    notes = "".join(f"<p><b>note</b> {escape(finding)}</p>" for finding in state.findings)
    title = title_html(state.name, state.status, _world(state), duration_text(state))
    attempts = table_html(Table((), _attempts(state))) if state.earlier else ""
    return title + table_html(_run_processes(state)) + attempts + error + notes


def azure_run_text(run: Mapping[str, Any]) -> str:
    """How a run on Azure ML stands."""
    blocks = ["  ".join(filter(None, (run["name"], run["status"], run["age"])))]
    blocks.append(pairs_text([("url", run["url"]), ("error", run["error"] or "")]))
    blocks.append(table_text(_azure_ranks(run)))
    return "\n\n".join(blocks)


def azure_run_html(run: Mapping[str, Any]) -> str:
    """The same for a notebook."""
    title = title_html(run["name"], " ".join(filter(None, (run["status"], run["age"]))), studio=run["url"])
    return title + table_html(_azure_ranks(run)) + error_html(run["error"])


def submitted_text(said: str, commands: Sequence[tuple[str, str]]) -> str:
    """Where a run is that was just submitted, and what to type next."""
    return "\n".join([said, *(f"  {what:<9}{command}" for what, command in commands)])


def submitted_html(said: str, url: str, commands: Sequence[tuple[str, str]]) -> str:
    """The same for a notebook."""
    left = 'style="text-align:left"'
    rows = "".join(
        f"<tr><td {left}>{what}</td><td {left}><code>{escape(command)}</code></td></tr>" for what, command in commands
    )
    return title_html(None, said.rstrip(":"), studio=url) + f"<table>{rows}</table>"


def azure_runs_text(runs: Iterable[Mapping[str, Any]]) -> str:
    """A line a run in a workspace; the newest last."""
    rows = [(r["name"], r["status"], plural(r["node_count"], "node"), str(r["created_at"] or "")[:16]) for r in runs]
    return table_text(Table(("name", "status", "world", "started (UTC)"), rows))


def results_text(results: Sequence[Run | SubmitError]) -> str:
    """A line for each job of a list that was submitted."""
    return table_text(_results(results))


def results_html(results: Sequence[Run | SubmitError]) -> str:
    """The same for a notebook."""
    # A browser does not follow the file:// of a run here.
    pages = {run.name: run.url for run in results if not isinstance(run, SubmitError) and run.url.startswith("https:")}
    return table_html(_results(results), pages)


def _results(results: Sequence[Run | SubmitError]) -> Table:
    shown = list(enumerate(results))
    if len(shown) > _SHOWN:
        refused = [one for one in shown[_HEAD:-_FOOT] if isinstance(one[1], SubmitError)]
        shown = [*shown[:_HEAD], *refused[: _SHOWN - _HEAD - _FOOT], *shown[-_FOOT:]]
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        rows: list[Sequence[str] | None] = list(threads.map(lambda one: _result(*one), shown))
    gaps = [i for i in range(1, len(shown)) if shown[i][0] > shown[i - 1][0] + 1]
    for gap in reversed(gaps):
        rows.insert(gap, None)
    return Table(("job", "run", "status"), rows)


def _result(number: int, result: Run | SubmitError) -> tuple[str, str, str]:
    if isinstance(result, SubmitError):
        return str(number), "", f"not submitted: {result.problems[0]}"
    try:
        return str(number), result.name, str(result.status)
    except SubmitError as error:
        return str(number), result.name, f"unknown: {error.problems[0]}"


def _azure_ranks(run: Mapping[str, Any]) -> Table:
    return Table(("rank", "node", "last line", "log"), run["rows"])


def runs_text(states: Iterable[RunState]) -> str:
    """A line a run; the newest last."""
    rows = [
        (s.name, s.status, _world(s), time.strftime("%Y-%m-%d %H:%M", time.localtime(s.created_at)), duration_text(s))
        for s in states
    ]
    return table_text(Table(("name", "status", "world", "started", "took"), rows))


def _title(plan: LaunchPlan) -> str:
    return "  ".join(filter(None, _title_parts(plan)))


def _title_parts(plan: LaunchPlan) -> tuple[str | None, str, str | None]:
    return plan.job.display_name or plan.job.name, str(plan.world), plan.world.distribution


def title_html(name: str | None, *facts: str | None, studio: str | None = None) -> str:
    """The line above a table: what it is of, what is most worth knowing, and its page in the studio."""
    parts = [f"<b>{escape(name)}</b>"] if name else []
    parts += [escape(fact) for fact in facts if fact]
    parts += [f'<a href="{escape(studio)}">studio</a>'] if studio else []
    return f"<p>{' · '.join(parts)}</p>"


def error_html(error: str | None, hint: str | None = None) -> str:
    """What went wrong, and what to do about it."""
    told = (("error", error), ("hint", hint if error else None))
    lines = [f"<b>{word}</b> {escape(text)}" for word, text in told if text]
    return f"<p>{'<br>'.join(lines)}</p>" if lines else ""


def plan_facts(plan: LaunchPlan) -> list[tuple[str, str]]:
    """What a job is, in names and values."""
    job = plan.job
    facts = [("command", plan.command.strip())]
    facts.append(("code", _code(plan)))
    facts += [(f"input {name}", plan.place.value_of(job, "inputs", name)) for name in job.inputs]
    facts += [(f"output {name}", output.type) for name, output in job.outputs.items()]
    environment = job.environment
    if environment:
        build = f"built from {environment.build.path}" if not isinstance(environment, str) and environment.build else ""
        image = build if build else environment if isinstance(environment, str) else environment.image or ""
        facts.append(("environment", image))
    if job.compute or job.instance_type:
        facts.append(("compute", job.compute or f"serverless, {job.instance_type}"))
    return facts


def _code(plan: LaunchPlan) -> str:
    if plan.code.root is None:
        return plan.job.code or "none: it starts in an empty folder"
    left_out = f", {len(plan.code.excluded):,} left out" if plan.code.excluded else ""
    return f"{plan.code.root}: {plural(len(plan.code.files), 'file')}, {_size(plan.code.bytes)}{left_out}"


def _processes(plan: LaunchPlan) -> Table:
    rows = [c and (str(c.rank), str(c.node_rank), str(c.local_rank), c.role, c.log) for c in _abbreviated(plan)]
    return Table(("rank", "node", "local", "role", "log"), rows)


def _abbreviated(plan: LaunchPlan) -> list[ProcessContext | None]:
    processes = plan.processes
    if len(processes) <= _SHOWN:
        return list(processes)
    return [*processes[:_HEAD], None, *processes[-_FOOT:]]


def _env(plan: LaunchPlan) -> list[tuple[str, str]]:
    """What the run sets in every process; `0 ... 7` where that differs from the first process to the last."""
    first, last = plan.processes[0].env, plan.processes[-1].env
    differing = [(name, f"{value} ... {last[name]}") for name, value in first.items() if last.get(name, value) != value]
    return [*differing, *((name, value) for name, value in first.items() if last.get(name) == value)]


def _run_processes(state: RunState) -> Table:
    # A world of one role needs no column for it.
    roles = len({p.role for p in state.processes}) > 1
    rows: list[Sequence[str] | None] = [
        (str(p.rank), str(p.node_rank), *[p.role] * roles, _ending(p, state.is_final()), p.log) for p in state.processes
    ]
    if len(rows) > _SHOWN:
        failed = [] if state.failed_rank is None else [rows[state.failed_rank]]
        rows = [*rows[:_HEAD], None, *failed, None, *rows[-_FOOT:]]
    return Table(("rank", "node", *["role"] * roles, "ended", "log"), rows)


def _attempts(state: RunState) -> list[tuple[str, str]]:
    """What became of the attempts before; the processes of the last one are shown."""
    earlier = [(f"attempt {number}", f"{a.status}: {a.error}") for number, a in enumerate(state.earlier, 1)]
    return [*earlier, (f"attempt {state.retry + 1}", "shown above")]


def _ending(process: ProcessState, run_is_over: bool) -> str:
    if process.exit_code is None and process.signal is None:
        return "never started" if run_is_over else "not yet"
    how = f"exit code {process.exit_code}" if process.signal is None else f"signal {process.signal}"
    return f"stopped ({how})" if process.stopped else how


def _world(state: RunState) -> str:
    if state.kind:
        return plural(len(state.members), "trial" if state.kind == "sweep" else "step")
    return str(World(**state.world)) if state.world else ""


def duration_text(state: RunState) -> str:
    """How long a run has taken so far."""
    if state.started_at is None:
        return ""
    seconds = (state.ended_at or time.time()) - state.started_at
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def pairs_text(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values in two columns; what has no value is left out."""
    pairs = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in pairs), default=0)
    indent = "\n" + " " * (width + 2)
    return "\n".join(f"{name:<{width}}  {value.replace(chr(10), indent)}" for name, value in pairs)


def table_text(table: Table) -> str:
    """A table for a terminal; columns of numbers stand to the right."""
    rows = [table.headings, *(row or ["..."] for row in table.rows)]
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(len(table.headings))]
    numbers = _are_numbers(table)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numbers, strict=False)
        ).rstrip()
        for row in rows
    )


def table_html(table: Table, links: Mapping[str, str] | None = None) -> str:
    """The same for a notebook; a cell that is in `links` leads there."""
    links = links or {}
    sides = ["right" if number else "left" for number in _are_numbers(table)]

    def row_html(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(cell_html(tag, *cell) for cell in zip(sides, cells, strict=False))}</tr>"

    def cell_html(tag: str, side: str, cell: str) -> str:
        text = f'<a href="{escape(links[cell])}">{escape(cell)}</a>' if cell in links else escape(cell)
        wrap = ";white-space:nowrap" if len(cell) <= _UNBROKEN else ""
        return f'<{tag} style="text-align:{side};vertical-align:top{wrap}">{text}</{tag}>'

    head = f"<thead>{row_html('th', table.headings)}</thead>" if table.headings else ""
    gap = f'<tr><td colspan="{len(table.headings)}" style="text-align:left">…</td></tr>'
    body = "".join(row_html("td", row) if row else gap for row in table.rows)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _are_numbers(table: Table) -> list[bool]:
    """Of each column, whether it holds numbers alone: they stand to the right."""
    rows = [row for row in table.rows if row]
    width = len(table.headings) or max((len(row) for row in rows), default=0)
    return [bool(rows) and all(_NUMBER.fullmatch(row[i]) for row in rows) for i in range(width)]


def plural(count: int, word: str) -> str:
    """`2 nodes`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:,.1f} MB"
