"""The start-up module of a watched run: nothing of it is left where the user's code looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from running import log_of, run_here

from azml_dist import Job, PyTorch

SEEN = """\
import json, os, subprocess, sys
custom = sorted(name for name in sys.modules if "customize" in name)
seen = {"env": dict(os.environ), "path": sys.path, "custom": custom, "argv": sys.orig_argv[1:]}
if len(sys.argv) == 1:
    child = subprocess.run([sys.executable, __file__, "child"], capture_output=True, check=True)
    seen["child"] = json.loads(child.stdout.splitlines()[-1])
print(json.dumps(seen))
"""
PLACE_OF_THE_RUN = ("MLFLOW_TRACKING_TOKEN", "MASTER_PORT", "_")
"""Variables that differ from run to run."""


def seen(tmp_path: Path, command: str, *, watch: bool, files: dict[str, str] | None = None, **fields: Any) -> Any:
    """What a process sees; the paths of its run are those of every run."""
    code = tmp_path / "code"
    for name, text in {"seen.py": SEEN, **(files or {})}.items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text(text)
    job = Job(command=command, code=str(code), distribution=PyTorch(process_count_per_node=1), **fields)
    run = run_here(job, launcher="direct", watch=watch)
    assert run.status == "Completed", log_of(run, 0)
    place = (run.folder / ".watch").read_text() if watch else "/nowhere"
    assert place not in log_of(run, 0)
    found = json.loads(log_of(run, 0).splitlines()[-1].replace(run.name, "RUN"))
    for one in (found, found["child"]):
        one["env"] = {k: v for k, v in one["env"].items() if k not in PLACE_OF_THE_RUN and "127.0.0.1" not in v}
    return found


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        ("python seen.py", {}),
        ("python seen.py", {"PYTHONPATH": "lib"}),
        ("python seen.py", {"PYTHONPATH": ""}),
        ("python seen.py", {"PYTHONPATH": "lib::other"}),
        ("PYTHONPATH=lib:$PYTHONPATH python seen.py", {}),
        ("PYTHONPATH=lib:$PYTHONPATH python seen.py", {"PYTHONPATH": "other"}),
        ("PYTHONPATH=$PYTHONPATH:lib python seen.py", {"PYTHONPATH": "other"}),
        ("PYTHONPATH=lib python seen.py", {}),
        ("PYTHONPATH=. python seen.py", {}),
        ("python -m seen", {}),
    ],
)
def test_a_watched_process_sees_what_any_other_sees(tmp_path: Path, command: str, variables: dict[str, str]) -> None:
    watched = seen(tmp_path, command, watch=True, environment_variables=variables)

    assert watched == seen(tmp_path, command, watch=False, environment_variables=variables)
    planned = Job(command=command, environment_variables=variables, distribution=PyTorch()).plan().processes[0].env
    assert Job(command=command).plan().to_dict()["startup"].keys() == {"PYTHONPATH"}
    if "PYTHONPATH=" not in command:
        assert watched["env"].get("PYTHONPATH") == planned.get("PYTHONPATH")


MINE = "import os, sys; print('mine of', __file__.split(os.sep)[-2]); sys.mine = 1"


@pytest.mark.parametrize("kind", ["sitecustomize", "usercustomize"])
def test_a_customization_of_the_user_is_imported_as_ever(tmp_path: Path, kind: str) -> None:
    files, variables = {f"lib/{kind}.py": MINE}, {"PYTHONPATH": "lib"}
    command = "python -c 'import sys; print(getattr(sys, \"mine\", None))' && python seen.py"
    both = [
        seen(tmp_path, command, watch=watch, files=files, environment_variables=variables) for watch in (True, False)
    ]

    assert both[0] == both[1]
    assert (kind in both[0]["custom"]) == (kind == "sitecustomize")  # a virtual environment has no usercustomize


def test_one_that_fails_fails_as_ever(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/sitecustomize.py").write_text("raise ValueError('broken')")
    job = Job(command="python -c 'print(1)'", code=str(tmp_path), environment_variables={"PYTHONPATH": "lib"})
    logs = [log_of(run_here(job, launcher="direct", watch=watch), 0) for watch in (True, False)]

    assert logs[0] == logs[1]
    assert "ValueError: broken" in logs[0]


FORKING = """\
import os, sys
if os.fork():
    os.wait()
else:
    print(sorted(set(os.listdir("/proc/self/fd")) - {"0", "1", "2"}, key=int), flush=True)
"""


def test_its_descriptor_stays_out_of_the_way(tmp_path: Path) -> None:
    """A program that counts on the lowest free one gets it, and in a child that is forked too."""
    (tmp_path / "forking.py").write_text(FORKING)
    job = Job(command="python forking.py", code=str(tmp_path))

    assert log_of(run_here(job, launcher="direct"), 0) == "['3', '120']\n"
    assert log_of(run_here(job, launcher="direct", watch=False), 0) == "['3']\n"


NO_PLACE = "import os, shutil; shutil.rmtree(os.path.dirname(os.environ['PYTHONPATH']))"


def test_a_watch_that_cannot_be_arranged_is_no_reason_to_fail(tmp_path: Path) -> None:
    job = Job(command=f"python -I -c \"{NO_PLACE}\"; python -c 'print(1)'")

    assert log_of(run_here(job, launcher="direct"), 0) == "1\n"


INNER = """\
import os, time, torch.distributed as dist
dist.init_process_group("gloo")
folder = os.path.dirname(os.environ["WATCHED"])
dist.barrier()
end = time.monotonic() + 20  # a thread of each rank opens its socket
while (answers := sum(name.endswith(".s") for name in os.listdir(folder))) < 2 and time.monotonic() < end:
    time.sleep(0.02)
line = f"{dist.get_rank()} {answers} {folder in str(os.environ.get('PYTHONPATH'))}\\n"
os.write(1, line.encode())  # in one piece: both ranks write into one pipe
dist.barrier()
"""


@needs("torch")
def test_what_a_launcher_in_the_command_starts_is_watched_too(tmp_path: Path) -> None:
    (tmp_path / "inner.py").write_text(INNER)
    command = (
        "export WATCHED=$PYTHONPATH; torchrun --nproc_per_node 2 --master_addr $MASTER_ADDR"
        " --master_port $MASTER_PORT inner.py"
    )
    run = run_here(Job(command=command, code=str(tmp_path), distribution=PyTorch()), launcher="direct")

    assert sorted(log_of(run, 0).splitlines()[-2:]) == ["0 2 False", "1 2 False"]
