"""The plan computes every world, offline, and shows it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from azml_dist import Environment, Input, Job, JobError, Mpi, Output, PyTorch, Ray, TensorFlow
from azml_dist.errors import counted
from azml_dist.plan import Service
from azml_dist.plan.installs import installed_by
from azml_dist.plan.plan import plan_facts

ENVIRONMENT = "azureml:any@latest"


def tf_config(job: Job, rank: int) -> object:
    return json.loads(job.plan().processes[rank].env["TF_CONFIG"])


@pytest.mark.parametrize(("module", "may"), [("azml_dist", set()), ("azml_dist.cli", {"click"})])
def test_importing_the_package_loads_neither_pydantic_nor_any_framework(module: str, may: set[str]) -> None:
    script = f"import {module}, sys; print(*{{name.split('.')[0] for name in sys.modules}})"

    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split()

    assert "azml_dist" in loaded
    assert not {"pydantic", "azure", "torch", "click", "yaml"} & set(loaded) - may


def test_ranks_are_in_blocks_over_the_nodes() -> None:
    plan = Job(command="x", node_count=3, distribution=PyTorch(process_count_per_node=2)).plan()

    places = [(p.rank, p.node_rank, p.local_rank, p.env["AZUREML_PROCESS_NAME"]) for p in plan.processes]
    assert places == [
        (0, 0, 0, "rank_0"),
        (1, 0, 1, "rank_1"),
        (2, 1, 0, "rank_2"),
        (3, 1, 1, "rank_3"),
        (4, 2, 0, "rank_4"),
        (5, 2, 1, "rank_5"),
    ]


def test_logs_have_as_many_digits_as_the_largest_rank() -> None:
    plan = Job(command="x", node_count=3, distribution=PyTorch(process_count_per_node=4)).plan()

    assert [plan.processes[r].log for r in (0, 11)] == [
        "user_logs/std_log_process_00.txt",
        "user_logs/std_log_process_11.txt",
    ]


def test_mpi_processes_have_open_mpis_variables_and_none_of_torchs() -> None:
    plan = Job(command="x", node_count=2, distribution=Mpi(process_count_per_node=2)).plan()

    env = plan.processes[3].env
    assert {name: env[name] for name in env if name.startswith("OMPI")} == {
        "OMPI_COMM_WORLD_RANK": "3",
        "OMPI_COMM_WORLD_SIZE": "4",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        "OMPI_COMM_WORLD_NODE_RANK": "1",
    }
    assert env["AZ_BATCH_MASTER_NODE"] == "<address of node 0>:6000"
    assert not env.keys() & {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
    alone = Job(command="x", distribution=Mpi(process_count_per_node=2)).plan().processes[0].env
    assert env["AZ_BATCHAI_MPI_MASTER_NODE"] == alone["AZ_BATCHAI_MPI_MASTER_NODE"] == "<address of node 0>"
    assert "AZ_BATCH_MASTER_NODE" not in alone


def test_tensorflow_workers_are_one_a_node_and_read_tf_config() -> None:
    job = Job(command="x", node_count=2, distribution=TensorFlow())

    assert tf_config(job, 1) == {
        "cluster": {"ps": [], "worker": ["<address of node 0>:2222", "<address of node 1>:2222"]},
        "task": {"type": "worker", "index": 1},
        "environment": "cloud",
    }
    assert job.plan().processes[1].env["TF_CONFIG"].startswith('{"cluster":{"ps":[],"worker":["<address of node 0>:22')
    assert [p.log for p in job.plan().processes] == [
        "user_logs/std_log_node_00_worker.txt",
        "user_logs/std_log_node_01_worker.txt",
    ]


def test_that_workers_only_have_an_empty_ps_is_an_assumption_that_can_be_changed() -> None:
    plan = Job(command="x", node_count=2, distribution=TensorFlow()).plan()
    otherwise = replace(plan, service=Service(tensorflow_empty_ps=False))

    assert "ps" not in json.loads(otherwise.processes[0].env["TF_CONFIG"])["cluster"]


def test_a_parameter_server_shares_the_first_node_with_its_worker() -> None:
    job = Job(command="x", node_count=2, distribution=TensorFlow(parameter_server_count=1))

    plan = job.plan()
    assert [(p.role, p.node_rank, p.local_rank) for p in plan.processes] == [
        ("worker", 0, 1),
        ("worker", 1, 0),
        ("ps", 0, 0),
    ]
    cluster = {"ps": ["<address of node 0>:2222"], "worker": ["<address of node 0>:2223", "<address of node 1>:2222"]}
    assert tf_config(job, 2) == {"cluster": cluster, "task": {"type": "ps", "index": 0}, "environment": "cloud"}
    assert plan.processes[2].log == "user_logs/std_log_node_00_ps.txt"


def test_ray_runs_the_command_on_the_head_alone() -> None:
    plan = Job(command="x", node_count=3, distribution=Ray()).plan()

    assert [(p.rank, p.role) for p in plan.processes] == [(0, "head")]
    assert [p.message for p in plan.findings if "Ray" in p.message]


def test_a_plan_says_what_the_job_is_and_who_its_processes_are(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print(1)\n")
    (tmp_path / "big.bin").touch()
    (tmp_path / ".amlignore").write_text("*.bin\n")
    job = Job(
        command="python a.py --n ${{inputs.n}} --d ${{inputs.d}} --o ${{outputs.o}}",
        code=str(tmp_path),
        inputs={"n": 3, "d": Input(path="azureml:x:1")},
        outputs={"o": Output(type="uri_file")},
        environment=ENVIRONMENT,
        compute="gpu-cluster",
        node_count=2,
        distribution=PyTorch(process_count_per_node=2),
        environment_variables={"A": "b"},
        display_name="shown",
    )
    text = str(job.plan())

    assert text.startswith(f"""\
