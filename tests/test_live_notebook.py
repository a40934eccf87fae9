"""What a notebook shows while a run runs: one table that is renewed in place, in a real kernel."""

from __future__ import annotations

import re
from typing import Any

import pytest
from needs import imported, needs

START = """
from azml_dist import Job, Local, PyTorch, submit
script = "echo begun; printf '1%%\\\\r50%%'; while [ ! -e stop ]; do sleep 0.05; done; printf '\\\\nend\\\\n'"
job = Job(command=script, node_count=2, distribution=PyTorch())
run = submit(job, on=Local(launcher="direct"))
"""
STOP = """
import os, signal, threading, time
from pathlib import Path
def at_work(run):
    look = run.watching()
    while {line.text for line in look().lines} != {"50%"}:
        time.sleep(0.05)
def stop():
    at_work(run)
    while not Path("RENEWED").exists():
        time.sleep(0.05)
    [(node / "stop").touch() for node in (run.folder / "nodes").iterdir()]
threading.Thread(target=stop).start()
run.wait()
"""
INTERRUPTED = """
def interrupt():
    at_work(run)
    os.kill(os.getpid(), signal.SIGINT)
run = submit(job, on=Local(launcher="direct"))
threading.Thread(target=interrupt).start()
run.wait()
"""
HALF = r"\n *0 and 1 +50% +\d+ s\b"
ENDED = "print(run.status); run.cancel(); time.sleep(1)"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[Any]]:
    """The cells of a notebook after its execution, and every renewal of a table."""
    nbclient = imported("nbclient")
    nbformat = imported("nbformat")
    renewals: list[Any] = []
    renewed = tmp_path_factory.mktemp("notebook") / "renewed"

    class Client(nbclient.NotebookClient):  # type: ignore[misc, name-defined]
        def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
            if msg["msg_type"] == "update_display_data":
                renewals.append(msg["content"])
                if re.search(HALF, text_of(msg["content"]["data"])):
                    renewed.touch()
            return super().process_message(msg, cell, cell_index)

    cells = (START, STOP.replace("RENEWED", str(renewed)), "run", INTERRUPTED, ENDED)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(text) for text in cells]
    Client(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute()
    return notebook.cells, renewals


def text_of(data: Any) -> str:
    """What a page says, a row of its table on each line."""
    return re.sub(r"<[^>]*>", " ", data["text/html"].replace("<tr", "\n<tr"))


def texts(cell: Any) -> list[str]:
    return [text_of(output["data"]) for output in cell.outputs if output.output_type == "display_data"]


@needs("nbclient", "ipykernel")
def test_a_run_is_one_table_that_is_renewed_in_place(shown: tuple[list[Any], list[Any]]) -> None:
    (started, waited, named, *_), renewals = shown

    assert [output.output_type for cell in (started, waited, named) for output in cell.outputs] == ["display_data"] * 3
    for text in (*texts(started), *texts(waited), *texts(named)):
        assert re.match(r" *run-\w+ *· Completed · 2 nodes x 1 process = 2 · ", text)
    first = next(one["transient"]["display_id"] for one in renewals)
    own = [text_of(one["data"]) for one in renewals if one["transient"]["display_id"] == first]
    assert any(re.search(HALF, text) for text in own)
    assert "Completed" in own[-1]


@needs("nbclient", "ipykernel")
def test_the_stop_button_leaves_the_run_alone_and_says_so(shown: tuple[list[Any], list[Any]]) -> None:
    *_, interrupted, ended = shown[0]

    (error,) = [output for output in interrupted.outputs if output.output_type == "error"]
    assert error.traceback == ["the run continues; `run.cancel()` ends it"]
    assert "Running\n" in [output.get("text") for output in ended.outputs]
