"""The command line: data on stdout, messages on stderr, exit codes, and one clear line for every mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from running import call, pytorch, run_here, write_job

from azml_dist import Job
from azml_dist.cli import cli

JOB = """\
command: echo hi $RANK
resources: {instance_count: 2}
distribution: {type: pytorch, process_count_per_instance: 2}
"""


@pytest.fixture(autouse=True)
def in_a_folder_with_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yml").write_text(JOB)
    return tmp_path


def test_plan_shows_the_world_the_processes_and_their_environment() -> None:
    ended = call("plan", "job.yml", "--set", "distribution.process_count_per_node=4")

    assert ended.returncode == 0
    assert ended.stderr == ""
    assert ended.stdout.startswith("2 nodes x 4 processes = 8  PyTorch\n")
    assert re.search(r"^ +7 +1 +3  worker  user_logs/std_log_process_7.txt$", ended.stdout, re.M)
    assert re.search(r"^LOCAL_RANK +0 \.\.\. 3$", ended.stdout, re.M)


def test_plan_json_holds_what_the_contract_promises() -> None:
    plan = json.loads(call("plan", "job.yml", "--json").stdout)

    assert plan["world"] == {"distribution": "PyTorch", "node_count": 2, "process_count_per_node": 2, "world_size": 4}
    assert [(p["rank"], p["node_rank"], p["local_rank"]) for p in plan["processes"]] == [
        (0, 0, 0),
        (1, 0, 1),
        (2, 1, 0),
        (3, 1, 1),
    ]
    assert plan["processes"][3]["env"]["RANK"] == "3"
    assert plan["processes"][3]["log"] == "user_logs/std_log_process_3.txt"
    assert plan["command"] == "echo hi $RANK"
    assert plan["request"]["properties"]["resources"]["instanceCount"] == 2
    assert plan.keys() >= {"code", "findings"}
    assert plan["code"] | {"files": 0, "bytes": 0} == plan["code"]


def test_export_prints_yaml_that_is_the_same_job() -> None:
    ended = call("export", "job.yml", "--set", "resources.instance_count=3")
    Path("exported.yml").write_text(ended.stdout)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert Job.load("exported.yml") == Job.load("job.yml").with_(node_count=3)


def test_plan_opens_no_socket_and_imports_neither_azure_nor_torch() -> None:
    script = """
        import sys
        sys.addaudithook(lambda event, args: event.startswith("socket.") and sys.exit("socket"))
        from azml_dist.cli import cli
        cli.main(["plan", "job.yml", "--json"], standalone_mode=False)
        found = [name for name in sys.modules if name.split(".")[0] in ("azure", "torch", "mlflow", "msrest")]
        sys.exit(str(found) if found else 0)
    """
    ended = subprocess.run([sys.executable, "-c", _dedent(script)], capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_run_json_holds_what_the_contract_promises() -> None:
    ended = call("run", "job.yml", "--launcher", "direct", "--json")

    run = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert (run["status"], run["exit_code"], run["failed_rank"]) == ("Completed", 0, None)
    assert (Path(run["folder"]) / run["processes"][3]["log"]).read_text() == "hi 3\n"
    assert [(p["rank"], p["exit_code"], p["signal"]) for p in run["processes"]] == [(r, 0, None) for r in range(4)]


def test_a_run_that_fails_exits_with_1_and_names_the_rank() -> None:
    (Path("fails.yml")).write_text(JOB.replace("echo hi $RANK", "exit $((RANK == 2 ? 7:0))"))

    ended = call("run", "fails.yml", "--launcher", "direct", "--json")

    run = json.loads(ended.stdout)
    assert ended.returncode == 1
    assert (run["status"], run["exit_code"], run["failed_rank"]) == ("Failed", 7, 2)
    assert "error: rank 2 failed with exit code 7" in ended.stderr


def test_a_run_ends_by_saying_where_everything_is_and_what_comes_next() -> None:
    ended = call("run", "job.yml", "--launcher", "direct")

    name = re.search(r"run (\S+): Completed", ended.stderr)
    assert name
    assert f"azml-dist logs {name[1]} --rank 3" in ended.stderr
    assert "azml-dist submit job.yml" in ended.stderr
    assert sorted(ended.stdout.splitlines()) == [f"[node{r // 2} rank{r}] hi {r}" for r in range(4)]


def test_status_list_and_download_know_the_run(tmp_path: Path) -> None:
    run = run_here(pytorch("echo hi"), launcher="direct")

    assert json.loads(call("status", run.name, "--json").stdout)["status"] == "Completed"
    assert "exit code 0" in call("status", run.name).stdout
    assert run.name in call("list").stdout
    assert [r["name"] for r in json.loads(call("list", "--json").stdout)["runs"]] == [run.name]
    assert json.loads(call("download", run.name, "--to", "got", "--json").stdout)["folder"] == str(tmp_path / "got")
    assert (tmp_path / "got/user_logs/std_log_process_0.txt").read_text() == "hi\n"


def test_a_file_of_another_tool_among_the_runs_is_passed_over() -> None:
    run = run_here(pytorch("true"), launcher="direct")
    for name, text in (("other", '{"status": "fine"}'), ("broken", "{")):
        (run.folder.parent / name).mkdir()
        (run.folder.parent / name / "run.json").write_text(text)

    assert [r["name"] for r in json.loads(call("list", "--json").stdout)["runs"]] == [run.name]
    assert "other/run.json is not the state of a run" in call("status", "other").stderr


def test_a_job_in_python_is_named_by_file_and_variable() -> None:
    Path("jobs.py").write_text("from azml_dist import Job\nmine = Job(command='echo from python')\n")

    assert call("run", "jobs.py:mine").stdout == "[node0 rank0] from python\n"


def test_schema_is_a_json_schema_of_job_files() -> None:
    schema = json.loads(call("schema").stdout)

    assert schema["properties"]["command"]["description"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    assert "_AZML_DIST_COMPLETE" in call("completion", shell).stdout


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_the_help_of_every_command_shows_an_example(command: str) -> None:
    ended = call(command, "--help")

    assert ended.returncode == 0
    assert re.search(rf"Example:\n  .*azml-dist {command}", ended.stdout)


def _files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, content in BAD_FILES.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
BAD_FILES: dict[str, str | bytes] = {
    "nothing.yml": "",
    "binary.yml": bytes(range(256)),
    "latin.yml": "command: café".encode("latin-1"),
    "malformed.yml": "command: [a\nb: }",
    "bomb.yml": BOMB + "command: x\n",
    "unknown.yml": "command: x\nenviroment: azureml:e@latest\n",
    "type.yml": "command: x\nresources:\n  instance_count: two\n",
    "zero.yml": "command: x\nresources:\n  instance_count: 0\n",
    "negative.yml": JOB.replace("process_count_per_instance: 2", "process_count_per_instance: -1"),
    "no_code.yml": "command: x\ncode: ./nowhere\n",
    "empty_code.yml": "command: x\ncode: ./empty\n",
    "file_code.yml": "command: x\ncode: ./nothing.yml\n",
    "undeclared.yml": "command: x ${{ inputs.epoch }}\ninputs: {epochs: 3}\n",
    "name.yml": "command: x\nname: a b\n",
    "no_input.yml": "command: x ${{inputs.d}}\ninputs:\n  d: {type: uri_folder, path: ./nowhere}\n",
    "raises.py": "x = 1\nraise ValueError('boom')\n",
    "other.py": "from azml_dist import Job\nmine = Job(command='x')\n",
}
MISTAKES = {
    "run nowhere.yml": "there is no file nowhere.yml",
    "plan empty": "empty is a folder",
    "plan nothing.yml": "nothing.yml: it is empty",
    "plan binary.yml": "binary.yml is a binary file",
    "plan latin.yml": "latin.yml:1: byte 0xe9 is not UTF-8",
    "plan malformed.yml": "malformed.yml:2: it is not YAML",
    "plan bomb.yml": "bomb.yml: its aliases multiply",
    "run unknown.yml": "unknown.yml:2: enviroment: unknown field `enviroment`\nhint: did you mean `environment`?",
    "run type.yml": "type.yml:3: resources.instance_count: 'two' is not a whole number",
    "run zero.yml": "zero.yml:3: resources.instance_count: 0 is too small",
    "run negative.yml": "negative.yml:3: distribution.process_count_per_instance: -1 is too small",
    "run no_code.yml": "no_code.yml:2: code: there is no code folder",
    "run empty_code.yml": "is empty",
    "run file_code.yml": "is a file; Azure ML takes a folder",
    "plan undeclared.yml": "undeclared.yml:1: command: `${{ inputs.epoch }}` in the command: there is no input `epoch`",
    "plan name.yml": "name.yml:2: name: 'a b' is not possible",
    "run no_input.yml": "no_input.yml:3: inputs.d.path: there is no file or folder",
    "run job.yml --set nope=1": "--set: unknown field `nope`",
    "run job.yml --set node_count": "--set: 'node_count' is not FIELD=VALUE",
    "run job.yml --set node_count=x": "--set node_count: 'x' is not a whole number",
    "run job.yml --input data=here": "the job has no input `data`",
    "run job.yml --input data": "--input 'data' is not NAME=PATH",
    "run job.yml --timeout 0": "a timeout of 0 s is none",
    "run job.yml --launcher mpirun": "'mpirun' is not one of 'torchrun', 'direct'",
    "run job.yml --python nowhere": "there is no Python at nowhere",
    "run other.py": "other.py: which job in this file?",
    "run other.py:min": "other.py has no `min`",
    "run raises.py:mine": "raises.py:2: it stops while it is read: ValueError: boom",
    "run": "Missing argument 'JOB'",
    "rnu job.yml": "No such command 'rnu'",
    "logs nowhere": "there is no run 'nowhere'",
    "status nowhere": "there is no run 'nowhere'",
    "cancel nowhere": "there is no run 'nowhere'",
    "download nowhere": "there is no run 'nowhere'",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_one_line_with_a_hint_and_exit_code_2(typed: str, tmp_path: Path) -> None:
    _files(tmp_path)

    ended = call(*typed.split(" "))

    assert (ended.returncode, ended.stdout) == (2, "")
    assert MISTAKES[typed] in ended.stderr
    assert re.fullmatch(r"(error: .+\n(hint: .+\n)?)+", ended.stderr), ended.stderr
    assert len(ended.stderr.splitlines()) <= 2


def test_a_name_that_was_nearly_right_is_offered() -> None:
    run_here(pytorch("true", name="digits-run"), launcher="direct")

    assert "hint: did you mean digits-run?" in call("logs", "digit-run").stderr


def test_an_output_that_is_read_in_part_is_no_error(tmp_path: Path) -> None:
    job = write_job(tmp_path, "yes")
    command = f"{sys.executable} -m azml_dist.cli run {job} --launcher direct | head -2"

    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)

    assert ended.stdout == "[node0 rank0] y\n" * 2
    assert "Traceback" not in ended.stderr


def _dedent(text: str) -> str:
    return textwrap.dedent(text)
