"""What runs logged: one reader for local runs and Azure ML, shown as tables, plots and JSON."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from running import LOG, call, pytorch, run_here
from submitting import job
from terminals import at_terminal

import azml_dist
from azml_dist import AzureML, DistError, NotFound
from azml_dist.cli.plots import chart, plotext_missing
from azml_dist.cli.program import called
from azml_dist.emulator.service import Emulator
from azml_dist.local.metrics import metrics_of
from azml_dist.page.plots import by_step
from azml_dist.runs.metrics import Metrics, Point, figure, trend

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


class Done(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str


class Invoke(Protocol):
    def __call__(self, *args: str | Path, columns: int = 80) -> Done: ...


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """A command, in this process."""

    def call_it(*args: str | Path, columns: int = 80) -> Done:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["azml-dist", *map(str, args)])
        code = called()
        return Done(code, *capsys.readouterr())

    return call_it


def a_run(root: Path, name: str, **logged: str) -> Path:
    """The folder of a run that ended, with metrics as a local run keeps them."""
    metrics = root / name / "mlruns" / "0" / name / "metrics"
    metrics.mkdir(parents=True)
    for metric, lines in logged.items():
        (metrics / metric).write_text(lines)
    state = {"name": name, "folder": "", "processes": [], "status": "Completed", "created_at": 1.0, "exit_code": 0}
    (root / name / "run.json").write_text(json.dumps(state))
    return root / name


def lines(*values: float) -> str:
    return "".join(f"{1700000000000 + step} {value} {step}\n" for step, value in enumerate(values))


def test_metrics_are_their_last_values_and_on_request_all_of_them(tmp_path: Path) -> None:
    found = metrics_of(a_run(tmp_path, "a", loss=lines(2.0, 0.5), accuracy=lines(0.25)))

    assert found == {"accuracy": 0.25, "loss": 0.5}
    assert json.dumps(found) == '{"accuracy": 0.25, "loss": 0.5}'
    assert found.history("loss") == [Point(0, 2.0, 1700000000.0), Point(1, 0.5, 1700000000.001)]
    with pytest.raises(KeyError):
        found.history("lost")


def test_a_damaged_file_of_a_metric_costs_only_its_bad_lines(tmp_path: Path) -> None:
    text = f"1 1.0 {9**300}\n1 1.0 0\n\x00\xff nonsense\n\n1 2.0\n1 x 3\n1e999 3 1\n5 7.0 9\n1700 8.0 1"
    found = metrics_of(a_run(tmp_path, "a", loss=text, empty="", half="1700 8."))

    assert found == {"loss": 7.0}
    assert [point.value for point in found.history("loss")] == [1.0, 2.0, 7.0]


def test_a_metric_that_is_a_link_out_of_the_run_is_not_read(tmp_path: Path) -> None:
    folder = a_run(tmp_path, "a", loss=lines(1.0))
    (tmp_path / "secret").write_text("1 42 0\n")
    (folder / "mlruns/0/a/metrics/stolen").symlink_to(tmp_path / "secret")

    assert metrics_of(folder) == {"loss": 1.0}


def test_the_last_value_of_a_long_metric_is_found_without_reading_it_all(tmp_path: Path) -> None:
    found = metrics_of(a_run(tmp_path, "a", loss=lines(*map(float, range(5000)))))

    assert found == {"loss": 4999.0}
    assert len(found.history("loss")) == 5000


def test_a_curve_is_ordered_by_step_or_numbered_and_leaves_out_what_is_not_finite() -> None:
    points = {
        "steps": [Point(2, 1.0, 0), Point(1, 2.0, 0), Point(3, math.nan, 0)],
        "none": [Point(0, 5.0, 0), Point(0, 4.0, 0)],
    }
    found = Metrics({"steps": 1.0, "none": 4.0}, points.__getitem__)

    assert found.curve("steps") == ([1.0, 2.0], [2.0, 1.0])
    assert found.curve("none") == ([0.0, 1.0], [5.0, 4.0])


def test_a_single_value_is_plotted_at_its_step() -> None:
    point = Point(8, 0.98, 0)

    assert Metrics({"accuracy": 0.98}, lambda _: [point]).curve("accuracy") == ([8.0], [0.98])
    assert by_step([point]) == [(8.0, 0.98)]


def test_figures_are_short_and_trends_have_at_most_16_steps() -> None:
    assert [figure(value) for value in (3.0, 0.03036, 1e9, 123456.0, math.nan)] == [
        *("3", "0.03036", "1e+09", "123456", "nan"),
    ]
    assert trend([1, 2, 3]) == "▁▅█"
    assert trend([5, 5, 5]) == "▁▁▁"
    assert trend([-1e308, 1e308, math.inf]) == "▁█"
    assert len(trend(range(1000))) == 16
    assert trend([1.0]) == trend([math.nan, 1.0]) == ""


def test_runs_stand_side_by_side_and_beneath_each_other_where_the_terminal_is_narrow(
    tmp_path: Path, invoke: Invoke
) -> None:
    for name, last in (("one-a1b2c3", 0.5), ("two-d4e5f6", 0.25)):
        a_run(tmp_path, name, loss=lines(2.0, last), accuracy=lines(1 - last))
    names = ["one-a1b2c3", "two-d4e5f6"]

    wide = invoke("metrics", *names, "--root", tmp_path)
    narrow = invoke("metrics", *names, "--root", tmp_path, columns=30)

    assert wide.stdout.split() == [*("metric", *names), *("accuracy", "0.5", "0.75"), *("loss", "0.5", "0.25")]
    assert narrow.stdout.split() == ["run", "accuracy", "loss", names[0], "0.5", "0.5", names[1], "0.75", "0.25"]


def test_json_has_every_value_and_null_for_what_json_cannot_say(tmp_path: Path, invoke: Invoke) -> None:
    a_run(tmp_path, "one", loss=lines(2.0, math.nan))

    found = json.loads(invoke("metrics", "one", "--root", tmp_path, "--json").stdout)

    assert found == {
        "runs": [
            {
                "name": "one",
                "metrics": {
                    "loss": {
                        "last": None,
                        "steps": [0, 1],
                        "values": [2.0, None],
                        "times": [1700000000.0, 1700000000.001],
                    }
                },
            }
        ]
    }


def test_a_metric_that_no_run_has_is_an_error_with_the_nearest_name(tmp_path: Path, invoke: Invoke) -> None:
    a_run(tmp_path, "one", loss=lines(2.0))

    found = invoke("metrics", "one", "--metric", "los", "--root", tmp_path)

    assert found.exit_code == 2
    assert "no run here logged 'los'" in found.stderr
    assert "did you mean `loss`?" in found.stderr


def test_a_run_without_metrics_says_so(tmp_path: Path, invoke: Invoke) -> None:
    a_run(tmp_path, "one")

    found = invoke("metrics", "--root", tmp_path)

    assert found.exit_code == 0
    assert "run one has logged no metrics" in found.stderr
    assert not found.stdout


@needs("plotext")
def test_plots_fit_the_terminal_and_tell_runs_apart_without_colours() -> None:
    curves = {"one": ([0.0, 1.0], [2.0, 1.0]), "two": ([0.0, 1.0], [1.0, 0.5]), "none": ([], [])}

    plain = chart("loss", curves, 60, colour=False)
    coloured = chart("\x1b[31mloss", curves, 20, colour=True)

    assert max(map(len, plain.splitlines())) <= 60
    assert "\x1b" not in plain
    assert "one" in plain
    assert "** two" in plain
    assert "none" not in plain
    assert "\x1b[31m" not in coloured
    assert "\\x1b[31mloss" in coloured


@needs("plotext")
def test_no_values_keep_the_others_from_being_plotted() -> None:
    odd = {"huge": ([0.0, 1.0], [1e308, -1e308]), "one": ([3.0], [0.0]), "flat": ([0.0, 1.0], [1e-320, 1e-320])}

    for columns in (1, 20, 300):
        text = chart("loss", odd, columns, colour=False)
        assert "loss" in text
        assert max(map(len, text.splitlines())) <= 100


def test_without_plotext_the_table_stays_and_a_note_says_what_to_install(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotext", None)  # as Python does for a module that cannot be imported
    a_run(tmp_path, "one", loss=lines(2.0, 1.0))

    found = invoke("metrics", "one", "--plot", "--root", tmp_path)

    assert plotext_missing()
    assert "pip install 'plotext<6'" in found.stderr
    assert "loss" in found.stdout


@needs("plotext")
def test_a_terminal_gets_a_table_and_a_plot(tmp_path: Path) -> None:
    a_run(tmp_path, "one", loss=lines(*(1 / (step + 1) for step in range(30))))

    with at_terminal("metrics", "one", "--root", tmp_path) as terminal:
        assert terminal.end() == 0

    assert "trend" in terminal.raw.decode()
    assert "┌───" in terminal.raw.decode()


@pytest.mark.slow
def test_a_script_logs_and_the_command_shows_it(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "log.py").write_text(LOG)
    run = run_here(
        pytorch(["python", "log.py", "loss", "2", "1", "0.5"], code=tmp_path / "src"),
        launcher="direct",
        root=tmp_path / "runs",
    )

    done = call("metrics", run.name, "--root", tmp_path / "runs")

    assert run.metrics() == {"loss": 0.5}
    assert done.stdout.split()[:2] == [run.name, "metric"]
    assert done.stdout.split()[-7:] == ["loss", "0.5", "0.5", "2", "3", "2", "█▃▁"]


def test_the_same_table_shows_a_run_on_azure_ml(emulator: Emulator, azure: AzureML) -> None:
    run = azure.submit(job())
    for step, value in enumerate((2.0, 0.5)):
        emulator.job(run.name).log_metric("loss", value, step)

    found = run.metrics()

    assert [(point.step, point.value) for point in found.history("loss")] == [(0, 2.0), (1, 0.5)]
    assert found.history("loss")[0].time == 1700000000.0
    assert str(found).split()[1:8] == ["metric", "last", "lowest", "highest", "values", "step", "trend"]
    assert run.metric_histories() == {"loss": [2.0, 0.5]}


# Pictures in notebooks


def test_without_matplotlib_a_plot_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    a_run(tmp_path, "one", loss=lines(2.0, 1.0))

    with pytest.raises(DistError, match="plots need matplotlib"):
        azml_dist.run("one", root=tmp_path).plot()


@needs("matplotlib", "IPython")
def test_a_plot_has_a_line_for_each_run_and_a_picture_for_each_metric(tmp_path: Path) -> None:
    from IPython.core.formatters import DisplayFormatter

    runs = [
        azml_dist.run(a_run(tmp_path, name, **{"loss": lines(2.0, 1.0), "a$b_$": lines(1.0)}).name, root=tmp_path)
        for name in ("_one", "two")
    ]

    drawn = azml_dist.plot(*runs)

    titles = {axes.get_title(): len(axes.get_lines()) for axes in drawn.figure.get_axes()}
    assert titles == {r"a\$b_\$": 2, "loss": 2}
    assert [text.get_text().strip("\u200b") for text in drawn.figure.get_axes()[1].get_legend().get_texts()] == [
        *("_one", "two"),
    ]
    formatter: Any = DisplayFormatter()  # what a notebook does at the end of a cell
    shown, _ = formatter.format(drawn)
    assert shown["image/png"].startswith(b"\x89PNG")
    assert drawn.save(tmp_path / "loss.svg").read_text().startswith("<?xml")
    with pytest.raises(NotFound, match="logged no such metrics"):
        azml_dist.plot(*runs, metrics=["lost"])
