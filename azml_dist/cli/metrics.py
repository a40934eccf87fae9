"""`metrics`: what runs logged, as a table, and as plots at a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from azml_dist.cli.base import DONE, example, json_option, root_option, run_names
from azml_dist.cli.last import last_run
from azml_dist.cli.output import coloured, say, tell, tell_json, tell_page, write
from azml_dist.errors import NotFound
from azml_dist.runs.metrics import Metrics, figure
from azml_dist.show import Page, Table, table_text
from azml_dist.words import nearest_or_all

if TYPE_CHECKING:
    from azml_dist.cli.plots import Curve
    from azml_dist.runs.run import Run
    from azml_dist.runs.system import System

_RANKS = 8
"""How many ranks are in a plot of what they used."""
_PLOTS = 6
"""How many metrics are plotted unless they are asked for by name."""


@click.command(epilog=example("azml-dist metrics quickstart-3f2a91 quickstart-77aa01 --metric loss"))
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=run_names)
@click.option("--metric", "wanted", multiple=True, metavar="METRIC", help="Show only this metric; may be repeated.")
@click.option("--system", is_flag=True, help="Show what each rank used: CPU, memory, GPU; on Azure ML, each node.")
@click.option("--plot/--no-plot", default=None, help="Plot the metrics; by default, only at a terminal.")
@root_option
@json_option
def metrics(
    names: tuple[str, ...],
    wanted: tuple[str, ...],
    system: bool,
    plot: bool | None,
    root: str | None,
    as_json: bool,
) -> int:
    """Show the metrics that runs logged with MLflow, several runs side by side; without NAME, those of the last run.

    For a sweep or a pipeline, this shows the trials or steps side by side.
    """
    draws = sys.stdout.isatty() if plot is None else plot
    if system:
        return _system(_runs(names, root), draws, as_json)
    found = [one for run in _runs(names, root) for one in _logged(run)]
    shown = {name: _only(logged, wanted) for name, logged in found}
    if wanted and not any(shown.values()):
        known = sorted({metric for _, logged in found for metric in logged})
        raise NotFound(f"no run here logged {', '.join(map(repr, wanted))}", hint=nearest_or_all(wanted[0], known))
    if as_json:
        tell_json({"runs": [{"name": name, "metrics": logged.to_dict()} for name, logged in shown.items()]})
        return DONE
    for name in [name for name, logged in shown.items() if not logged]:
        say(f"note: run {name} has logged no metrics{'' if wanted else ', for example with `mlflow.log_metric`'}")
    shown = {name: logged for name, logged in shown.items() if logged}
    if shown:
        _tell(shown)
    if shown and draws:
        _plot(shown, bool(wanted), asked=bool(plot))
    return DONE


COMMANDS = (metrics,)


def _runs(names: Sequence[str], root: str | None) -> list[Run]:
    """The runs with these names, or else the one that was started last."""
    from azml_dist.cli.runs import find_run

    return [find_run(name, root) for name in names] or [last_run(root)]


def _system(runs: Sequence[Run], draws: bool, as_json: bool) -> int:
    found = {run.name: run.system() for run in runs}
    if as_json:
        shown = [
            {"name": name, "system": one and one.to_dict() | {"used": [used.curves() for used in one.used]}}
            for name, one in found.items()
        ]
        tell_json({"runs": shown})
        return DONE
    for name, one in found.items():
        if one is None:
            say(f"note: it is not known what run {name} used: it was too short, or nothing recorded it")
            continue
        tell_page(one._page()._replace(name=name))
        if draws:
            _draw(_curves(one), by_name=True)
    return DONE


def _curves(system: System) -> dict[str, dict[str, Curve]]:
    """The figures of all ranks over the seconds of the run."""
    from azml_dist.runs.system import FIGURES, HEADINGS

    begin = min((points[0][0] for one in system.used for name in FIGURES if (points := getattr(one, name))), default=0)
    units = {"cpu": f"% of a {system.cpu_of}", "memory": "MB", "gpu": "% busy", "gpu_memory": "%"}
    found: dict[str, dict[str, Curve]] = {}
    for name in FIGURES:
        divisor = 1e6 if name == "memory" else 1
        for one in system.used[:_RANKS]:
            if points := getattr(one, name):
                curve = [at - begin for at, _ in points], [value / divisor for _, value in points]
                found.setdefault(f"{HEADINGS[name]} ({units[name]})", {})[one.who] = curve
    return found


def _logged(run: Run) -> list[tuple[str, Metrics]]:
    """A run and its metrics; the members of a sweep or pipeline, each by its label."""
    ask = getattr(run, "member_metrics", None)
    members: dict[str, Metrics] = ask() if ask else {}
    return [*members.items()] or [(run.name, run.metrics())]


def _only(logged: Metrics, wanted: Sequence[str]) -> Metrics:
    return Metrics({k: v for k, v in logged.items() if k in wanted}, logged.history, logged.run) if wanted else logged


def _tell(shown: dict[str, Metrics]) -> None:
    if len(shown) == 1:
        tell_page(Page([], next(iter(shown.values()))._page().blocks, next(iter(shown))))
        return
    keys = list(dict.fromkeys(metric for logged in shown.values() for metric in logged))
    cells = {(run, key): figure(logged[key]) if key in logged else "" for run, logged in shown.items() for key in keys}
    side_by_side = Table(("metric", *shown), [(key, *(cells[run, key] for run in shown)) for key in keys])
    beneath = Table(("run", *keys), [(run, *(cells[run, key] for key in keys)) for run in shown])
    text = table_text(side_by_side)
    width = shutil.get_terminal_size().columns
    tell(text if max(map(len, text.splitlines())) <= width else table_text(beneath))


def _plot(shown: dict[str, Metrics], by_name: bool, *, asked: bool) -> None:
    keys = list(dict.fromkeys(metric for logged in shown.values() for metric in logged))
    curves = {key: {run: logged.curve(key) for run, logged in shown.items() if key in logged} for key in keys}
    _draw({key: of for key, of in curves.items() if any(len(y) > 1 for _, y in of.values())}, by_name, asked=asked)


def _draw(curves: dict[str, dict[str, Curve]], by_name: bool, *, asked: bool = False) -> None:
    from azml_dist.cli.plots import chart, plotext_missing

    if missing := plotext_missing():
        say(f"{'error' if asked else 'note'}: {missing}")
        return
    kept = list(curves) if by_name else list(curves)[:_PLOTS]
    for title in kept:
        columns = shutil.get_terminal_size().columns
        write(f"\n{chart(title, curves[title], columns, colour=coloured(sys.stdout))}\n")
    if len(curves) > len(kept):
        say(f"note: {len(curves) - len(kept)} more are not plotted: choose with `--metric NAME`")
