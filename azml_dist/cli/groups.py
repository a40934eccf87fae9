"""Sweeps and pipelines in the foreground: log lines, starts and ends, and a table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from azml_dist.cli.foreground import Interrupts, exit_code, watched
from azml_dist.cli.output import colours, print_chunks, say, say_card, tell_json, tell_page, write
from azml_dist.status import RunStatus
from azml_dist.words import plural

if TYPE_CHECKING:
    from azml_dist.cli.live import Live
    from azml_dist.local.groups.run import GroupRun
    from azml_dist.show import Row


def follow_group(
    started: GroupRun, interrupts: Interrupts, after: Sequence[Row], as_json: bool, foot: Live | None = None
) -> int:
    """Follow a run until it ends, report it and, if it completed, what comes `after` it.

    Returns the exit code.
    """
    interrupts.run = started
    members = started.state().members
    kind = "trial" if started.state().kind == "sweep" else "step"
    say(f"run {started.name}: {plural(len(members), kind)}")
    if foot:
        foot.show(started.watching())
    with watched(started):
        _follow(started, as_json)
    if foot:
        foot.close()
    state = started.state()
    if as_json:
        tell_json(started.describe())
    else:
        write("\n")
        tell_page(started._page())
    if as_json and state.error:
        say(f"error: {state.error}")
    if state.status == RunStatus.FAILED and started.failed_member():  # a page ends with the card already
        if as_json:
            say_card(started.ending())
        return exit_code(interrupts, state.status)
    for name, path in started.outputs.items():
        say(f"  output   {name}: {path}")
    shown = state.details.get("best") or next((m.name for m in state.members if m.status == RunStatus.FAILED), None)
    if shown or members:
        say(f"  again    azml-dist logs {shown or members[0].name}")
    if state.status == RunStatus.COMPLETED:
        for row in after:
            say(f"  {row.name:<9}{row.text}")
    return exit_code(interrupts, state.status)


def _follow(run: GroupRun, as_json: bool) -> None:
    from azml_dist.local.pages import member_text

    state = run.state()
    for event in run.events(follow=True, colour=colours(as_json)):
        if event.lines:
            print_chunks(iter([event.lines]), as_json)
        else:
            say(member_text(state, event.member))
