"""What commands before the script say when they fail: real pip and git, and the words of others."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from judging import verdict
from needs import needs
from running import pytorch, run_here

from azml_dist.local.run import LocalRun

PIP = "python -m pip install --no-index --no-build-isolation"


def run_of(command: str, folder: Path, nodes: int = 1, processes: int = 1) -> LocalRun:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text("print('trained')\n")
    job = pytorch(f"{command} && python train.py", nodes, processes, code=str(folder), outputs={})
    return run_here(job, launcher="direct")


@pytest.mark.parametrize(
    ("command", "kind", "said", "hint"),
    [
        (
            f"{PIP} no-such-package==2.1",
            "missing-module",
            "No matching distribution",
            "pip cannot find `no-such-package",
        ),
        (f"{PIP} -r nothing.txt", "missing-file", "nothing.txt", "`nothing.txt` is relative to the code folder"),
        (f"{PIP} -r wrong.txt", "missing-module", "Invalid requirement: 'torch = 2.1'", "as in `torch==2.1`"),
        (
            f"{PIP} -e ./nowhere",
            "missing-file",
            "not a valid editable requirement",
            "`./nowhere` is relative to the code folder",
        ),
        (f"{PIP} ./later", "missing-module", "requires a different Python", "`later` needs Python >=99"),
    ],
    ids=["no distribution", "no requirements", "a wrong requirement", "no project", "another Python"],
)
def test_what_pip_says_is_the_cause(command: str, kind: str, said: str, hint: str, tmp_path: Path) -> None:
    later = tmp_path / "src/later"
    later.mkdir(parents=True)
    (later / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "later"\nversion = "1"\nrequires-python = ">=99"\n'
    )
    (later / "backend.py").write_text(BACKEND)
    (tmp_path / "src/wrong.txt").write_text("torch = 2.1\n")

    found = run_of(command, tmp_path / "src").verdict()

    assert found
    assert (found.kind, found.rank) == (kind, 0)
    assert said in (found.message or "")
    assert hint in (found.hint or "")


BACKEND = """
import os, zipfile
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = os.path.join(folder, "later-1.dist-info")
    os.mkdir(info)
    with open(os.path.join(info, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: later\\nVersion: 1\\nRequires-Python: >=99\\n")
    return "later-1.dist-info"
def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise NotImplementedError
"""


def test_ranks_that_fail_alike_have_not_lost_one_another(tmp_path: Path) -> None:
    """Each waits until the other has said it, too."""
    said = f"{PIP} no-such-package; touch said-$RANK; until [ -e said-0 ] && [ -e said-1 ]; do sleep 0.05; done; exit 1"

    run = run_of(f"{{ {said}; }}", tmp_path / "src", processes=2)

    found = run.verdict()
    assert found
    assert (found.rank, found.ranks, found.kind) == (None, [0, 1], "missing-module")
    assert re.fullmatch(r"rank [01] failed with exit code 1", run.state().error or "")


def test_a_run_says_that_its_command_changes_the_packages_of_this_machine(tmp_path: Path) -> None:
    run = run_of(f"{PIP} no-such-package", tmp_path / "src")

    said = "changes the packages of this machine"
    assert [one for one in run.state().findings if said in one]
    assert not [one for one in run_here(pytorch("pip list"), launcher="direct").state().findings if said in one]


@needs("git")
def test_a_clone_that_another_process_has_made_is_known(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "src/there")
    (tmp_path / "src/there/file").write_text("")

    found = run_of("git clone https://localhost:1/x.git there", tmp_path / "src").verdict()

    assert found
    assert found.kind == "user-code"
    assert (found.hint or "").startswith("`there` comes with the code, or another process of the node was first")


@needs("git")
def test_a_repository_that_cannot_be_read_is_known(tmp_path: Path) -> None:
    found = run_of("git clone https://localhost:1/x.git there", tmp_path / "src").verdict()

    assert found
    assert found.kind == "data-access"
    assert "git cannot read https://localhost:1/x.git/" in (found.hint or "")


TEXTS = {
    "conda": (
        "Solving environment: ...working... failed\n\nPackagesNotFoundError: The following packages are not available"
        " from current channels:\n\n  - cudatoolkit=99\n",
        "missing-module",
        "cudatoolkit=99",
    ),
    "mamba": (
        "LibMambaUnsatisfiableError: Encountered problems while solving:\n  - nothing provides requested nope 1\n",
        "missing-module",
        "nothing provides requested nope 1",
    ),
    "pip's resolver": (
        "ERROR: Cannot install a==1 and b==2 because these package versions have conflicting dependencies.\n\n"
        "The conflict is caused by:\n    The user requested a==1\n    b 2 depends on a>=2\n\n"
        "ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/\n",
        "missing-module",
        "Cannot install a==1 and b==2",
    ),
    "a wheel": (
        "  ERROR: Failed building wheel for flash-attn\nFailed to build flash-attn\n"
        "ERROR: Could not build wheels for flash-attn, which is required to install pyproject.toml-based projects\n",
        "missing-module",
        "Could not build wheels for flash-attn",
    ),
    "a full disk": (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
        "disk-full",
        "No space left",
    ),
    "R": (
        "Error in library(Hmisc) : there is no package called \u2018Hmisc\u2019\nExecution halted\n",
        "missing-module",
        "there is no package called",
    ),
    "R, on two lines": (
        "Error in loadNamespace(i, c(lib.loc)) : \n  there is no package called \u2018GO.db\u2019\n",
        "missing-module",
        "there is no package called",
    ),
    "a wheel, by a newer pip": (
        "  ERROR: Failed building wheel for llvmlite\nFailed to build llvmlite\n"
        "error: failed-wheel-build-for-install\n\n"
        "\u00d7 Failed to build installable wheels for some pyproject.toml based projects\n\u2570\u2500> llvmlite\n",
        "missing-module",
        "Failed to build installable wheels",
    ),
    "conda's environment": (
        "\nEnvironmentNameNotFound: Could not find conda environment: smoke\n",
        "bad-arguments",
        "conda environment: smoke",
    ),
    "conda's shell": ("\nCondaError: Run 'conda init' before 'conda activate'\n\n", "bad-arguments", "conda init"),
    "an older apt in another process": (
        "E: Could not get lock /var/lib/dpkg/lock - open (11: Resource temporarily unavailable)\n"
        "E: Unable to lock the administration directory (/var/lib/dpkg/), is another process using it?\n",
        "user-code",
        "lock",
    ),
    "uv, for one Python": (
        "  \u00d7 No solution found when resolving dependencies for split\n"
        "  \u2502 (python_full_version == '3.10.*'):\n",
        "missing-module",
        "No solution found",
    ),
    "uv": (
        "  \u00d7 No solution found when resolving dependencies:\n  \u2570\u2500\u25b6 Because nope was not found\n",
        "missing-module",
        "No solution found",
    ),
    "apt": ("Reading package lists...\nE: Unable to locate package nope\n", "missing-module", "nope"),
    "apt without rights": (
        "E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)\n"
        "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), are you root?\n",
        "permission",
        "are you root",
    ),
    "apt in another process": (
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 35 (apt-get)\n",
        "user-code",
        "lock",
    ),
    "curl": ("curl: (6) Could not resolve host: nowhere.invalid\n", "data-access", "nowhere.invalid"),
    "wget": (
        "wget: unable to resolve host address \u2018nowhere.invalid\u2019\n",
        "data-access",
        "unable to resolve host address",
    ),
    "Rust": (
        "thread 'main' panicked at src/main.rs:4:5:\nindex out of bounds: the len is 3 but the index is 99\n"
        "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n",
        "crash",
        "src/main.rs:4:5: index out of bounds",
    ),
    "Java": (
        'Exception in thread "main" java.lang.IllegalStateException: no shard 3\n\tat Main.main(Main.java:10)\n',
        "user-code",
        "java.lang.IllegalStateException: no shard 3",
    ),
    "Java's memory": (
        'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space\n\tat Main.main(Main.java:10)\n',
        "host-out-of-memory",
        "Java heap space",
    ),
    "C++": (
        "terminate called after throwing an instance of 'std::runtime_error'\n  what():  shard 3 is missing\n"
        "Aborted (core dumped)\n",
        "crash",
        "ended by SIGABRT: shard 3 is missing",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_the_words_of_other_programs_are_the_cause(case: str) -> None:
    text, kind, said = TEXTS[case]

    found = verdict({0: text})

    assert (found.kind, found.rank) == (kind, 0)
    assert said in (found.message or "")


def test_a_command_that_failed_before_the_script_worked_is_not_the_cause() -> None:
    text = "ERROR: No matching distribution found for nope\n" + "".join(f"step {n} loss 1\n" for n in range(9))
    text += "Traceback (most recent call last):\n  File \"train.py\", line 3, in <module>\nKeyError: 'labels'\n"

    found = verdict({0: text})

    assert (found.kind, found.exception) == ("user-code", "KeyError")
