"""The notebooks of the samples: each is executed anew, and shows what is kept in its file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import notebooks
import pytest
from emulated import SDK_WARNINGS
from needs import needs
from submitting import job, workspace_of

from azml_dist import AzureML, Job, JobError, Local, Run, SubmitError, submit
from azml_dist.emulator import Emulator
from azml_dist.local.pages import run_page
from azml_dist.local.state import RunState
from azml_dist.show import Card, Row, page_html, page_text

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

each_notebook = pytest.mark.parametrize("name", notebooks.NAMES)

VOLATILE = (
    (notebooks.RUN_NAME, "NAME"),
    (re.compile(r"(?<![\w.])\d+\.\d+(?:e-\d+)?\b"), "NUMBER"),
    (re.compile(r"\d+ files?, [\d.]+ \w+"), "SIZE"),
    (re.compile(r"stopped \((signal|exit code) \d+\)|never started"), "STOPPED"),
    # A short cell is not wrapped.
    (re.compile(r"(?:;white-space:nowrap)?\">cpu \d+(?: to \d+)? % of a core, memory up to [\d.]+ \w+"), '">USED'),
    (re.compile(r"<Figure size \S+ with"), "<Figure with"),
    (re.compile(r">best<"), "><"),
    (re.compile(r">\d+ (?:s|min)<"), ">AGE<"),
)
"""What differs from one run to the next."""


def kept(name: str) -> Any:
    return json.loads((notebooks.FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def shown(notebook: Any) -> list[tuple[str, list[Any]]]:
    """Each cell with what it shows: its lines in any order, as ranks do not wait for one another."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [(joined(cell["source"]), [stable(output) for output in cell["outputs"]]) for cell in cells]


def stable(output: Any) -> Any:
    data = output.get("data", {})
    text = joined(output.get("text") or output.get("traceback") or data.get("text/html") or data.get("text/plain", ""))
    if "\nhint: `azml-dist logs" in text:  # what a rank wrote last may not have arrived
        text = text.partition("\nhint: `azml-dist logs")[0]
    for volatile, word in VOLATILE:
        text = volatile.sub(word, text)
    return sorted(data), sorted(line.rstrip() for line in text.replace("<t", "\n<t").splitlines())


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


@needs("nbconvert", "ipykernel", "matplotlib", "sklearn", "torch", "mlflow")
@each_notebook
def test_a_notebook_shows_what_a_run_of_it_shows(
    name: str, emulator: Emulator, azure_sdk: None, tmp_path: Path
) -> None:
    fresh = notebooks.executed(name, emulator, tmp_path)

    for (source, outputs), (_, wanted) in zip(shown(fresh), shown(kept(name)), strict=True):
        assert outputs == wanted, f"{source}\n\n`make notebooks` writes what is shown anew"


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from texts(one) if key != "image/png" else ()
    elif isinstance(value, list):
        yield from texts("".join(value)) if all(isinstance(one, str) for one in value) else ()
        for one in value:
            yield from texts(one)


