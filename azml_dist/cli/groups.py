"""Sweeps and pipelines in the foreground: their lines, what starts and what ends, and the table at the end."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from azml_dist.cli.base import DONE, FAILED, INTERRUPTED
from azml_dist.cli.foreground import Interrupts
from azml_dist.cli.output import colours, print_chunks, say
from azml_dist.errors import RunFailed

if TYPE_CHECKING:
    from azml_dist.local.group import GroupRun


def follow_group(started: GroupRun, interrupts: Interrupts, job: str, as_json: bool) -> int:
    """Follow a run to its end, and report; the exit code."""
    interrupts.run = started
    members = started.state().members
    kind = "trial" if started.state().kind == "sweep" else "step"
    say(f"run {started.name}: {len(members)} {kind}{'s' * (len(members) != 1)}")
    try:
        _follow(started, as_json)
    except BrokenPipeError:
        started.cancel()
        raise
    with suppress(RunFailed):
        started.wait()
    state = started.state()
    click.echo(json.dumps(state.to_dict(), indent=1) if as_json else f"\n{started}")
    if as_json and state.error:
        say(f"error: {state.error}")
    for name, path in started.outputs.items():
        say(f"  output   {name}: {path}")
    shown = state.details.get("best") or next((m.name for m in state.members if m.status == "Failed"), None)
    if shown or members:
        say(f"  again    azml-dist logs {shown or members[0].name}")
    if state.status == "Completed" and kind == "trial":
        say(f"  next     azml-dist submit {job}")
    return INTERRUPTED if interrupts.count else DONE if state.status == "Completed" else FAILED


def _follow(run: GroupRun, as_json: bool) -> None:
    from azml_dist.tables import member_text

    state = run.state()
    for event in run.events(follow=True, colour=colours(as_json)):
        if event.lines:
            print_chunks(iter([event.lines]), as_json)
        else:
            say(member_text(state, event.member))