shown  2 nodes x 2 processes = 4  PyTorch

command      python a.py --n 3 --d <path of input d> --o <path of output o>
code         {tmp_path}: 2 files, 15 bytes, 1 excluded
input n      3
input d      <path of input d>
output o     uri_file
environment  {ENVIRONMENT}
compute      gpu-cluster

rank  node  local  role    log
   0     0      0  worker  user_logs/std_log_process_0.txt
   1     0      1  worker  user_logs/std_log_process_1.txt
   2     1      0  worker  user_logs/std_log_process_2.txt
   3     1      1  worker  user_logs/std_log_process_3.txt

environment of each process
AZUREML_CR_NODE_RANK                   0 ... 1
""")
    assert "\nLOCAL_RANK                             0 ... 1\n" in text
    assert "\nA                                      b\n" in text


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({}, {"code": "none: the command starts in an empty folder"}),
        ({"instance_type": "Standard_D2"}, {"compute": "serverless, Standard_D2"}),
        ({"compute": "c", "instance_type": "Standard_D2"}, {"compute": "c"}),
        ({"environment": Environment(image="python:3.11")}, {"environment": "python:3.11"}),
        ({"code": "azureml:c:1"}, {"code": "azureml:c:1"}),
    ],
)
def test_what_a_job_leaves_open_is_said_or_left_out(fields: dict[str, Any], facts: dict[str, str]) -> None:
    expected = {"command": "x", "code": "none: the command starts in an empty folder"} | facts

    assert dict(plan_facts(Job(command="x", **fields).plan())) == expected


def test_a_single_process_is_the_main_one() -> None:
    [only] = Job(command="x").plan().processes

    assert (only.rank, only.node_rank, only.local_rank) == (0, 0, 0)
    assert (only.role, only.log) == ("main", "user_logs/std_log.txt")
    assert (only.env["AZUREML_PROCESS_NAME"], only.env["AZUREML_CR_NODE_RANK"]) == ("main", "0")


def test_a_place_gives_each_input_and_output_its_path(tmp_path: Path) -> None:
    inputs: dict[str, Any] = {name: Input(path=f"azureml:{name}:1") for name in ("a", "c")}
    inputs |= {"b": Input(path=str(tmp_path)), "n": 3}
    command = "x ${{inputs.a}} ${{inputs.b}} ${{inputs.c}} ${{inputs.n}} ${{outputs.o}} ${{outputs.p}}"
    plan = Job(command=command, inputs=inputs, outputs={"o": Output(), "p": Output()}).plan()
    placed = plan.at(replace(plan.place, inputs={"a": "/in/a"}, outputs={"o": "/out/o"}))

    assert placed.command == f"x /in/a {tmp_path} <path of input c> 3 /out/o <path of output p>"


def test_a_thousand_nodes_are_an_ordinary_plan() -> None:
    plan = Job(command="x", node_count=1000, distribution=PyTorch(process_count_per_node=8)).plan()

    assert len(plan.processes) == 8000
    assert plan.processes[-1].env["RANK"] == "7999"
    assert [p.rank for p in plan.processes[2:5]] == [2, 3, 4]
    text = str(plan)
    assert text.startswith("1,000 nodes x 8 processes = 8,000  PyTorch\n")
    assert len(text.splitlines()) < 70


def test_a_notebook_shows_the_same_as_the_terminal() -> None:
    job = Job(
        command="python train.py <b>",
        node_count=2,
        distribution=PyTorch(process_count_per_node=2),
        environment=ENVIRONMENT,
    )

    html = job.plan()._repr_html_()

    assert "2 nodes x 2 processes = 4 · PyTorch" in html
    assert "python train.py &lt;b&gt;" in html
    assert html.count("<tr>") == html.count("</tr>")
    assert "user_logs/std_log_process_3.txt" in html


def test_a_console_without_html_shows_a_line() -> None:
    plan = Job(command="x", name="one", node_count=2, distribution=PyTorch(process_count_per_node=2)).plan()

    assert repr(plan) == "<LaunchPlan one: 2 nodes x 2 processes = 4>"


def test_a_second_look_is_offered_where_a_job_is_allowed_but_doubtful() -> None:
    job = Job(command="x", distribution=Mpi(), environment_variables={"RANK": "1"}, environment=ENVIRONMENT)

    messages = " ".join(str(finding) for finding in job.plan().findings)

    assert "process count for MPI" in messages
    assert "Azure ML sets `RANK` itself" in messages
    assert Job(command="x", environment=ENVIRONMENT).plan().findings == ()


def test_every_finding_has_a_code_and_a_level() -> None:
    job = Job(command="x", distribution=Mpi(), environment_variables={"RANK": "1"})
    plan = job.plan()

    assert {finding.code: finding.level for finding in plan.findings} == {
        "no-environment": "warning",
        "mpi-process-count": "note",
        "set-by-azure-ml": "warning",
    }
    assert plan.to_dict()["findings"][2] == {
        "code": "set-by-azure-ml",
        "level": "warning",
        "message": "Azure ML sets `RANK` itself and ignores your value",
        "hint": "leave it out",
        "where": "environment_variables.RANK",
    }
    assert counted(plan.findings) == "2 warnings, 1 note"


@pytest.mark.parametrize(
    ("command", "distribution", "message", "hint"),
    [
        ("python t.py $LOCAL_RANK", None, "`$LOCAL_RANK` is not set in this job, which has no dist", "add a `distrib"),
        ("python t.py ${RANK}", Mpi(), "whose distribution is Mpi: it is empty", "write `$OMPI_COMM_WORLD_RANK`"),
        ("python t.py $OMPI_COMM_WORLD_RANK", PyTorch(), "is not set", "write `$RANK`"),
        ("python t.py $LOCAL_WORLD_SIZE", PyTorch(process_count_per_node=4), "is not set", "write the number, 4"),
        ("torchrun --node-rank $NODE_RANK t.py", None, "`$NODE_RANK` is not set", "add a `distribution`"),
        ("python t.py $RANK", TensorFlow(), "whose distribution is TensorFlow", "`azml-dist plan` shows those"),
    ],
)
def test_a_variable_of_another_distribution_in_the_command_is_pointed_out(
    command: str, distribution: Any, message: str, hint: str
) -> None:
    [finding] = [f for f in Job(command=command, distribution=distribution).plan().findings if f.where == "command"]

    assert (finding.code, finding.level) == ("unset-variable", "warning")
    assert message in finding.message
    assert hint in str(finding.hint)


@pytest.mark.parametrize(
    "command",
    [
        "python t.py ${RANK:-0}",
        "export RANK=0; python t.py $RANK",
        "torchrun --nproc-per-node 2 --no-python bash -c 'python t.py $RANK'",
        "source env.sh && python t.py $RANK",
        "python t.py $RANK_FILE",
        'if [ -n "$RANK" ]; then python t.py $RANK; fi',
    ],
)
def test_a_variable_that_the_command_sets_itself_is_not(command: str) -> None:
    assert "unset-variable" not in {f.code for f in Job(command=command).plan().findings}


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("azureml://datastores/store/path/a/b", "write `azureml://datastores/store/paths/a/b`"),
        ("azureml://datastores/store/a", "write `azureml://datastores/store/paths/a`"),
        ("azureml://datastores/store", "write `azureml://datastores/store/paths/FOLDER`"),
        ("s3://bucket/a", "copy the data to a datastore"),
        ("azureml://datastores/store/paths/a", None),
        ("azureml://datastores/store/paths/", None),
        ("azureml://subscriptions/1/resourcegroups/2/workspaces/3/datastores/store/paths/a", None),
        ("azureml://jobs/one/outputs/artifacts/paths/a", None),
        ("azureml:data:1", None),
        ("wasbs://c@a.blob.core.windows.net/x", None),
        ("abfss://c@a.dfs.core.windows.net/x", None),
    ],
)
def test_an_address_that_azure_ml_does_not_read_is_pointed_out(path: str, hint: str | None) -> None:
    findings = Job(command="python t.py ${{inputs.d}}", inputs={"d": Input(path=path)}).plan().findings
    found = [str(f.hint) for f in findings if f.code == "unknown-address"]

    assert len(found) == (hint is not None)
    assert not hint or hint in found[0]


LINES: dict[str, tuple[str, tuple[str, str, str] | None]] = {
    "one line": ("python t.py", None),
    "a line in the middle": (
        "pip install x\npython t.py\n",
        ("unchecked-line", "warning", "line 1 of the"),
    ),
    "the second of three": (
        "echo a\npip install x\npython t.py",
        ("unchecked-line", "warning", "line 2 of"),
    ),
    "errexit": ("set -e\npip install x\npython t.py", None),
    "errexit among others": ("set -euo pipefail\npip install x\npython t.py", None),
    "errexit by its name": ("set -o errexit\npip install x\npython t.py", None),
    "harmless lines": ("echo a\nexport A=1\nB=2\n# a comment\n\nnvidia-smi\npython t.py", None),
    "what is looked at": ("pip install x || exit 1\npython t.py", None),
    "joined": ("pip install x &&\npython t.py", None),
    "an exit": ("if [ $ANY = 1 ]; then\n  exit 1\nfi\npython t.py", None),
    "continued": ("python t.py \\\n  --lr 0.1 \\\n  --epochs 3", None),
    "an open quote": ('python -c "import sys\nsys.exit(0)"', None),
    "a here-document": ("cat > x <<EOF\n--lr 0.1\nEOF", None),
    "no backslash": (
        "python t.py\n  --lr 0.1",
        ("line-without-backslash", "error", "line 2 of the command, `--lr 0.1`"),
    ),
    "no backslash, later": (
        "python t.py \\\n  --lr 0.1\n  --epochs 3",
        ("line-without-backslash", "error", "line 3 of the command, `--epochs 3`"),
    ),
    "a semicolon": ("python t.py; echo done", ("unchecked-line", "warning", "`python t.py`")),
    "its own exit code": ("python t.py; exit $?", None),
    "its own exit code, kept": ("python t.py\ncode=$?\necho $code\nexit $code", None),
    "its own exit code, without a word": ("python t.py\nexit", None),
    "a function": ("f() { cd src; python t.py; }\nf", None),
    "a file that the command writes": ("cat > t.py <<'END'\nprint(1)\nEND\npython t.py", None),
    "a semicolon at the end": ("python t.py;", None),
    "a semicolon in quotes": ("python -c 'import a; del a'; date", ("unchecked-line", "warning", "`python -c 'import")),
    "a semicolon of a loop": ("for i in 1 2; do python t.py $i; done", None),
    "a semicolon of a condition": ("[ -f x ] || exit 1; if python t.py; then echo ok; fi", None),
    "a semicolon after errexit": ("set -e; pip install x; python t.py", None),
    "a pipe into tee": ("python t.py 2>&1 | tee outputs/log.txt", ("unchecked-pipe", "warning", "`python t.py 2>&1`")),
    "a pipe into tee, later": (
        "set -e\ncd a && bash t.sh | tee x",
        ("unchecked-pipe", "warning", "`bash t.sh`"),
    ),
    "a pipe into tee, watched": ("set -o pipefail; python t.py | tee x", None),
    "a pipe into tee, looked at": ("python t.py | tee x; exit ${PIPESTATUS[0]}", None),
    "a pipe of what may fail": ("echo a | tee x", None),
    "a blank behind a backslash": (
        "python t.py \\ \n  --lr 0.1",
        ("line-without-backslash", "error", "line 2 of the command, `--lr 0.1`"),
    ),
    "no backslash, in the middle": (
        "python t.py\n  --lr 0.1\npython u.py",
        ("line-without-backslash", "warning", "line 2 of the command, `--lr 0.1`"),
    ),
}


@pytest.mark.parametrize("command", [command for command, found in LINES.values() if found])
def test_a_finding_about_a_line_says_what_to_write(command: str) -> None:
    [finding] = [one for one in Job(command=command).plan().findings if re.search("line|pipe", one.code)]

    hints = {"unchecked-line": "set -e", "unchecked-pipe": "set -o pipefail"}
    assert hints.get(finding.code, "blank after the `\\`" if "\\ " in command else " \\`") in str(finding.hint)
    assert finding.where == "command"


@pytest.mark.parametrize("case", LINES)
def test_lines_of_a_command_that_bash_takes_otherwise_than_they_look(case: str) -> None:
    command, expected = LINES[case]
    found = Job(command=command, environment=ENVIRONMENT).plan().findings

    assert [(f.code, f.level) for f in found] == ([expected[:2]] if expected else [])
    assert not expected or expected[2] in found[0].message


INSTALLS = {
    "pip install -r requirements.txt && python t.py": "`pip install -r requirements.txt`",
    "python3.11 -m pip install -q x; python t.py": "`python3.11 -m pip install -q x`",
    "sudo -E apt-get install -y libgl1 && python t.py": "apt-get install -y libgl1`",
    "bash -c 'uv pip install x' && python t.py": "`uv pip install x`",
    "conda install -y x && python t.py": "`conda install -y x`",
    "git clone https://host/x.git && python x/t.py": "new only to the first one",
    "git -C /tmp clone --depth 1 https://host/x.git": "new only to the first one",
    "apt-get -o Acquire::Retries=3 install -y x": "apt-get",
    "(cd a && /opt/venv/bin/pip3.11 install .) > log.txt 2>&1 || true": "/opt/venv/bin/pip3.11 install .",
    "uv sync && python t.py": "`uv sync`",
    "pip install --dry-run x && python t.py": None,
    '[ "$OMPI_COMM_WORLD_LOCAL_RANK" = 0 ] && pip install x; python t.py': None,
    "flock /tmp/lock pip install x && python t.py": None,
    "if [ $LOCAL_RANK = 0 ]; then pip install x; touch /tmp/up; fi; until [ -e /tmp/up ]; do sleep 1; done": None,
    "pip install --target /tmp/$RANK x && python t.py": None,
    "pip list && python t.py install": None,
    "echo pip install x && python t.py": None,
}


@pytest.mark.parametrize("command", INSTALLS)
def test_what_all_processes_of_a_node_install_at_the_same_time_is_pointed_out(command: str) -> None:
    each = Job(command=command, environment=ENVIRONMENT, distribution=PyTorch(process_count_per_node=4))
    found = [one.message for one in each.plan().findings if one.code == "installed-by-every-rank"]

    assert len(found) == (INSTALLS[command] is not None)
    assert not found or (INSTALLS[command] or "") in found[0]
    for other in (TensorFlow(worker_count=1), None):
        one = Job(command=command, environment=ENVIRONMENT, distribution=other)
        assert "installed-by-every-rank" not in [finding.code for finding in one.plan().findings]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cd a && pip install . && python t.py", "pip install ."),
        ("python -m venv v && v/bin/pip install x && v/bin/python t.py", None),
        (". v/bin/activate; pip install x; python t.py", None),
        ("pip install --target=lib x && PYTHONPATH=lib python t.py", None),
        ("pip list", None),
    ],
)
def test_what_a_command_installs_where_it_runs(command: str, said: str | None) -> None:
    assert installed_by(command) == said


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "empty-input"),
        (" ", None),
        (0, None),
        (False, None),
        (Input(path="https://a.blob.core.windows.net/c/some/folder"), "folder-from-the-web"),
        (Input(path="http://x.y/z", type="mltable"), "folder-from-the-web"),
        (Input(path="https://x.y/z.csv", type="uri_file"), None),
        (Input(path="azureml://datastores/d/paths/p"), None),
        (Input(path="wasbs://c@a.blob.core.windows.net/p"), None),
    ],
)
def test_values_that_the_service_does_not_take(value: Any, code: str | None) -> None:
    found = Job(command="x", environment=ENVIRONMENT, inputs={"a": value}).plan().findings

    assert [(f.code, f.level, f.where) for f in found] == ([(code, "error", "inputs.a")] if code else [])


@pytest.mark.parametrize(
    ("kind", "files", "hint"),
    [
        ("mltable", ["a.csv"], "write `type: uri_folder` if your script reads the files itself"),
        ("mltable", ["MLTable.yml"], "there is {}/MLTable.yml"),
        ("mltable", ["MLTable"], None),
        ("mltable", ["train/MLTable", "test/MLTable"], None),
        ("mlflow_model", ["model.pkl"], "write `type: custom_model` if your script reads the files itself"),
        ("mlflow_model", ["MLmodel"], None),
        ("uri_folder", ["a.csv"], None),
        ("custom_model", ["model.pkl"], None),
    ],
)
def test_a_folder_without_the_file_of_its_type(kind: Any, files: list[str], hint: str | None, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    found = (
        Job(command="x", environment=ENVIRONMENT, inputs={"a": Input(path=str(tmp_path), type=kind)}).plan().findings
    )

    expected = [("not-as-its-type", "warning", hint.format(tmp_path))] if hint else []
    assert [(one.code, one.level, one.hint) for one in found] == expected


def test_a_table_elsewhere_is_not_looked_into() -> None:
    table = Input(path="azureml://datastores/d/paths/p", type="mltable")

    assert Job(command="x", environment=ENVIRONMENT, inputs={"a": table}).plan().findings == ()


def test_a_folder_in_blob_storage_is_named_by_the_address_that_can_be_mounted() -> None:
    data = Input(path="https://a.blob.core.windows.net/c/some/folder")
    [found] = Job(command="x", environment=ENVIRONMENT, inputs={"a": data}).plan().findings

    assert found.hint == "write `wasbs://c@a.blob.core.windows.net/some/folder`, or use a datastore"


@pytest.mark.parametrize(("size", "digits"), [(1, 1), (9, 1), (10, 1), (11, 2), (99, 2), (100, 2), (101, 3)])
def test_the_digits_of_a_log_are_those_of_the_largest_rank(size: int, digits: int) -> None:
    job = Job(command="x", node_count=size, distribution=PyTorch())

    assert job.plan().processes[0].log == f"user_logs/std_log_process_{'0' * digits}.txt"
    assert job.plan().processes[-1].log == f"user_logs/std_log_process_{size - 1}.txt"


def test_one_node_may_upload_an_output_and_two_may_not() -> None:
    outputs = {"o": Output(mode="upload")}
    one = Job(command="x", environment=ENVIRONMENT, outputs=outputs)
    two = Job(command="x", environment=ENVIRONMENT, outputs=outputs, node_count=2, distribution=PyTorch())

    assert [f.code for f in one.plan().findings] == []
    assert [f.code for f in two.plan().findings] == ["upload-from-several-nodes"]


def test_an_elastic_job_may_have_as_many_nodes_as_it_begins_with() -> None:
    Job(command="x", node_count=2, max_node_count=2, distribution=PyTorch())
    with pytest.raises(JobError, match="`max_node_count` is 1, but"):
        Job(command="x", node_count=2, max_node_count=1, distribution=PyTorch())