@each_notebook
def test_a_notebook_tells_nothing_of_the_machine_that_ran_it(name: str) -> None:
    allowed = ("/home/you/", "/mnt/azureml/", "/subscriptions/00000000-", "/user_logs/")
    told = "\n".join(texts(kept(name)))

    paths = re.findall(r"(?<![\w.:/<>~-])/(?!>)[\w.-]+/[\w./-]+", told)

    assert [path for path in paths if not path.startswith(allowed)] == []
    assert "emulated-" not in told
    assert re.findall(r"https://(?!ml\.azure\.com/)\S+", told) == []
    assert re.findall(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", told.replace("0" * 8, "")) == []


@each_notebook
def test_every_cell_of_a_notebook_has_been_run_in_order(name: str) -> None:
    counts = [cell["execution_count"] for cell in kept(name)["cells"] if cell["cell_type"] == "code"]

    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_links_of_a_notebook_lead_somewhere(name: str) -> None:
    text = "\n".join(joined(cell["source"]) for cell in kept(name)["cells"] if cell["cell_type"] == "markdown")

    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (notebooks.FOLDER / link).is_file(), link


def test_every_notebook_is_in_the_table_of_samples() -> None:
    table = (notebooks.FOLDER.parent / "README.md").read_text(encoding="utf-8")

    assert [name for name in notebooks.NAMES if f"(notebooks/{name}.ipynb)" not in table] == []


# What the package shows in a notebook


def test_an_error_in_a_cell_is_its_message_and_its_hint() -> None:
    with pytest.raises(JobError) as raised:
        Job(command="echo ${{inputs.epoch}}", inputs={"epochs": 1})

    assert "\n".join(raised.value._render_traceback_()) == f"JobError: {raised.value}"
    assert "hint: did you mean `epochs`?" in str(raised.value)


def test_an_error_in_a_function_of_ones_own_shows_the_way_to_it() -> None:
    def variant() -> Job:
        return Job(command="echo ${{inputs.epoch}}")

    with pytest.raises(JobError) as raised:
        variant()

    *way, message = raised.value._render_traceback_()
    assert [re.sub(r"\d+", "N", line) for line in way] == [
        f"  line N, in {test_an_error_in_a_function_of_ones_own_shows_the_way_to_it.__name__}: variant()",
        '  line N, in variant: return Job(command="echo ${{inputs.epoch}}")',
    ]
    assert message.startswith("JobError: ")


def test_a_list_of_jobs_gives_a_table_of_runs(emulator: Emulator, azure_sdk: None) -> None:
    """Of a long one the first, and those that were refused."""
    emulator.assets.add_environment("torch")
    jobs = [job(compute="nowhere" if i == 12 else "gpu-cluster") for i in range(20)]

    results = submit(jobs, on=AzureML(workspace_of(emulator)))

    lines = str(results).splitlines()
    assert [line.split()[0] for line in lines] == ["job", *map(str, range(8)), "12", "..."]
    assert lines[1].split() == ["0", name_of(results[0]), "NotStarted"]
    assert "not submitted: " in lines[9]
    html = results._repr_html_()
    assert f'<a href="{escape(url_of(results[0]))}">{name_of(results[0])}</a>' in html
    assert html.count("<tr>") == len(lines)


def name_of(result: Run | SubmitError) -> str:
    assert not isinstance(result, SubmitError)
    return result.name


def url_of(result: Run | SubmitError) -> str:
    assert not isinstance(result, SubmitError)
    return result.url


def test_runs_that_are_here_have_no_page_to_link_to() -> None:
    runs = submit([Job(command="true")], on=Local(launcher="direct"))

    assert "<a" not in runs._repr_html_()
    assert name_of(runs[0]) in runs._repr_html_()
    for run in runs:
        assert not isinstance(run, SubmitError)
        run.wait(timeout=60)


def test_the_values_of_a_metric_are_read_from_the_service(emulator: Emulator, azure_sdk: None) -> None:
    emulator.assets.add_environment("torch")
    run = AzureML(workspace_of(emulator)).submit(job())
    for step, loss in enumerate((0.5, 0.25)):
        emulator.job(run.name).log_metric("loss", loss, step)

    assert run.metric_histories() == {"loss": [0.5, 0.25]}


def test_a_failed_run_shows_its_hint() -> None:
    """As the terminal does."""
    state = RunState("name", "folder", status="Failed", error="no <such> rank", hint="try <another>")

    assert "<b>error</b> no &lt;such&gt; rank<br><b>hint</b> try &lt;another&gt;" in page_html(run_page(state))


def test_the_error_of_a_hang_does_not_repeat_its_card() -> None:
    why = "rank 2 has not entered all_reduce #6 (rank 2 is at hang.py:7)"
    state = RunState("stuck", "runs/stuck", status="Failed", error=f"nothing moved for 8 s: {why}")

    for shown in (why, f"{why} (likely)"):
        text = page_text(run_page(state, Card("run stuck: Failed", [Row("why", shown)])))
        assert "error  nothing moved for 8 s\n" in text
