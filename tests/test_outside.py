"""Code from outside the snapshot: not handed on to a run, or pointed out at its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from needs import needs
from running import call, lines_of, run_here, write_job

from azml_dist import Job, PyTorch

FILES = {
    "pyproject.toml": "[project]\nname = 'mine'\nversion = '1'\n",
    "src/mypkg/__init__.py": "X = 5\n",
    "lonely.py": "Y = 6\n",
    "training/train.py": "import mypkg\nprint(mypkg.X)\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose package is not in the folder of the training script."""
    return write(tmp_path / "project", FILES)


def write(folder: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python of its own, into which a test may install."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    return tmp_path / "venv" / "bin" / "python"


def packages_of(python: Path) -> Path:
    [folder] = (python.parent.parent / "lib").glob("python3*/site-packages")
    return folder


def findings(code: Path, command: str, python: Path, **fields: object) -> list[str]:
    job = Job(command=command, code=str(code), **fields)  # type: ignore[arg-type]
    run = run_here(job, python=str(python))
    return [finding for finding in run.state().findings if "snapshot" in finding]


# Variables of the caller


def test_a_run_does_not_see_the_callers_python_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(project / "src"))

    run = run_here(Job(command="python train.py", code=str(project / "training")))

    assert (run.status, run.state().exit_code) == ("Failed", 1)
    assert "No module named 'mypkg'" in "\n".join(lines_of(run))
    assert any(finding.startswith("PYTHONPATH of your shell is not passed on") for finding in run.state().findings)


def test_nor_what_else_tells_python_where_code_is(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONSAFEPATH")
    for name in names:
        monkeypatch.setenv(name, "/nowhere")

    run = run_here(Job(command=f"echo {' '.join(f'${name}' for name in names)}; python -c 'print(1)'"))

    assert lines_of(run) == ["[node0 rank0] ", "[node0 rank0] 1"]
    [finding] = run.state().findings
    assert finding.startswith("PYTHONHOME and PYTHONUSERBASE and PYTHONSTARTUP and PYTHONSAFEPATH of your shell are")


@needs("torch")
@pytest.mark.parametrize("launcher", ["torchrun", "direct"])
def test_it_is_handed_on_where_that_is_asked_for(project: Path, launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = write_job(project, "python train.py", code="training")
    environ = os.environ | {"PYTHONPATH": str(project / "src")}

    done = call("run", job, "--keep-pythonpath", "--launcher", launcher, env=environ)

    assert (done.returncode, done.stdout) == (0, "[node0 rank0] 5\n"), done.stderr
    assert f"note: `mypkg` comes from {project / 'src' / 'mypkg'} (through PYTHONPATH)" in done.stderr


def test_what_the_job_itself_sets_is_its_affair(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    job = Job(command="python training/train.py", code=str(project), environment_variables={"PYTHONPATH": "src"})

    run = run_here(job)

    assert (run.status, lines_of(run), run.state().findings) == ("Completed", ["[node0 rank0] 5"], [])


# Editable installs


def test_a_module_that_an_editable_install_brings_is_pointed_out(project: Path, python: Path) -> None:
    (packages_of(python) / "__editable__.mine-1.pth").write_text(f"{project / 'src'}\n")

    [finding] = findings(project / "training", "python train.py", python)

    assert finding.startswith(f"`mypkg` comes from {project / 'src' / 'mypkg'} (through an editable install)")


def test_one_that_setuptools_maps_is_pointed_out(project: Path, python: Path) -> None:
    finder = f"MAPPING: dict[str, str] = {{'mypkg': {str(project / 'src' / 'mypkg')!r}}}\nNAMESPACES = {{}}\n"
    (packages_of(python) / "__editable___mine_1_finder.py").write_text(finder)
    (packages_of(python) / "__editable__.mine-1.pth").write_text("import __editable___mine_1_finder\n")

    [finding] = findings(project / "training", "python train.py || true", python)

    assert "`mypkg` comes from" in finding


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"run.py": "from lonely import Y\n"}, "python run.py"),
        ({"run.py": "import os, lonely as l\n"}, "python run.py"),
        ({"run.py": "import importlib\nimportlib.import_module('lonely')\n"}, "python run.py"),
        ({"run.py": "import sub\n", "sub.py": "if True:\n    import lonely\n"}, "python run.py"),
        ({"readme.txt": ""}, "python -m lonely"),
        ({"start.sh": "python -m lonely\n"}, "bash start.sh"),
    ],
)
def test_a_module_from_outside_is_found_however_it_is_imported(
    files: dict[str, str], command: str, project: Path, python: Path
) -> None:
    """A path file of another name than an editable install's, and the root of the project on the path."""
    (packages_of(python) / "project.pth").write_text(f"{project}\n")

    [finding] = findings(write(project / "training", files), command, python)

    assert finding.startswith(f"`lonely` comes from {project / 'lonely.py'} (through project.pth)")


def test_a_package_that_is_uploaded_where_python_does_not_look_is_pointed_out(project: Path, python: Path) -> None:
    """With `src` in the snapshot, the script still finds the package by the editable install only."""
    (packages_of(python) / "mine.pth").write_text(f"{project / 'src'}\n")
    write(project, {"train.py": "import mypkg\n"})

    [finding] = findings(project, "python train.py", python)

    assert "the snapshot's src/mypkg, which is not on Python's path: add `PYTHONPATH: src`" in finding
    assert findings(project, "python train.py", python, environment_variables={"PYTHONPATH": "src"}) == []


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"run.py": "import mypkg\n", "mypkg/__init__.py": ""}, "python run.py"),
        ({"go/run.py": "import mypkg\n", "go/mypkg.py": ""}, "cd go && python run.py"),
        ({"run.py": "import json\nfrom .mypkg import X\n# import mypkg\n"}, "true"),
        ({"run.py": "import mypkg\n"}, "pip install -e . || true; python run.py"),
    ],
)
def test_what_is_uploaded_or_not_imported_is_not(
    files: dict[str, str], command: str, project: Path, python: Path
) -> None:
    (packages_of(python) / "mine.pth").write_text(f"{project / 'src'}\n")
    code = write(project / "other", files)

    assert findings(code, command, python) == []


def test_nor_is_a_package_of_another_project(project: Path, python: Path, tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", {"lonely.py": ""})
    (packages_of(python) / "other.pth").write_text(f"{elsewhere}\n")
    code = write(project / "training", {"run.py": "import lonely\n"})

    assert findings(code, "python run.py", python) == []


def test_a_world_of_several_processes_is_told_once(project: Path, python: Path) -> None:
    (packages_of(python) / "mine.pth").write_text(f"{project / 'src'}\n")
    distribution = PyTorch(process_count_per_node=2)

    assert len(findings(project / "training", "python train.py", python, distribution=distribution, node_count=2)) == 1
