"""The page of a run, in a real browser: opened from a file, without a network, with hostile text in it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser, browser
from emulated import SDK_WARNINGS
from needs import needs
from running import LOG, call, pytorch, run_here
from submitting import job

from azml_dist import AzureML, Local, Pipeline, PyTorch, RunFailed, Sweep, submit
from azml_dist.emulator import Emulator
from azml_dist.local.merged import Writer
from azml_dist.local.run import LocalRun
from azml_dist.local.state import ProcessState, RunFolder, RunState
from azml_dist.page import html
from azml_dist.page.html import RunPage
from azml_dist.page.plots import curve, not_finite
from azml_dist.page.sheet import Sheet, Text
from azml_dist.page.text import read_lines, shares

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

TRAIN = r"""
import os, sys, time
rank = int(os.environ["RANK"])
for step in range(3):
    print("step", step, "loss", 1 / (step + 1), flush=True)
    time.sleep(0.05)
print("</script><script>window.taken = 1</script><img src=x onerror='window.taken = 1'> <!-- ${taken} ]]>")
print("\x1b[31mred\x1b[0m \x1b]0;title\x07 bell \x07 nul \0 left \u202eedoc thgir\u202c ok")
print("&lt;b&gt; is no markup", "x" * 100_000, "token=abcd1234efgh", os.environ["MY_API_KEY"], flush=True)
print(f"10%\r50%\r100% of rank {rank}", flush=True)
if rank == 2:
    time.sleep(0.3)
    raise KeyError("<b>labels</b>")
time.sleep(60)
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    """A run of four ranks that write whatever could harm a page, until rank 2 fails."""
    code = tmp_path_factory.mktemp("code")
    (code / "train.py").write_text(TRAIN)
    job = pytorch(
        "python train.py", nodes=2, processes=2, code=str(code), environment_variables={"MY_API_KEY": "very-secret-42"}
    )
    return run_here(job.with_(display_name="<i>odd</i>"), launcher="direct", root=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(failed: LocalRun) -> Path:
    return failed.page().save(failed.folder / "page.html")


def column(chromium: Browser, rows: str, cell: int) -> list[str]:
    """The text of a cell of each row."""
    found = chromium.value(f"[...document.querySelectorAll({json.dumps(rows)})].map(r => r.cells[{cell}].textContent)")
    return list(found)


def text_of(chromium: Browser, selector: str) -> str:
    return str(chromium.value(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))


@needs(CHROMIUM)
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_opens_from_a_file_and_asks_for_nothing_else(chromium: Browser, page: Path, dark: bool) -> None:
    chromium.open(page, dark=dark)

    assert chromium.complaints() == []
    assert chromium.requests() == [page.as_uri()]


@needs(CHROMIUM)
def test_the_text_of_a_run_is_text(chromium: Browser, page: Path) -> None:
    """No tag of a log becomes an element, no script of it runs, and what turns text around is shown."""
    chromium.open(page)
    lines = text_of(chromium, ".lines")

    assert chromium.value("window.taken ?? null") is None
    assert chromium.value("document.querySelectorAll('#page img, #page script, #page b').length") == 1  # of ours
    assert "</script><script>window.taken = 1</script><img src=x onerror='window.taken = 1'> <!-- ${taken} ]]>" in lines
    assert r"red  bell \x07 nul \x00 left \u202eedoc thgir\u202c ok" in lines
    assert "100% of rank 2" in lines
    assert "50%" not in lines
    assert "&lt;b&gt; is no markup" in lines
    assert "<b>labels</b>" in text_of(chromium, ".why")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.read_text(encoding="utf-8"))


@needs(CHROMIUM)
def test_secrets_and_endless_lines_are_not_in_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert "very-secret-42" not in text
    assert "abcd1234efgh" not in text
    assert "x" * 3000 not in text
    assert page.stat().st_size < 200_000


