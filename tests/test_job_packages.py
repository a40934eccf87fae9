"""Runs in the packages of the job's own environment: made once, kept, refused where they are not known."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from azml_dist import Environment, Job, JobError, LaunchError, Local
from azml_dist.listed import Listed
from azml_dist.local.packages import _of_conda, _python, environment_of
from azml_dist.local.unused import unused

COMMAND = 'python -c "import six, sys; print(six.__version__, sys.prefix)"'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def conda(*pip: str, **fields: Any) -> Environment:
    """An environment of one conda file."""
    return Environment(
        image="ubuntu:24.04", conda_file={"dependencies": ["pip", *fields.get("conda", ()), {"pip": [*pip]}]}
    )


@pytest.mark.slow
def test_a_run_has_the_packages_of_its_job(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = Job(command=COMMAND, environment=conda("six==1.16.0"))
    local = Local(root=str(tmp_path / "runs"), packages="job")

    (line,) = local.submit(job).wait().logs()
    version, prefix = line.split()[-2:]
    assert version == "1.16.0"
    assert Path(prefix).parent == home / ".azml_dist" / "environments"
    assert "installing 1 package" in capfd.readouterr().err
    for path in (Path(prefix), Path(prefix, "azml-dist.json")):
        os.utime(path, (time.time() - 9 * 86_400,) * 2)
    assert [one.folder.name for one in unused(7 * 86_400)] == [Path(prefix).name]

    second = local.submit(job).wait()
    (again,) = second.logs()
    assert again.split()[-1] == prefix
    assert capfd.readouterr().err == ""
    assert second.state().python == os.path.join(prefix, "bin", "python")
    assert unused(7 * 86_400) == []  # it was used just now


@pytest.mark.slow
def test_pip_installs_them_where_uv_is_missing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **options: None if name == "uv" else found(name, **options))

    made = environment_of(conda("six==1.16.0"))
    assert list(Path(made.python).parents[1].glob("lib/python3*/site-packages/six.py"))


@pytest.mark.slow
def test_half_an_environment_is_made_anew(home: Path) -> None:
    made = environment_of(conda("six==1.16.0"))
    folder = Path(made.python).parents[1]
    (folder / "azml-dist.json").unlink()
    (folder / "left").touch()

    assert environment_of(conda("six==1.16.0")) == made
    assert not (folder / "left").exists()


@pytest.mark.slow
def test_what_cannot_be_installed_is_told_in_the_installers_words(home: Path) -> None:
    with pytest.raises(LaunchError, match=r"(?s)cannot be installed.*six") as refused:
        environment_of(conda("six==99.9"))
    assert "--packages here" in str(refused.value.hint)
    assert [one.suffix for one in (home / ".azml_dist" / "environments").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ("azureml:torch:1", "registered environment"),
        (Environment(image="ubuntu:24.04"), "Docker image"),
        (conda("-r requirements.txt"), "`-r requirements.txt`"),
        (conda("six", conda=["cudatoolkit=11.8"]), "cudatoolkit=11.8, which only conda"),
        (None, "registered environment"),
    ],
)
def test_packages_that_are_not_known_are_refused(environment: Any, why: str) -> None:
    with pytest.raises(LaunchError, match=why):
        environment_of(environment)


@pytest.mark.parametrize(
    ("line", "requirement"),
    [
        ("numpy", "numpy"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy=1.26.*", "numpy==1.26.*"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy=1.26.4=py311_0", "numpy==1.26.4.*"),
        ("numpy>=1.26,<2", "numpy>=1.26,<2"),
        ("pytorch=2.6", "torch==2.6.*"),
        ("opencv", "opencv-python"),
    ],
)
def test_lines_of_conda_as_pip_writes_them(line: str, requirement: str) -> None:
    assert _of_conda(line) == requirement


def test_another_python_is_this_one_with_a_note() -> None:
    python, note = _python(Listed((), (), "3.2", "conda.yaml"))
    assert python == sys.executable
    assert str(note).startswith("conda.yaml has Python 3.2, which is not here")


def test_a_python_of_your_own_does_not_go_with_the_packages_of_the_job() -> None:
    with pytest.raises(JobError, match="their own Python"):
        Local(packages="job", python=sys.executable)
    with pytest.raises(JobError, match="cannot be `there`"):
        Local(packages="there")  # type: ignore[arg-type]
