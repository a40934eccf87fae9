"""Why a run on this machine failed: with what the run knows of its job, and without what nobody may see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from running import call, pytorch, run_here
from submitting import code_in

from azml_dist import Environment
from azml_dist.local.run import LocalRun
from azml_dist.verdict.kept import NAME
from azml_dist.verdict.verdict import Verdict


def failed(folder: Path, script: str, files: Mapping[str, str] | None = None, **fields: Any) -> LocalRun:
    """A run of a script that fails, with these files beside it."""
    code = code_in(folder / "src", {"train.py": script, **(files or {})})
    command = fields.pop("command", "python train.py")
    job = pytorch(command, code=str(code), outputs={}, **fields)
    return run_here(job, root=folder / "runs", launcher="direct")


def verdict(run: LocalRun) -> Verdict:
    found = run.verdict()
    assert found
    return found


# --- values at hand


@pytest.mark.parametrize(
    ("script", "hint"),
    [
        ("open('data/train.csv')", "`data/train.csv` is in your code folder, and left out by `.amlignore` line 2"),
        ("import os; open(os.path.abspath('./data/train.csv'))", "left out by `.amlignore` line 2 (`data/`)"),
        ("import os; os.listdir('data')", "`data` is in your code folder, and left out by `.amlignore` line 2"),
        ("import helpers", "`helpers` is in your code folder, and left out by `.amlignore` line 3 (`helpers.py`)"),
        ("import nowhere_at_all", "those of `torch:1`"),
        ("open('other.csv')", "check that it exists there"),
    ],
)
def test_a_missing_file_is_looked_for_in_what_was_left_out(tmp_path: Path, script: str, hint: str) -> None:
    left_out = {".amlignore": "# big\ndata/\nhelpers.py\n", "data/train.csv": "1\n", "helpers.py": ""}
    found = verdict(failed(tmp_path, script, left_out, environment="azureml:torch:1"))

    assert found.hint
    assert hint in found.hint


def test_an_argument_that_the_script_does_not_take_is_shown_in_the_command(tmp_path: Path) -> None:
    script = "import argparse\nargparse.ArgumentParser().parse_args()\n"
    found = verdict(failed(tmp_path, script, command="python train.py --lr ${{inputs.lr}}", inputs={"lr": 0.1}))

    assert (found.kind, found.hint) == (
        "bad-arguments",
        "the script does not accept `--lr 0.1`, which is in the command: `python train.py --lr 0.1`",
    )


def test_the_batch_size_of_the_command_is_named_where_memory_is_lacking(tmp_path: Path) -> None:
    script = "raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')"
    found = verdict(failed(tmp_path, script, command="python train.py --batch-size 64"))

    assert found.kind == "gpu-out-of-memory"
    assert found.hint
    assert "`--batch-size` is 64: try 32" in found.hint


@needs("torch")
def test_the_rank_that_torchrun_in_the_command_counts_is_called_so(tmp_path: Path) -> None:
    script = "import os, signal\nif os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGSEGV)\n"
    run = failed(tmp_path, script, command="torchrun --nproc-per-node 2 train.py", processes=1)

    assert (run.state().failed_rank, verdict(run).rank) == (0, 1)
    shown = " ".join(str(run).split())
    assert "why rank 1: ended by SIGSEGV (likely) (as the launcher in the command counts ranks)" in shown


# --- secrets


def test_secrets_that_a_run_was_given_are_nowhere_but_in_its_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"HF_TOKEN": "written-in-the-job", "MINE": "taken-from-the-caller"}
    monkeypatch.setenv("MINE", given["MINE"])
    script = "import os\nprint('with', os.environ['MINE'])\nraise KeyError(os.environ['MINE'] + os.environ['HF_TOKEN'])"
    variables = {"HF_TOKEN": given["HF_TOKEN"], "MINE": None}
    run = failed(tmp_path, script, environment=Environment(image="x"), environment_variables=variables)
    monkeypatch.delenv("MINE")

    asked = [call("why", run.name, *more, "--root", run.folder.parent) for more in ((), ("--json",))]
    asked += [call("status", run.name, "--json", "--root", run.folder.parent), call("why", run.folder)]
    said = [done.stdout + done.stderr for done in asked] + [str(run), run._repr_html_(), str(verdict(run))]
    said += [(run.folder / name).read_text() for name in ("run.json", NAME)]

    assert verdict(run).message == "'******'"
    assert not [text for text in said for secret in given.values() if secret in text]


# --- what a run keeps


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"attempt": 0}', "\0", '{"attempt": 1, "kind": "user-code"}', "[" * 5000],
)
def test_a_verdict_that_is_damaged_is_made_anew(tmp_path: Path, text: str) -> None:
    run = failed(tmp_path, "raise KeyError('x')")
    before = verdict(run)
    (run.folder / NAME).write_text(text)

    assert verdict(run) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("rank", "0"), ("kind", "bad"), ("evidence", [{}]), ("followers", ["x"]), ("summary", None), ("line", True)],
)
def test_a_verdict_with_a_wrong_value_is_made_anew(tmp_path: Path, name: str, value: Any) -> None:
    run = failed(tmp_path, "raise KeyError('x')")
    before = verdict(run)
    kept = json.loads((run.folder / NAME).read_text())
    (run.folder / NAME).write_text(json.dumps(kept | {name: value}))

    assert verdict(run) == before


def test_a_verdict_of_an_earlier_attempt_is_not_that_of_the_run(tmp_path: Path) -> None:
    code = code_in(tmp_path / "src", {"train.py": "import os\nraise KeyError(os.environ['ATTEMPT'])"})
    command = (
        "ATTEMPT=$(ls ${{outputs.up}} | wc -l) && touch ${{outputs.up}}/$ATTEMPT && export ATTEMPT && python train.py"
    )
    run = run_here(pytorch(command, code=str(code)), root=tmp_path / "runs", launcher="direct", retries=1)

    assert verdict(run).message == "'1'"


# --- commands that hide failures


@pytest.mark.parametrize("end", [" 2>&1 | tee log.txt", "; echo ended"])
def test_a_completed_run_whose_command_hides_an_exception_says_so(end: str, tmp_path: Path) -> None:
    run = failed(tmp_path, "raise KeyError('labels')\n", command=f"python train.py{end}")

    told = call("why", run.name, "--root", tmp_path / "runs")
    of_folder = call("why", run.folder)

    assert (run.status, told.returncode, told.stdout) == ("Completed", 0, "")
    assert "its logs show an exception, which the command may have hidden: rank 0: KeyError: 'labels'" in told.stderr
    assert "set -eo pipefail" in told.stderr
    assert "which the command may have hidden" in of_folder.stderr
    assert json.loads(call("why", run.folder, "--json").stdout)["verdict"] is None


def test_a_completed_run_that_printed_an_exception_has_no_failure(tmp_path: Path) -> None:
    script = "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\n"
    run = failed(tmp_path, script)

    assert "there is no failure to explain" in call("why", run.folder).stderr
