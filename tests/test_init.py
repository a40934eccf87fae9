"""`init` writes a job that is read and planned as it is, and runs; it asks nothing in a pipe and replaces nothing."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
from running import call
from terminals import at_terminal

from azml_dist import Job
from azml_dist.files.draft import ignore_text, job_text
from azml_dist.script.proposal import Proposed, proposed

PARSED = "args = parser.parse_args()\n"
DDP = "import torch\nimport torch.distributed as dist\ndist.init_process_group('gloo')\n"


def drafted(folder: Path, script: str, name: str = "train.py") -> tuple[Proposed, Job]:
    """What is proposed for a script, and the job that is read from what is written."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(script)
    found = proposed(name, {name: str(folder / name)})
    assert isinstance(found, Proposed), found
    (folder / "job.yml").write_text(job_text(found, os.listdir(folder)))
    return found, Job.load(folder / "job.yml")


@pytest.mark.parametrize(
    ("imports", "kind", "processes"),
    [
        (DDP, "PyTorch", 2),
        ("import torch, os\nrank = os.environ['RANK']\n", "PyTorch", 2),
        ("import torch\n", None, 1),
        ("import lightning as L\n", "PyTorch", 2),
        ("import pytorch_lightning as pl\n", "PyTorch", 2),
        ("from accelerate import Accelerator\n", "PyTorch", 2),
        ("import deepspeed\n", "PyTorch", 2),
        ("import torch\nfrom transformers import Trainer\nTrainer(model=1)\n", "PyTorch", 2),
        ("from transformers import Seq2SeqTrainer\nSeq2SeqTrainer(model=1)\n", "PyTorch", 2),
        ("from trl import SFTTrainer\nSFTTrainer(model=1)\n", "PyTorch", 2),
        ("from transformers import pipeline\npipeline('x')\n", None, 1),
        ("import horovod.torch as hvd\nimport torch\n", "Mpi", 2),
        ("from mpi4py import MPI\n", "Mpi", 2),
        ("import tensorflow as tf\ns = tf.distribute.MultiWorkerMirroredStrategy()\n", "TensorFlow", 1),
        ("import tensorflow as tf\n", None, 1),
        ("import ray\n", "Ray", 1),
        ("import sklearn\n", None, 1),
        ("", None, 1),
    ],
)
def test_imports_say_how_the_processes_are_started(
    imports: str, kind: str | None, processes: int, tmp_path: Path
) -> None:
    _, job = drafted(tmp_path, imports)

    plan = job.plan()
    assert plan.world.distribution == kind
    assert plan.world.process_count_per_node == processes
    assert not [finding for finding in plan.findings if finding.level == "error"]


def test_a_parameter_server_strategy_gets_a_parameter_server(tmp_path: Path) -> None:
    _, job = drafted(tmp_path, "import tensorflow as tf\ntf.distribute.ParameterServerStrategy\n")

    assert [process.role for process in job.plan().processes] == ["worker", "ps"]