@needs(CHROMIUM)
def test_one_sees_who_was_first(chromium: Browser, page: Path) -> None:
    chromium.open(page)

    assert re.search(
        r"Rank 2 failed first, at \d+\.\d\d s\. The last of the others ended", chromium.value("document.body.innerText")
    )
    assert chromium.value("document.querySelectorAll('.ring').length") == 1
    assert chromium.value("document.querySelector('.cut + text').textContent") == "rank 2 failed"
    rows = chromium.value(
        "[...document.querySelectorAll('#timeline ~ details tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    assert [row[0] for row in rows] == ["rank 0", "rank 1", "rank 2", "rank 3"]
    assert [row[3] for row in rows] == ["2", "2", "2", "2"]
    assert [row[5] for row in rows] == ["stopped (signal 15)"] * 2 + ["exit code 1", "stopped (signal 15)"]


@needs(CHROMIUM)
def test_long_times_are_marked_in_whole_minutes_or_hours(chromium: Browser, page: Path) -> None:
    chromium.open(page)

    def marks(seconds: int) -> list[str]:
        base = (Path(html.__file__).parent / "browser" / "base.js").read_text()
        return list(chromium.value(f"(() => {{ {base}; return moments(0, {seconds}, 8).map(clock); }})()"))

    assert marks(130) == ["0 s", "30 s", "1 min", "1 min 30 s", "2 min"]
    assert marks(605) == ["0 s", "2 min", "4 min", "6 min", "8 min", "10 min"]
    assert marks(16 * 3600) == ["0 s", "2 h", "4 h", "6 h", "8 h", "10 h", "12 h", "14 h", "16 h"]


def test_search_finds_lines_of_all_ranks(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    chromium.value("Object.assign(document.querySelector('#logs ~ .bar input'), { value: '100% OF rank' }).oninput")
    chromium.value("document.querySelector('#logs ~ .bar input').dispatchEvent(new Event('input'))")
    chromium.await_("document.querySelectorAll('.lines .l').length === 4")

    assert (
        chromium.value("[...document.querySelectorAll('.lines mark')].map(m => m.textContent)") == ["100% of rank"] * 4
    )
    chromium.value("document.querySelectorAll('.lines .l')[3].click()")
    assert chromium.value("document.querySelector('#logs ~ .bar select').selectedOptions[0].textContent") == "rank 3"
    assert "100% of rank 3" in text_of(chromium, ".lines .l.bad")


@needs(CHROMIUM)
def test_the_evidence_leads_to_its_line(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    chromium.value("document.querySelector('.evidence button').click()")

    assert "KeyError" in text_of(chromium, ".lines .l.bad")


def test_the_script_makes_no_html() -> None:
    """What takes text for HTML or for code is not used at all."""
    script = html._script()

    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|srcdoc|fetch\(", script
    )


def test_the_command_says_where_the_page_is(failed: LocalRun, tmp_path: Path) -> None:
    done = call("page", failed.name, "--root", failed.folder.parent)
    beside = call("page", failed.name, "--root", ".", cwd=failed.folder.parent)
    other = call("page", failed.name, "--root", failed.folder.parent, "-o", tmp_path / "x.html", "--json")
    refused = call("page", failed.name, "--root", failed.folder.parent, "-o", tmp_path / "none" / "x.html")

    assert done.stdout == f"{failed.folder / 'page.html'}\n"
    assert (beside.stdout, beside.stderr) == (f"{failed.name}/page.html\n", "")
    assert json.loads(other.stdout) == {
        "name": failed.name,
        "file": str(tmp_path / "x.html"),
        "url": (tmp_path / "x.html").as_uri(),
    }
    assert (tmp_path / "x.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert refused.returncode == 2
    assert "error: cannot write" in refused.stderr
    assert "hint: choose another file" in refused.stderr


@needs(CHROMIUM)
def test_each_attempt_is_in_the_timeline_and_has_its_logs(chromium: Browser, tmp_path: Path) -> None:
    # Rank 1 fails once rank 0 has written; each attempt has a working directory of its own.
    job = pytorch("echo step 1; touch $RANK; until [ -e 0 ]; do sleep 0.01; done; exit $RANK", processes=2)
    run = run_here(job, launcher="direct", root=tmp_path / "runs", retries=1)
    chromium.open(run.page().save(tmp_path / "page.html"))

    assert chromium.complaints() == []
    logs = chromium.value("[...document.querySelectorAll('#logs ~ .bar option')].map(o => o.textContent)")
    assert logs[1:] == [f"rank {rank}, attempt {attempt}" for attempt in (1, 2) for rank in (0, 1)]
    assert "attempt 2" in chromium.value("document.querySelector('.fault + text').textContent")
    assert chromium.value("document.querySelectorAll('#timeline ~ .board rect.f-bad').length") == 2


RANKS = 512


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    """The folder of a run of 512 ranks with long logs, of which rank 300 failed first: as the supervisor writes it."""
    root = tmp_path_factory.mktemp("large")
    now = time.time()
    state = RunState("large", str(root / "large"), created_at=now, started_at=now, status="Failed", exit_code=1)
    logs = [f"user_logs/std_log_process_{rank}.txt" for rank in range(RANKS)]
    state.processes = [
        ProcessState(rank, rank // 8, rank % 8, log, exit_code=None, signal=15, stopped=True, pid=rank + 2)
        for rank, log in enumerate(logs)
    ]
    state.processes[300].exit_code, state.processes[300].signal, state.processes[300].stopped = 1, None, False
    state.failed_rank, state.error = 300, "rank 300 failed with exit code 1"
    state.world = {"distribution": "PyTorch", "node_count": 64, "process_count_per_node": 8, "world_size": RANKS}
    folder, lock = RunFolder.make(root, state)
    os.close(lock)
    writer = Writer(folder.path, logs)
    for step in range(40):
        for rank in range(RANKS):
            writer.write(rank, b"step %d loss 0.5 <b>&amp; the weights of layer %d of rank %d\n" % (step, step, rank))
    writer.write(300, b"Traceback (most recent call last):\n  File \"train.py\", line 3\nKeyError: 'x'\n")
    writer.close()
    state.ended_at = time.time()
    for process in state.processes:
        process.started_at, process.ended_at = now, state.ended_at
    folder.write(state)
    return LocalRun(folder)


@needs(CHROMIUM)
def test_512_ranks_are_open_in_two_seconds(chromium: Browser, large: LocalRun) -> None:
    """By the processor time of the page: how long that takes by the clock depends on what else this machine does."""
    page = large.page().save(large.folder / "page.html")
    chromium.call("Performance.enable")
    chromium.open(page)
    metrics = {one["name"]: one["value"] for one in chromium.call("Performance.getMetrics")["metrics"]}

    assert metrics["TaskDuration"] < 2
    assert page.stat().st_size < 2_000_000
    assert chromium.complaints() == []
    assert chromium.value("document.querySelectorAll('#plan ~ .scroll .hit').length") == RANKS
    assert chromium.value("document.querySelectorAll('#logs ~ .bar option').length") == RANKS + 1
    assert "KeyError: 'x'" in text_of(chromium, ".lines")
    assert "Rank 300 failed first" in text_of(chromium, "#timeline ~ p")
    assert chromium.value("document.querySelector('#timeline ~ .board').scrollTop") > 300  # rank 300 is in sight


@needs(CHROMIUM)
def test_a_run_of_an_older_version_has_a_page(chromium: Browser, failed: LocalRun, tmp_path: Path) -> None:
    """Without the times of lines and processes, it has no timeline, and says so."""
    old = tmp_path / failed.name
    shutil.copytree(failed.folder, old, symlinks=True)
    (old / "times.idx").unlink()
    state = json.loads((old / "run.json").read_text())
    for process in state["processes"]:
        del process["started_at"], process["ended_at"]
    (old / "run.json").write_text(json.dumps(state))

    page = LocalRun(RunFolder(old)).page().save(tmp_path / "old.html")
    chromium.open(page)

    assert chromium.complaints() == []
    assert "did not record times" in text_of(chromium, "#timeline ~ p")
    assert "KeyError" in text_of(chromium, ".lines")


def test_whatever_the_logs_are_the_page_is_smaller_than_2_mb() -> None:
    """Each of these letters takes six bytes in the page."""

    def fill(budget: int) -> Sheet:
        lines = ["<" * 1000] * (budget // 1000)
        return Sheet("large", "Failed", "bad", "", logs=[Text("rank 0", "log.txt", None, 1, "", lines)])

    text = RunPage("large", fill).html

    assert 500_000 < len(text.encode()) < 2_000_000


def test_of_a_long_log_the_beginning_and_the_end_are_there(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_bytes(b"".join(b"line %d\n" % number for number in range(1, 100_001)))

    with open(file, "rb") as opened:
        found = read_lines(opened, file.stat().st_size, 10_000)

    gap = found.lines.index(None)
    assert found.lines[:2] == ["line 1", "line 2"]
    assert found.lines[-1] == "line 100000"
    assert found.lines[gap + 1] == f"line {found.after}"
    assert 800 < len(found.lines) < 1200


def test_the_logs_that_matter_get_more_room() -> None:
    sizes = [10_000] * 100

    found = shares(sizes, frozenset({7}), 100_000)

    assert found[7] == 10_000
    assert sum(found) <= 100_000
    assert min(found) > 800


def test_thinning_a_curve_keeps_its_peaks_and_gaps() -> None:
    points = [(float(x), 0.0) for x in range(100_000)]
    points[50_001] = (50_001.0, 9.0)
    points[70_001] = (70_001.0, float("nan"))

    kept = curve("loss", points).points

    assert len(kept) <= 600
    assert (50_001.0, 9.0) in kept
    assert (70_001.0, None) in kept
    assert not_finite(points) == "NaN at step 70001"


def sweep_file(folder: Path) -> Path:
    (folder / "log.py").write_text("import sys\nif sys.argv[2] == '0.3':\n    {}['labels']\n" + LOG)
    file = folder / "sweep.yml"
    sweep = {
        "type": "sweep",
        "trial": {
            "command": "python log.py loss ${{search_space.lr}} 0.01",
            "code": ".",
            "environment": "azureml:env:1",
        },
        "search_space": {
            "lr": {"type": "choice", "values": [0.1, 0.2, 0.3]},
            "name": {"type": "choice", "values": ["<b>wide</b>"]},
        },
        "inputs": {"epochs": 3, "api_key": "hunter2-hunter2"},
        "sampling_algorithm": "grid",
        "objective": {"primary_metric": "loss", "goal": "minimize"},
        "limits": {"max_total_trials": 3},
    }
    file.write_text(json.dumps(sweep))
    return file


@needs(CHROMIUM)
def test_a_sweep_shows_its_trials(chromium: Browser, tmp_path: Path) -> None:
    run = submit(Sweep.load(sweep_file(tmp_path)), on=Local(root=tmp_path / "runs", launcher="direct"))
    with contextlib.suppress(RunFailed):
        run.wait(timeout=60)
    chromium.open(run.page().save(tmp_path / "sweep.html"))
    rows = column(chromium, "#trials ~ .board tbody tr", 1)

    assert chromium.complaints() == []
    assert rows == ["0.1", "0.2", "0.3"]
    assert chromium.value("document.querySelectorAll('.thread').length") == 3
    axis = "document.querySelector('#trials ~ * .axis').getBoundingClientRect()"
    word = "document.querySelector('#trials ~ * text.over').getBoundingClientRect()"
    assert chromium.value(f"{word}.right < {axis}.left && {word}.left > {axis}.left - 104")
    assert chromium.value("document.querySelectorAll('.thread.failed').length") == 1
    assert chromium.value("document.querySelectorAll('#timeline ~ .board svg text.bad').length") == 1
    assert "<b>wide</b>" in text_of(chromium, "#trials ~ .board")
    assert text_of(chromium, "#data ~ .pairs") == "epochs3api_key***"
    assert "Failed: rank 0: KeyError: 'labels' (log.py:3)" in text_of(chromium, "#trials ~ .board")
    chromium.value("document.querySelectorAll('#trials ~ .board th button')[1].click()")
    chromium.value("document.querySelectorAll('#trials ~ .board th button')[1].click()")
    rows = column(chromium, "#trials ~ .board tbody tr", 1)
    assert rows == ["0.3", "0.2", "0.1"]


def test_a_member_here_says_if_its_logs_were_not_read_for_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("azml_dist.local.page.group._MOST_VERDICTS", 0)
    run = submit(Sweep.load(sweep_file(tmp_path)), on=Local(root=tmp_path / "runs", launcher="direct"))
    with contextlib.suppress(RunFailed):
        run.wait(timeout=60)

    page = run.page().html

    assert "exit code 1 (its logs were not read)" in page
    assert "rank 0: KeyError" not in page


@needs(CHROMIUM)
def test_a_pipeline_shows_which_step_reads_which_output(chromium: Browser, tmp_path: Path) -> None:
    def step(command: str, **inputs: Any) -> dict[str, Any]:
        outputs = {"data": {"type": "uri_folder"}}
        return {"command": command, "environment": "azureml:env:1", "inputs": inputs, "outputs": outputs}

    prep, left = "${{parent.jobs.prep.outputs.data}}", "${{parent.jobs.left.outputs.data}}"
    jobs = {
        "prep": step("echo x > ${{outputs.data}}/x"),
        "left": step("cat ${{inputs.data}}/x", data=prep, words="${{parent.inputs.words}}", times=2),
        "right": step("cat ${{inputs.data}}/x; exit 3", data=prep),
        "both": step("ls ${{inputs.a}} ${{inputs.b}}", a=left, b="${{parent.jobs.right.outputs.data}}"),
    }
    (tmp_path / "pipeline.yml").write_text(json.dumps({"type": "pipeline", "inputs": {"words": "a"}, "jobs": jobs}))
    run = submit(Pipeline.load(tmp_path / "pipeline.yml"), on=Local(root=tmp_path / "runs", launcher="direct"))
    with contextlib.suppress(RunFailed):
        run.wait(timeout=60)
    chromium.open(run.page().save(tmp_path / "pipeline.html"))

    assert chromium.complaints() == []
    assert text_of(chromium, "#data ~ .pairs") == "wordsaleft.times2"
    edges = chromium.value("[...document.querySelectorAll('.edge title')].map(t => t.textContent)")
    assert edges == ["prep.data → left.data", "prep.data → right.data", "left.data → both.a", "right.data → both.b"]
    boxes = chromium.value("[...document.querySelectorAll('#steps ~ .scroll .hit')].map(b => b.ariaLabel)")
    assert boxes == ["prep: Completed", "left: Completed", "right: Failed", "both: NotStarted"]
    assert "sweep" not in text_of(chromium, "#page")
    labels = chromium.value("[...document.querySelectorAll('#logs ~ * option')].map(o => o.textContent)")
    assert "prep (empty)" in labels


@needs(CHROMIUM)
def test_a_run_on_azure_ml_has_a_page(chromium: Browser, emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = azure.submit(job(inputs={"epochs": 3}, node_count=2, distribution=PyTorch(process_count_per_node=2)))
    here = emulator.job(run.name)
    for rank in range(4):
        here.write_log(f"user_logs/std_log_process_{rank}.txt", f"rank {rank}\n</script><b>bold</b>\n")
    here.write_log("user_logs/std_log_process_3.txt", "Traceback (most recent call last):\nValueError: <i>no</i>\n")
    here.metrics["loss"] = [{"key": "loss", "value": 1 / (1 + n), "step": n, "timestamp": 1} for n in range(5)]
    here.fail(
        "Execution failed. User process 'python' exited with status code 1. Check user_logs/std_log_process_3.txt"
    )
    page = run.page().save(tmp_path / "azure.html")
    chromium.open(page)

    assert chromium.complaints() == []
    assert "ValueError: <i>no</i>" in text_of(chromium, ".why")
    assert chromium.value("document.querySelectorAll('.ring').length") == 1
    assert "</script><b>bold</b>" in text_of(chromium, ".lines")
    assert "does not record what each rank did when" in text_of(chromium, "#timeline ~ p")
    assert column(chromium, "#timeline ~ details tbody tr", 0)[0] in ("waiting", "running")
    assert chromium.value("document.querySelector('#environment ~ .pairs a').href").startswith("https://ml.azure.com/")
    assert chromium.value("document.querySelectorAll('.curve').length") == 1
    assert text_of(chromium, "#data ~ .pairs") == "epochs3"
    assert "sig=" not in page.read_text(encoding="utf-8")


@needs(CHROMIUM)
def test_in_a_notebook_the_page_is_in_a_frame_of_its_own(chromium: Browser, failed: LocalRun, tmp_path: Path) -> None:
    shown = failed.page()._repr_html_()
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><html data-ready=yes><body>{shown}</body></html>", encoding="utf-8")
    chromium.open(notebook)

    assert chromium.complaints() == []
    frames = chromium.call("Page.getFrameTree")["frameTree"]["childFrames"]
    assert [frame["frame"]["url"] for frame in frames] == ["about:srcdoc"]
    assert chromium.value("document.querySelector('iframe').contentDocument") is None  # it cannot reach the notebook
    assert len(shown) < 700_000
