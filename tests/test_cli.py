"""The command line: data on stdout, messages on stderr, exit codes, and one clear line for every mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from running import LOG, call, pytorch, run_here, write_job

from azml_dist import Job
from azml_dist.cli import cli

JOB = """\
command: echo hi $RANK
resources: {instance_count: 2}
distribution: {type: pytorch, process_count_per_instance: 2}
"""

FOR_AZURE = f"{JOB}environment: azureml:e:1\n"
SWEEP = """\
type: sweep
sampling_algorithm: random
trial: {command: "python log.py loss ${{search_space.rate}}", code: code}
search_space: {rate: {type: choice, values: [1, 2]}}
objective: {primary_metric: loss, goal: minimize}
limits: {max_total_trials: 2}
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


def _loaded(*typed: str) -> list[str]:
    """The modules that a command loads."""
    script = "import sys; from azml_dist.cli import cli; cli.main(sys.argv[1:], standalone_mode=False)\n"
    script += "print(*sys.modules, file=sys.stderr)"
    return subprocess.run([sys.executable, "-c", script, *typed], capture_output=True, text=True).stderr.split()


def test_the_list_of_commands_imports_none_of_them() -> None:
    ours = [name for name in _loaded("--help") if name.startswith("azml_dist.cli.")]

    assert sorted(ours) == [f"azml_dist.cli.{name}" for name in ("base", "output", "sections")]


def test_a_plan_loads_neither_runs_nor_verdicts() -> None:
    ours = [name.split(".")[1:] for name in _loaded("plan", "job.yml") if name.startswith("azml_dist.")]

    needed = {"cli", "columns", "errors", "words", "version", "show", "regular", "configured", "home", "vmsizes"}
    assert {part for part, *_ in ours} == needed | {"contents", "job", "model", "notation", "files", "plan", "runs"}
    # Every command prints on a `Screen`.
    assert [name for name in ours if name[0] == "runs"] == [["runs"], ["runs", "screen"]]


def test_a_run_that_completes_loads_nothing_that_judges_one() -> None:
    loaded = _loaded("run", "job.yml", "--launcher", "direct")

    assert "azml_dist.local.ending" in loaded
    names = (
        "local.why",
        "local.download",
        "page",
        "runs.download",
        "verdict.folder",
        "verdict.known",
        "verdict.stacks",
    )
    assert not {f"azml_dist.{name}" for name in names} & set(loaded)


def test_a_supervisor_loads_neither_faults_nor_readers_of_logs() -> None:
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    script += "import azml_dist.local.supervisor.guard; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True).stdout.split()

    assert "azml_dist.local.supervisor.supervisor" in loaded
    names = ("local.faults.engine", "local.replay", "model.fault", "runs.logs")
    assert not {*(f"azml_dist.{name}" for name in names), "ctypes", "hashlib", "pydantic"} & set(loaded)


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
    Path("job.yml").write_text(FOR_AZURE)

    ended = call("run", "job.yml", "--launcher", "direct")

    name = re.search(r"run (\S+): Completed", ended.stderr)
    assert name
    assert f"azml-dist logs {name[1]} --rank 3" in ended.stderr
    assert "azml-dist submit job.yml" in ended.stderr
    assert sorted(ended.stdout.splitlines()) == [f"[node{r // 2} rank{r}] hi {r}" for r in range(4)]


def test_what_comes_next_is_the_job_that_ran_here() -> None:
    Path("my job.yml").write_text(FOR_AZURE)

    ended = call("run", "my job.yml", "--launcher", "direct", "--set", "display_name=a  b", "--set", "node_count=1")

    expected = "azml-dist submit 'my job.yml' --set 'display_name=a  b' --set node_count=1\n"
    assert expected in ended.stderr, "on one line, so that it can be copied"


def test_if_the_job_has_findings_a_look_at_them_comes_next() -> None:
    """Azure ML needs an environment, and cannot mount that input, in place of which a folder is given here."""
    web = "{type: uri_folder, path: 'https://example.com/digits'}"
    Path("job.yml").write_text(f"command: ls ${{{{inputs.digits}}}}\ninputs: {{epochs: 1, digits: {web}}}\n")

    ended = call("run", "job.yml", "--input", "digits=.", "--input", "epochs=2")

    assert ended.stderr.splitlines()[-2:] == [
        "  plan     1 error, 1 warning to look at before you submit",
        "  next     azml-dist plan job.yml --input epochs=2",
    ]


def test_if_a_run_that_is_repeated_has_findings_a_look_at_its_own_job_comes_next() -> None:
    run = run_here(Job(command="true"))

    ended = call("rerun", run.name)

    assert ended.stderr.splitlines()[-1].split() == ["next", "azml-dist", "submit", run.name, "--dry-run"]


def test_a_value_that_a_component_needs_is_part_of_what_comes_next() -> None:
    Path("part.yml").write_text(f"type: command\nname: p\n{FOR_AZURE}inputs: {{who: {{type: string}}}}\n")

    ended = call("run", "part.yml", "--launcher", "direct", "--input", "who=a b")

    assert ended.stderr.splitlines()[-1] == "  next     azml-dist submit part.yml --input 'who=a b'"