def test_options_become_inputs_and_outputs(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    script = f"""
import argparse
from pathlib import Path
{DDP}
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=3, help="how often")
parser.add_argument("--lr", type=float, default=1e-5)
parser.add_argument("--name", default="two words; rm -rf $HOME")
parser.add_argument("--yes", default="yes")
parser.add_argument("--data-dir", default="data")
parser.add_argument("--output-dir", type=Path, default=Path("results"))
parser.add_argument("--save", default="model.pt")
parser.add_argument("--fp16", action="store_true")
parser.add_argument("--layers", nargs="+", default=[1])
parser.add_argument("--resume")
parser.add_argument("--local_rank", type=int, default=0)
parser.add_argument("--mode", choices=["a", "b"], required=True)
{PARSED}"""
    found, job = drafted(tmp_path, script)

    assert {name: getattr(value, "path", value) for name, value in job.inputs.items()} == {
        "epochs": 3,
        "lr": 1e-05,
        "name": "two words; rm -rf $HOME",
        "yes": "yes",
        "data_dir": str(tmp_path / "data"),
        "save": "model.pt",
        "mode": "a",
    }
    assert list(job.outputs) == ["output_dir"]
    assert found.left == ["--fp16 (a switch)", "--layers (takes several values)", "--resume (has no default)"]
    assert "'two words; rm -rf $HOME'" in job.plan().command
    assert "local_rank" not in job.plan().command
    text = (tmp_path / "job.yml").read_text()
    assert "epochs: 3 # how often\n" in text
    assert "mode: a # the script requires it, and has no default\n" in text


def test_options_that_are_no_names_of_inputs_get_one(tmp_path: Path) -> None:
    names = ["--größe", "--grosse", "--2nd", "--a-b", "--数据"]
    options = "".join(f"parser.add_argument({name!r}, default='x')\n" for name in names)
    _, job = drafted(tmp_path, f"import argparse\nparser = argparse.ArgumentParser()\n{options}{PARSED}")

    assert list(job.inputs) == ["grosse", "grosse_2", "_2nd", "a_b", "__"]
    assert job.plan().command == "python train.py --größe x --grosse x --2nd x --a-b x --数据 x"


def test_an_experiment_is_named_after_the_script_in_letters_that_azure_ml_accepts(tmp_path: Path) -> None:
    assert drafted(tmp_path, "import torch\n", "Straße 1.py")[1].experiment_name == "Strasse-1"


def test_a_parser_that_is_not_fully_known_is_left_to_its_author(tmp_path: Path) -> None:
    script = "import argparse, mine\nparser = argparse.ArgumentParser()\nmine.add_arguments(parser)\n" + PARSED

    found, job = drafted(tmp_path, script)

    assert (job.command, dict(job.inputs)) == ("python train.py", {})
    assert "add them to the command yourself" in found.notes[0]


@pytest.mark.parametrize(
    "said", ["\x1b[2J\x1b]0;owned\x07", "line\nbreak: 1\n- x", "# hash: {a}", "'\"", "\u202e\u2028x", "x" * 10_000]
)
def test_what_a_script_says_of_itself_stays_in_comments(said: str, tmp_path: Path) -> None:
    script = f"import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--a', default={said!r},"
    _, job = drafted(tmp_path, f"{script} help={said!r})\n{PARSED}")

    assert job.inputs["a"] == said
    assert "\x1b" not in (tmp_path / "job.yml").read_text()


@pytest.mark.parametrize("name", ["my train.py", "sub/train it.py", "$(touch x).py", "-x.py", "a'b.py"])
def test_any_name_of_a_script_is_one_word_of_the_command(name: str, tmp_path: Path) -> None:
    _, job = drafted(tmp_path, "print(1)\n", name)

    assert shlex.split(job.plan().command) == ["python", f"./{name}" if name.startswith("-") else name]
    assert not (tmp_path / "x").exists()


def test_an_environment_beside_the_script_is_used(tmp_path: Path) -> None:
    (tmp_path / "conda.yml").write_text("dependencies: [python=3.11, pip: [torch]]\n")

    _, job = drafted(tmp_path, DDP)

    assert getattr(job.environment, "conda_file", None) == str(tmp_path / "conda.yml")


def test_an_amlignore_takes_over_what_git_ignores() -> None:
    assert ignore_text("secret/\n").splitlines()[-2:] == [
        "# From .gitignore, which has no effect beside this file.",
        "secret/",
    ]
    assert ".env" in ignore_text(None).splitlines()


@pytest.mark.slow
def test_what_init_writes_runs_at_once(tmp_path: Path) -> None:
    script = (
        "import argparse, os\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--epochs', type=int, default=2)\n"
        f"{PARSED}print(os.environ['RANK'], 'of', os.environ['WORLD_SIZE'], args.epochs)\nimport torch\n"
    )
    (tmp_path / "train.py").write_text(script)

    ended = call("init", "train.py", cwd=tmp_path)
    ran = call("run", "job.yml", "--launcher", "direct", cwd=tmp_path)

    assert (ended.returncode, ended.stdout) == (0, "job.yml\n.amlignore\n"), ended.stderr
    assert "it imports torch: the distribution is `pytorch`" in ended.stderr
    assert ran.returncode == 0, ran.stderr
    assert sorted(ran.stdout.splitlines()) == ["[node0 rank0] 0 of 2 2", "[node0 rank1] 1 of 2 2"]
    assert "run train-" in ran.stderr


def test_the_commands_that_init_shows_can_be_typed_and_its_file_read(tmp_path: Path) -> None:
    (tmp_path / "träin me.py").write_text("print('ran')\n")

    ended = call("init", "träin me.py", "--to", "my job.yml", cwd=tmp_path)

    assert "  run      azml-dist run 'my job.yml'\n" in ended.stderr
    assert "python 'träin me.py'" in (tmp_path / "my job.yml").read_text(encoding="utf-8")
    assert Job.load(tmp_path / "my job.yml").command == "python 'träin me.py'"


def test_a_guess_that_is_left_in_the_job_is_pointed_out(tmp_path: Path) -> None:
    _, job = drafted(
        tmp_path, f"import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('text')\n{PARSED}"
    )

    (found,) = (finding for finding in job.plan().findings if finding.code == "placeholder")
    assert (found.where, found.level) == ("inputs.text", "warning")


def test_init_replaces_nothing_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print(1)\n")
    (tmp_path / "job.yml").write_text("mine")
    (tmp_path / ".amlignore").write_text("mine")

    refused = call("init", "train.py", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (2, "error: there is a job.yml already")
    assert (tmp_path / "job.yml").read_text() == "mine"

    other = call("init", "train.py", "--to", "other.yml", "--json", cwd=tmp_path)
    assert json.loads(other.stdout) == {"files": ["other.yml"], "distribution": None, "frameworks": [], "inputs": {}}
    assert call("init", "train.py", "--force", cwd=tmp_path).returncode == 0
    assert "python train.py" in (tmp_path / "job.yml").read_text()
    assert (tmp_path / ".amlignore").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == [".amlignore", "job.yml", "other.yml", "train.py"]


@pytest.mark.parametrize(
    ("script", "who"),
    [
        ("import click\n\n@click.command()\n@click.option('--epochs')\ndef main(epochs): ...", "click"),
        ("from transformers import HfArgumentParser\nHfArgumentParser(1)\n", "HfArgumentParser"),
    ],
)
def test_options_that_argparse_does_not_have_are_left_to_you(script: str, who: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(script)

    ended = call("init", "train.py", cwd=tmp_path)

    said = f"options of {who} are not read: add them to the command yourself\n"
    assert ended.returncode == 0
    assert f"note: {said}" in ended.stderr
    assert f"# Note: {said}" in (tmp_path / "job.yml").read_text()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.py", b"print()\nprint(\n", "cannot be read: line 2: '(' was never closed"),
        ("train.py", b"# \xff\xfe\nprint(1)\n", "cannot be read"),
        ("train.sh", b"echo\n", "is not a Python script"),
        ("other.py", b"", "does not exist"),
    ],
)
def test_a_script_that_cannot_be_read_is_said(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    ended = call("init", "train.sh" if name == "train.sh" else "train.py", cwd=tmp_path)

    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "job.yml").exists()


@pytest.mark.slow
def test_at_a_terminal_init_asks_for_what_the_script_requires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = (
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--steps', type=int, required=True)\n"
    )
    (tmp_path / "train.py").write_text(script + PARSED)

    with at_terminal("init", "train.py") as terminal:
        terminal.wait_for(lambda shown: "--steps [1]:" in shown)
        terminal.type("many\r")
        terminal.wait_for(lambda shown: "is not a valid integer" in shown)
        terminal.type("7\r")
        assert terminal.end() == 0

    assert Job.load("job.yml").inputs == {"steps": 7}