def test_if_a_sweep_has_findings_a_look_at_them_comes_next() -> None:
    Path("sweep.yml").write_text(SWEEP)
    Path("code").mkdir()
    Path("code/log.py").write_text(LOG)

    ended = call("run", "sweep.yml", "--max-trials", "1")

    assert ended.stderr.splitlines()[-2:] == [
        "  plan     1 warning to look at before you submit",
        "  next     azml-dist plan sweep.yml",
    ]


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
    assert "other/run.json is not a valid run state" in call("status", "other").stderr


def test_a_job_in_python_is_named_by_file_and_variable() -> None:
    Path("jobs.py").write_text("from azml_dist import Job\nmine = Job(command='echo from python')\n")

    assert call("run", "jobs.py:mine").stdout == "[node0 rank0] from python\n"


def test_what_a_module_of_a_job_file_has_not_flushed_is_written(tmp_path: Path) -> None:
    (tmp_path / "notes.py").write_text("file = open('notes.txt', 'w')\nfile.write('kept')\n")
    (tmp_path / "jobs.py").write_text("import notes\nfrom azml_dist import Job\none = Job(command='true')\n")

    assert call("plan", "jobs.py:one", cwd=tmp_path).returncode == 0

    assert (tmp_path / "notes.txt").read_text() == "kept"


def test_schema_is_a_json_schema_of_job_files() -> None:
    schema = json.loads(call("schema").stdout)

    assert schema["properties"]["command"]["description"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    assert "_AZML_DIST_COMPLETE" in call("completion", shell).stdout


@pytest.mark.parametrize("command", sorted(cli.list_commands(click.Context(cli))))
def test_the_help_of_every_command_shows_an_example(command: str) -> None:
    ended = call(command, "--help")

    assert ended.returncode == 0
    assert re.search(rf"Example:\n  .*azml-dist {command}", ended.stdout)


def test_the_help_lists_every_command_once_in_a_line() -> None:
    lines = call("--help").stdout.splitlines()

    listed = [line.split()[0] for line in lines if re.match(r"  [a-z]+ {3,}\S", line)]
    assert cli.get_command(click.Context(cli), "unknown") is None  # not found in any module: all are loaded
    assert sorted(listed) == sorted(cli.commands)
    assert max(map(len, lines)) <= 80


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
    "powershell.yml": "command: x\r\n".encode("utf-16"),
    "malformed.yml": "command: [a\nb: }",
    "bomb.yml": BOMB + "command: x\n",
    "unknown.yml": "command: x\nenviroment: azureml:e@latest\n",
    "type.yml": "command: x\nresources:\n  instance_count: two\n",
    "zero.yml": "command: x\nresources:\n  instance_count: 0\n",
    "negative.yml": JOB.replace("process_count_per_instance: 2", "process_count_per_instance: -1"),
    "no_code.yml": "command: x\ncode: ./nowhere\n",
    "empty_code.yml": "command: x\ncode: ./empty\n",
    "undeclared.yml": "command: x ${{ inputs.epoch }}\ninputs: {epochs: 3}\n",
    "name.yml": "command: x\nname: a b\n",
    "no_input.yml": "command: x ${{inputs.d}}\ninputs:\n  d: {type: uri_folder, path: ./nowhere}\n",
    "given.yml": "command: x\ninputs: {tag: a, d: {type: uri_folder, path: azureml:d:1}}\n",
    "given_sweep.yml": "type: sweep\ninputs: {tag: a}\nsearch_space: {x: {type: choice, values: [1]}}\n"
    "objective: {goal: minimize, primary_metric: m}\nlimits: {max_total_trials: 1}\nsampling_algorithm: grid\n"
    "trial: {command: 'x ${{search_space.x}}', environment: 'azureml:e:1'}\n",
    "raises.py": "x = 1\nraise ValueError('boom')\n",
    "other.py": "from azml_dist import Job\nmine = Job(command='x')\n",
}
MISTAKES = {
    "run nowhere.yml": "there is no file nowhere.yml\nhint: `azml-dist plan FOLDER` lists the job files in a folder",
    "plan empty": "no job file in empty",
    "plan nothing.yml": "nothing.yml: it is empty",
    "plan binary.yml": "binary.yml is a binary file",
    "plan powershell.yml": "powershell.yml is UTF-16, as PowerShell's `>` writes it\nhint: save it as UTF-8",
    "plan latin.yml": "latin.yml:1: byte 0xe9 is not UTF-8",
    "plan malformed.yml": "malformed.yml:2: it is not valid YAML",
    "plan bomb.yml": "bomb.yml: the aliases multiply",
    "run unknown.yml": "unknown.yml:2: enviroment: unknown field `enviroment`\nhint: did you mean `environment`?",
    "run type.yml": "type.yml:3: resources.instance_count: 'two' is not a whole number",
    "run zero.yml": "zero.yml:3: resources.instance_count: 0 is too small",
    "run negative.yml": "negative.yml:3: distribution.process_count_per_instance: -1 is too small",
    "run no_code.yml": "no_code.yml:2: code: there is no code folder",
    "run empty_code.yml": "is empty",
    "plan undeclared.yml": "undeclared.yml:1: command: `${{ inputs.epoch }}` in the command: there is no input `epoch`",
    "plan name.yml": "name.yml:2: name: 'a b' is not valid",
    "run no_input.yml": "no_input.yml:3: inputs.d.path: there is no file or folder",
    "submit empty": "empty is a folder, not a job file",
    "init zz9.py": "zz9.py does not exist\nhint: name the Python script",
    "run job.yml --set nope=1": "--set: unknown field `nope`",
    "run job.yml --set node_count": "--set: 'node_count' is not FIELD=VALUE",
    "run job.yml --set node_count=x": "--set node_count: 'x' is not a whole number",
    "run job.yml --input data=here": "the job has no input `data`",
    "run job.yml --input data": "--input 'data' is not NAME=PATH",
    "run job.yml --input =data": "--input '=data' is not NAME=PATH",
    "run job.yml --input data=": "the job has no input `data`",
    "plan given.yml --input d=": "`--input d=` gives no path\nhint: write `--input d=PATH`",
    "run given.yml --input tag=": "`--input tag=` gives no value, and Azure ML rejects empty values\nhint: write",
    "submit given_sweep.yml --input tag=": "`--input tag=` gives no value",
    "run job.yml --timeout 0": "`timeout` must be greater than 0",
    "run job.yml --launcher mpirun": "'mpirun' is not one of 'torchrun', 'direct'",
    "run job.yml --python nowhere": "no Python at nowhere",
    "run other.py": "other.py: which job in this file?",
    "run other.py:min": "other.py has no `min`",
    "run raises.py:mine": "raises.py:2: it fails when loaded: ValueError: boom",
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


@pytest.mark.slow
def test_a_login_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARM_SUBSCRIPTION", "ARM_RESOURCEGROUP", "ARM_WORKSPACE_NAME"):
        monkeypatch.setenv(f"AZUREML_{name}", "5ca1ab1e-0000-4000-8000-000000000001")
    for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"):
        monkeypatch.setenv(f"AZURE_{name}", "7e4a47e4-0000-4000-8000-000000000002")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

    ended = call("status", "nowhere")

    assert ended.returncode == 2
    assert re.fullmatch(r"error: cannot log in .*\nhint: .*HTTPS_PROXY.*\n", ended.stderr), ended.stderr


def test_a_name_that_was_nearly_right_is_offered() -> None:
    run_here(pytorch("true", name="digits-run"), launcher="direct")

    assert "hint: did you mean `digits-run`?" in call("logs", "digit-run").stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["wait", "logs --follow"])
def test_who_waits_for_a_run_is_told_why_it_failed(command: str) -> None:
    name = run_here(pytorch("exit 3"), launcher="direct").name

    ended = call(*command.split(), name)

    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: run {name} failed: rank 0 failed with exit code 3\n\nrun {name}: Failed")


def test_an_output_that_is_read_in_part_is_no_error(tmp_path: Path) -> None:
    job = write_job(tmp_path, "yes")
    command = f"{sys.executable} -m azml_dist.cli run {job} --launcher direct | head -2"

    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)

    assert ended.stdout == "[node0 rank0] y\n" * 2
    assert "Traceback" not in ended.stderr
    [run] = json.loads(call("list", "--json").stdout)["runs"]
    assert run["status"] == "Canceled"
    assert ended.stderr.count("was cancelled because the reader of its output has closed the pipe") == 1


INTERRUPTED_IMPORT = """
import sys
class Interrupts:
    def find_spec(name, *_):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts)
from azml_dist.cli import main
main()
"""


@pytest.mark.slow
def test_ctrl_c_before_a_command_has_begun_is_no_traceback() -> None:
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")


def test_the_help_of_run_and_rerun_lists_each_option_once_in_sections() -> None:
    for name in ("run", "rerun"):
        command = cli.get_command(click.Context(cli), name)
        assert command
        shown = call(name, "--help").stdout
        options = [one for one in command.params if isinstance(one, click.Option)]
        for option in options:
            assert (
                len(re.findall(rf"^  (?:-\w, |--[\w-]+[ /,]+)*{option.opts[-1]}(?![\w-])", shown, re.MULTILINE)) == 1
            ), option.opts
        assert [line for line in shown.splitlines() if line in ("Options:", "Rehearse a failure:")] == [
            "Rehearse a failure:"
        ]


@pytest.mark.slow
@pytest.mark.parametrize(("argv", "code"), [("plan {} --json", 0), ("list", 0), ("run {} --launcher direct", 1)])
def test_a_command_has_done_its_work_though_nobody_reads_all_of_it(argv: str, code: int, tmp_path: Path) -> None:
    job = write_job(tmp_path, "yes")
    readable, written = os.pipe()
    os.close(readable)
    command = [sys.executable, "-m", "azml_dist.cli", *argv.format(job).split()]

    ended = subprocess.run(command, stdout=written, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(written)

    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr


def _dedent(text: str) -> str:
    return textwrap.dedent(text)
