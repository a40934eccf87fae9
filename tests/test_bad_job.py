"""Bad job files: each ends in one clear `JobError` with file and line, and never in a traceback or a hang."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import CLI

from azml_dist.cli.argument import lines_of, load_any
from azml_dist.errors import JobError
from azml_dist.job import Environment, Job
from azml_dist.pipeline import Pipeline
from azml_dist.sweep import Sweep
from azml_dist.words import found_instead, similar_file


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(text: str | bytes, ref: str = "job.yml") -> str:
    """The error's whole text, for a file with this content."""
    path = Path(ref.partition(":")[0])
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(JobError) as error:
        Job.load(ref)
    assert error.value.__cause__ is None, "the parser's own words would be shown"
    return str(error.value)


def plan_of_file(*settings: str) -> object:
    job = load_any("job.yml").with_set(*settings)
    with lines_of("job.yml"):
        return job.plan()


def unplanned(*settings: str) -> tuple[str, str]:
    """Why `job.yml` cannot be planned, and the hint; the current folder is `HERE`."""
    with pytest.raises(JobError) as error:
        plan_of_file(*settings)
    [problem] = error.value.problems
    message, hint = str(problem), str(problem.hint)
    return message.replace(str(Path.cwd()), "HERE"), hint.replace(str(Path.cwd()), "HERE")


def bomb() -> str:
    levels = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    return "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(levels)


def chain(length: int) -> str:
    """Lists in lists by aliases, none of them nested in the text."""
    links = [f"a{i}: &a{i} [[*a{i - 1}]]" for i in range(1, length)]
    return "\n".join(["command: x", "a0: &a0 [x]", *links])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "job.yml: it is empty"),
        ("# nothing\n", "job.yml: it is empty"),
        (b"\x7fELF\x00\x01", "binary"),
        ("command: \xe9\n".encode("latin-1"), "job.yml:1: byte 0xe9 is not UTF-8"),
        ("command: a: b\n", "job.yml:1: it is not valid YAML"),
        ("command: a: b\n", "hint: a string that contains `: ` needs quotes; also check the indentation"),
        ("command: x\na: " + "[" * 33 + "]" * 33, "unknown field `a`"),
        ("command: x\ninputs:\n\ta: 1\n", "YAML indents with spaces"),
        ('command: "x\n', "job.yml:2: it is not valid YAML: while scanning a quoted scalar"),
        ("command: x\n---\ncommand: y\n", "job.yml:2: it is not valid YAML: expected a single document"),
        ("- command: x\n", "job.yml:1: it contains a list"),
        ("just text\n", "job.yml:1: it contains a single value"),
        (chain(80), "job.yml: the values are nested too deeply"),
        (bomb(), "the aliases multiply to more than 100,000 values"),
        ("command: x\ntags: &t\n  a: *t\n", "job.yml:2: tags.a: an alias is inside the value that it refers to"),
        ("command: x\na: " + "[" * 100_000, "job.yml:2: the values are nested too deeply"),
        ("command: *nothing\n", "undefined alias"),
        ("command: " + "x" * 5_000_000, "too large"),
        ("command: !!python/object:os.system x\n", "job.yml:1: command: the tag !!python/object:os.system"),
        (
            "command: x\ncompute: a\ncompute: b\n",
            "job.yml:3: compute: `compute` appears twice; the first one is on line 2",
        ),
    ],
)
def test_a_file_that_holds_no_job_is_refused(text: str | bytes, words: str) -> None:
    assert words in refused(text)


def test_as_many_values_as_are_allowed_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azml_dist.notation.document.MAX_VALUES", 4)
    Path("job.yml").write_text("command: x\ntags: {a: b}\n")
    assert Job.load("job.yml").tags == {"a": "b"}
    monkeypatch.setattr("azml_dist.notation.document.MAX_VALUES", 3)
    with pytest.raises(JobError, match="the aliases multiply to more than 3 values"):
        Job.load("job.yml")


def test_a_missing_file_names_the_one_that_was_meant() -> None:
    Path("job.yml").write_text("command: x")
    with pytest.raises(JobError) as error:
        Job.load("jbo.yml")

    assert str(error.value) == "there is no file jbo.yml\n\nhint: there is job.yml"


def test_where_no_file_is_like_the_missing_one_the_way_to_a_list_is_told() -> None:
    with pytest.raises(JobError) as error:
        Job.load("nowhere.yml")
    assert error.value.hint == "`azml-dist plan FOLDER` lists the job files in a folder"
    with pytest.raises(JobError) as error:
        Environment.load("nowhere.yml")
    assert error.value.hint == f"{Path.cwd()} is empty"


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        ("environment: env/e.yml", "environment: 'env/e.yml' is not", "for a file, write `file:env/e.yml`"),
        (
            "environment: env/f.yml",
            "environment: 'env/f.yml' is not a reference",
            "for a file, write `file:env/f.yml`; there is no file HERE/env/f.yml: HERE/env has conda.yaml, e.yml",
        ),
        ("environment: file:env/cond.yml", "environment: there is no file", "there is HERE/env/conda.yaml"),
        (
            "environment: {image: x, conda_file: env/conda.yml}",
            "environment.conda_file: there is no file",
            "there is HERE/env/conda.yaml",
        ),
        ("environment: {image: x, conda_file: env}", "environment.conda_file: HERE/env is a folder", "name a file"),
        ("environment: {build: {path: evn}}", "environment.build.path: there is no folder", "there is HERE/env"),
        ("code: cod", "code: there is no code folder HERE/cod", "there is HERE/code"),
        ("inputs: {d: {path: cdoe}}", "inputs.d.path: there is no file or folder HERE/cdoe", "there is HERE/code"),
        (
            "inputs: {d: {path: nowhere/at/all}}",
            "inputs.d.path: there is no file or folder",
            "there is no folder HERE/nowhere either; HERE has code, env, job.yml",
        ),
        ("inputs: {d: {path: job.yml/x}}", "inputs.d.path: there is no", "there is no folder HERE/job.yml either; "),
    ],
)
def test_what_is_missing_is_named_with_its_field_and_with_what_there_is(fields: str, message: str, hint: str) -> None:
    for name in ("code/train.py", "env/e.yml", "env/conda.yaml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("image: x")
    Path("job.yml").write_text(f"command: x\n{fields}\n")

    problem, told = unplanned()

    assert problem.startswith(f"job.yml:2: {message}")
    assert told.startswith(hint)


def test_a_file_of_another_kind_is_not_what_was_meant() -> None:
    """`nope.yml` is as much like `comp.yml` as `jbo.yml` is like `job.yml`, if the suffix counts."""
    Path("comp.yml").write_text("command: x")

    assert similar_file("nope.yml") is None
    assert similar_file("cmop.yml") == "there is comp.yml"
    assert similar_file("comp.yaml") == "there is comp.yml"


def test_of_many_files_a_few_are_named() -> None:
    for name in "bacdefg":
        Path(name).write_text("")

    assert (
        found_instead("x/y") == f"there is no folder {Path.cwd()}/x either; {Path.cwd()} has a, b, c, d, e and 2 more"
    )


def test_a_component_that_is_missing_is_named_with_what_there_is() -> None:
    Path("train.yml").write_text("command: x")
    Path("parts").mkdir()
    for written, problem, hint in (
        ("trian.yml", "there is no file HERE/trian.yml", "there is HERE/train.yml"),
        ("parts", "HERE/parts is a folder, not a component file", "name the YAML file of a component"),
    ):
        Path("job.yml").write_text(f"type: pipeline\ncompute: azureml:c\njobs:\n  a: {{component: ./{written}}}\n")

        assert unplanned() == (f"job.yml:4: jobs.a.component: {problem}", hint)


def test_the_file_of_an_environment_can_be_set() -> None:
    Path("e.yml").write_text("image: one\n")
    Path("job.yml").write_text("command: x\nenvironment: azureml:e:1\n")

    assert Job.load("job.yml").with_set("environment=file:e.yml").environment == Environment(image="one")
    for text, problem, hint in (
        ("file:f.yml", "there is no file HERE/f.yml", "HERE has e.yml, job.yml"),
        ("e.yml", "'e.yml' is not a reference to an environment", "for a file, write `file:e.yml`"),
    ):
        assert unplanned(f"environment={text}") == (f"--set environment: {problem}", hint)


def test_a_file_in_place_of_an_environment_is_to_be_loaded() -> None:
    with pytest.raises(JobError, match=r"hint: load the file: `Environment\.load\(path\)`"):
        Job(command="x", environment="env/e.yml")


def test_a_folder_names_the_files_in_it() -> None:
    Path("jobs").mkdir()
    Path("jobs/a.yml").write_text("command: x")
    with pytest.raises(JobError) as error:
        Job.load("jobs")

    assert str(error.value) == "jobs is a folder, not a job file\n\nhint: it contains a.yml"


@pytest.mark.parametrize("read", [Job.load, Sweep.load, Pipeline.load, Environment.load])
def test_a_file_without_an_end_is_not_waited_for(read: Callable[[str], object]) -> None:
    os.mkfifo("pipe.yml")
    Path("zero.yml").symlink_to("/dev/zero")

    for name, what in (("pipe.yml", "named pipe"), ("zero.yml", "device")):
        with pytest.raises(JobError, match=f"^{name} is a {what}, not a") as error:
            read(name)
        assert error.value.hint == "write it to a file"


def test_a_component_or_environment_without_an_end_is_not_waited_for() -> None:
    os.mkfifo("pipe.yml")
    assert "job.yml:2: environment: " in refused("command: x\nenvironment: file:pipe.yml\n")
    Path("job.yml").write_text("type: pipeline\njobs: {a: {component: ./pipe.yml}}\n")
    with pytest.raises(JobError, match=r"pipe\.yml is a named pipe, not a component file"):
        Pipeline.load("job.yml")


def test_a_job_may_come_through_a_pipe_of_the_shell() -> None:
    said = subprocess.run([*CLI, "plan", "/dev/stdin"], input="command: echo hi\n", capture_output=True, text=True)
    assert "command  echo hi" in said.stdout


@pytest.mark.parametrize(
    "opening", ["${{", "${{inputs.", "{inputs.", "$[[", "[a ", "${{search_space.", "${{ a" + " " * 100]
)
def test_no_command_takes_for_ever(opening: str) -> None:
    """What begins and never ends, many times: each was once looked at from every other."""
    text = "command: '" + opening * (130_000 // len(opening)) + "'\ninputs: {a: 1}\n"
    sweep = "type: sweep\nsearch_space: {b: {type: choice, values: [1]}}\nlimits: {max_total_trials: 1}\n"
    sweep += f"objective: {{primary_metric: x, goal: minimize}}\ntrial: {{{text.splitlines()[0]}}}\n"
    for name, written in (("job.yml", text), ("component.yml", "version: 1\n" + text), ("sweep.yml", sweep)):
        Path(name).write_text(written)
        with interrupted_after(60), contextlib.suppress(JobError):
            load_any(name).plan()


@contextlib.contextmanager
def interrupted_after(seconds: int) -> Iterator[None]:
    """Fails if the block takes so long: a hundred times of what it takes, and less than what it once took."""

    def fail(*_: object) -> None:
        raise AssertionError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["a" * 500, "a\0b"])
def test_a_name_that_no_file_has_is_refused(name: str) -> None:
    with pytest.raises(JobError, match="cannot be read"):
        Job.load(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inputz: {}", "job.yml:2: inputz: unknown field `inputz`\n\nhint: did you mean `inputs`?"),
        (
            "node_count: 2",
            "job.yml:2: node_count: unknown field `node_count`\n\nhint: in YAML it is `resources.instance_count`",
        ),
        ("instance_count: 2", "hint: in YAML it is `resources.instance_count`"),
        ("resources:\n  instance_cont: 2", "job.yml:3: resources.instance_cont: unknown field"),
        ("limits:\n  tmeout: 2", "did you mean `timeout`?"),
        ("distribution:\n  type: pytorch\n  process_count: 2", "job.yml:4: distribution.process_count: unknown field"),
        ("distribution:\n  type: pytorch\n  process_count: 2", "did you mean `process_count_per_instance`?"),
        ("distribution: {type: pytorc}", "did you mean `pytorch`?"),
        ("distribution: {}", "`type` of the distribution is missing"),
        ("resources:\n  instance_count: 0", "job.yml:3: resources.instance_count: 0 is too small"),
        ("resources:\n  instance_count: -2", "-2 is too small; the minimum is 1"),
        ("resources:\n  instance_count: two", "'two' is not a whole number"),
        ("resources:\n  instance_count: 2.5", "2.5 is not a whole number"),
        ("resources: 5", "job.yml:2: resources: 5 is not a mapping"),
        ("resources:\n  instance_count: 2", "job.yml:3: resources.instance_count: 2 nodes without a distribution"),
        ("limits:\n  timeout: 0", "job.yml:3: limits.timeout: 0 is too small"),
        (
            "distribution:\n  type: mpi\n  process_count_per_instance: 0",
            "job.yml:4: distribution.process_count_per_instance",
        ),
        ("name: 5", 'job.yml:2: name: 5 is not a string\n\nhint: put it in quotes: "5"'),
        ("name: a b", "job.yml:2: name: 'a b' is not valid"),
        ("tags: x", "job.yml:2: tags: 'x' is not a mapping"),
        ("inputs: [a]", "job.yml:2: inputs: ['a'] is not a mapping"),
        ("inputs:\n  a-b: 1", "job.yml:3: inputs.a-b: 'a-b' is not valid"),
        (
            "inputs:\n  a:",
            "job.yml:3: inputs.a: it has no value\n\nhint: set one: Azure ML also refuses an empty string",
        ),
        ("type: comand", "job.yml:2: type: 'comand' is not a type of job\n\nhint: did you mean `command`?"),
        ("type: pipelne", "hint: did you mean `pipeline`?"),
        ("type: x", "hint: leave `type` out"),
        ("inputs:\n  a: 2020-01-01", 'put it in quotes: "2020-01-01"'),
        ("inputs:\n  a: 2020-13-45", "month must be in 1..12"),
        ("inputs:\n  a: .nan", "azure-ai-ml does not accept nan as a number"),
        ("inputs:\n  a: {path: 'azureml:d'}", "job.yml:3: inputs.a: 'azureml:d' has no version"),
        ("inputs:\n  a: {path: d, typ: uri_file}", "did you mean `type`?"),
        ("outputs:\n  a: {mode: ro_mount}", "did you mean `rw_mount`?"),
        ("outputs:\n  a: {version: 1}", "a `version` needs the `name`"),
        ("code: git+https://github.com/x/y", "job.yml:2: code"),
        ("environment: pytorch", "`azureml:NAME@latest`"),
        ("environment: {conda_file: c.yml}", "needs an `image` or a `build`"),
        ("environment: file:nope.yml", "job.yml:2: environment: there is no file"),
        ("environment: {image: x, dependencies: []}", "this is a conda file"),
        ("environment_variables: {A B: x}", "'A B' is not valid"),
        ("services:\n  a: {type: jupyter}", "did you mean `jupyter_lab`?"),
        ("queue_settings:\n  job_tier: spt", "job.yml:3: queue_settings.job_tier: 'spt' is not one of"),
        ("identity: {type: me}", "managed, user_identity, aml_token"),
        ("resources:\n  shm_size: 16gb", "such as `16g`"),
        ("? [a]\n: b", "a key must be a single value"),
        (
            "identity: {type: managed, msi_resource_id: x}",
            "job.yml:2: identity.msi_resource_id: azure-ai-ml does not accept `msi_resource_id` in YAML",
        ),
        (
            "environment:\n  build: {path: 'file:ctx'}",
            "job.yml:3: environment.build.path: 'file:ctx': azure-ai-ml does not accept `file:` here",
        ),
        (
            "environment:\n  image: x\n  conda_file: file://c.yml",
            "job.yml:4: environment.conda_file: 'file://c.yml': azure-ai-ml does not accept `file:` here",
        ),
        ("inputs:\n  a:\n    type: uri_file\n    pth: x", "job.yml:5: inputs.a.pth: unknown field `pth`"),
        ("inputs:\n  a: {type: uri_file}", "job.yml:3: inputs.a.path"),
        ("environment:\n  image: x\n  build: {path: }", "job.yml:4: environment.build.path: it has no value"),
        ("queue_settings: {job_tier: }", "job.yml:2: queue_settings.job_tier: it has no value"),
        ("code: azureml:x", "job.yml:2: code: 'azureml:x' has no version\n\nhint: write `azureml:x@latest`"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_line(text: str, words: str) -> None:
    said = refused(f"command: x\n{text}\n")
    assert words in said
    assert re.match(r"job\.yml:[2-4]: (\w*)", said)[1] in (*re.findall(r"^\w+", text), "it", "a")  # type: ignore[index]


@pytest.mark.parametrize("kind", ["sweep", "pipeline", "component", "spark"])
def test_another_kind_of_job_is_named(kind: str) -> None:
    said = refused(f"type: {kind}\njobs: {{}}\n")
    reader = {"sweep": "`Sweep.load` reads it", "pipeline": "`Pipeline.load` reads it"}
    assert "azml_dist runs command jobs" in said
    assert said.endswith(f"hint: {reader.get(kind, 'azml_dist runs command jobs, sweeps and pipelines')}")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name: e\nimage: python:3.11\n", "an environment"),
        ("name: e\ndependencies: [pip]\n", "a conda file"),
        ("$schema: https://x/data.schema.json\npath: x\n", "a data asset"),
        ("type: uri_folder\npath: x\n", "a data asset"),
        ("type: custom_model\npath: x\n", "a model"),
        ("name: c\ntype: amlcompute\nsize: x\n", "a compute"),
        ("$schema: https://x/managedOnlineDeployment.schema.json\nname: d\n", "a deployment"),
        ("$schema: https://x/modelBatchDeployment.schema.json\ntype: pipeline\nname: d\n", "a deployment"),
        ("name: d\nendpoint_name: e\nmodel: azureml:m:1\n", "a deployment"),
        ("$schema: https://x/managedOnlineEndpoint.schema.json\nname: d\n", "an endpoint"),
        ("$schema: https://x/commandComponent.schema.json\ntype: parallel\ntask: {}\n", "a parallel component"),
        ("$schema: https://x/parallelComponent.schema.json\nname: x\n", "a parallel component"),
        ("$schema: https://components/data.schema.json\ntype: pipeline\nname: x\n", "a data asset"),
        ("$schema: https://x/latest/SweepComponent.json\ntype: sweep_component\n", "a sweep component"),
        ("type: Spark_Component\nversion: 1\n", "a Spark component"),
        ("type: azure_file\nname: x\n", "a datastore"),
        ("name: s\ntrigger: {}\n", "a schedule"),
        ("$schema: https://x/pipelineComponent.schema.json\ntype: pipeline\njobs: {}\n", "a pipeline component"),
        ("type: pipeline\nversion: 1\njobs: {a: {}}\n", "a pipeline component"),
        ("type: pipeline_component\n", "a pipeline component"),
    ],
)
def test_a_file_of_another_kind_is_said_to_be_that(text: str, what: str) -> None:
    Path("job.yml").write_text(text)
    for read in (Job.load, load_any):
        with pytest.raises(JobError, match=f"this is {what}, not a job") as error:
            read("job.yml")
        field = next((name for name in ("type", "$schema") if f"{name}:" in text), None)
        assert (error.value.problems[0].where or "").partition(": ")[2] == (field or "")


def test_an_environment_file_is_not_a_job() -> None:
    text = "$schema: https://azuremlschemas.azureedge.net/latest/environment.schema.json\nname: e\nimage: x\n"
    assert "this is an environment, not a job" in refused(text)


def test_a_setting_of_a_service_may_be_nothing() -> None:
    Path("job.yml").write_text("command: x\nservices: {a: {type: ssh, properties: {n: null, s: x}}}\n")
    assert Job.load("job.yml").services["a"].properties == {"n": None, "s": "x"}


def test_a_missing_command_is_said() -> None:
    assert refused("compute: x\n") == "job.yml:1: command: `command` is missing"


def test_an_undeclared_expression_has_the_commands_line() -> None:
    text = "inputs: {epochs: 3}\ncommand: python t.py ${{ inputs.epoch }}\n"
    assert refused(text).startswith(
        "job.yml:2: command: `${{ inputs.epoch }}` in the command: there is no input `epoch`"
    )


def test_a_value_that_the_shell_tears_apart_may_be_meant_in_a_file_and_is_pointed_out() -> None:
    Path("job.yml").write_text("command: echo ${{inputs.a}}\ninputs:\n  a: b c\n")
    plan = Job.load("job.yml").plan()

    assert plan.command == "echo b c"
    assert [p.where for p in plan.findings if "would not pass" in p.message] == ["inputs.a"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = "command: x\ninputz: {}\nresources: {instance_count: 0}\nlimits: {timeout: a}\n"
    assert refused(text).count("job.yml:") == 3


SWEEP = """\
type: sweep
trial:
  command: echo ${{search_space.lr}}
  environment: azureml:e:1
  code: nowhere
search_space: {lr: {type: choice, values: [1]}}
objective: {primary_metric: m, goal: minimize}
limits: {max_total_trials: 1}
"""
PIPELINE = """\
type: pipeline
jobs:
  a:
    command: echo
    environment: azureml:e:1
    code: nowhere
"""


@pytest.mark.parametrize(
    ("text", "step", "where"),
    [
        ("command: x\ncode: nowhere\n", "", "job.yml:2: code"),
        ("command: x\nresources:\n  instance_count: 1\ncode: nowhere\n", "", "job.yml:4: code"),
        (SWEEP, "", "job.yml:5: trial.code"),
        (PIPELINE, "", "job.yml:6: jobs.a.code"),
        (PIPELINE, ":a", "job.yml:6: jobs.a.code"),
    ],
)
def test_what_only_a_plan_finds_has_its_line_too(text: str, step: str, where: str) -> None:
    Path("job.yml").write_text(text)
    with pytest.raises(JobError) as error, lines_of(f"job.yml{step}"):
        load_any(f"job.yml{step}").plan()
    assert [one.where for one in error.value.problems] == [where]


def test_a_problem_in_an_environment_file_has_that_files_line() -> None:
    Path("e.yml").write_text("name: e\nimag: x\n")
    assert "e.yml:2: imag: unknown field `imag`" in refused("command: x\nenvironment: file:e.yml\n")
    with pytest.raises(JobError, match="did you mean `image`"):
        Environment.load("e.yml")


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("from azml_dist.job import Job\njob = Job(command='x')\n", "jbo", "did you mean `job`?"),
        ("from azml_dist.job import Job\njob = Job(command='x')\n", "other", "its jobs: `f.py:job`"),
        ("job = 5\n", "job", "`job` in f.py is of type int, not a job"),
        ("def f():\n    raise ValueError('a\\nb')\nf()\n", "job", "f.py:2: it fails when loaded: ValueError: a b"),
        ("import nothing_of_this_name\n", "job", "f.py:1: it fails when loaded: ModuleNotFoundError"),
        ("import nothing_of_this_name\n", "job", f"hint: install it for {sys.executable}"),
        (
            "def __getattr__(name):\n    1 / 0\n",
            "job",
            "f.py:2: it fails when loaded: ZeroDivisionError: division by zero",
        ),
        ("1 / 0\n", "job", f"hint: `{sys.executable} f.py` shows the whole traceback"),
        ("import sys\nsys.exit(3)\n", "job", 'under `if __name__ == "__main__":`'),
        ("def f(:\n", "job", "f.py:1: it is not valid Python"),
        ("from azml_dist.job import Job\njob = Job(comand='x')\n", "job", "f.py:2: comand: unknown field `comand`"),
    ],
)
def test_a_python_file_without_that_job_is_refused(text: str, name: str, words: str) -> None:
    Path("f.py").write_text(text)
    with pytest.raises(JobError) as error:
        Job.load(f"f.py:{name}")

    assert words in str(error.value)


def test_a_python_file_needs_a_name() -> None:
    assert "`f.py:NAME`" in refused("", "f.py")


def test_a_missing_python_file_is_said() -> None:
    with pytest.raises(JobError, match=r"there is no file nope\.py"):
        Job.load("nope.py:job")
    Path("train_job.py").touch()
    with pytest.raises(JobError, match=r"hint: there is train_job\.py"):
        Job.load("train-job.py:job")


def test_pydantics_own_way_in_has_our_words_too() -> None:
    with pytest.raises(JobError, match="unknown field `node_cout`"):
        Job.model_validate({"command": "x", "node_cout": 2})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("distribution: {type: []}", "job.yml:2: distribution: [] is not a distribution that Azure ML knows"),
        ("tags: {a: !!timestamp x}", "job.yml:2: tags.a: 'x' is not a valid value: it is not of type timestamp"),
        ("tags: {a: !!int ''}", "job.yml:2: tags.a: '' is not a valid value: it is not of type int"),
        ("tags: {a: !!bool x}", "it is not of type bool"),
        ("inputs: {a: 0x" + "f" * 5000 + "}", "job.yml:2: inputs.a: a number of 5,002 digits is too long"),
        ("inputs: {a: " + "9" * 5000 + "}", "a number of 5,000 digits is too long"),
        ("resources: {instance_count: 1" + "0" * 30 + "}", "more than a trillion processes; azml_dist plans at most"),
        (
            "resources: {instance_count: 1000000000}\ndistribution: {type: pytorch}",
            "would start 1,000,000,000 processes",
        ),
        ("distribution: {type: tensorflow, worker_count: 1000000000}", "would start 1,000,000,000 processes"),
    ],
)
def test_a_value_that_yaml_knows_and_python_does_not_is_refused(text: str, words: str) -> None:
    said = refused(f"command: x\n{text}\n")
    assert words in said
    assert "hint: " in said
    assert max(map(len, said.splitlines())) < 200


@pytest.mark.parametrize("brackets", ["[" * 20_000, "{" * 20_000, "[" * 20_000 + "]" * 20_000, "{a: " * 5_000])
def test_a_setting_may_not_be_deep(brackets: str) -> None:
    with pytest.raises(JobError, match="nested too deeply"):
        Job(command="x", inputs={"a": 1}).with_set(f"inputs.a={brackets}")


@pytest.mark.parametrize("text", ["2020-13-45", "!!timestamp x", "0x" + "f" * 5000, "[", "*a", "a: b: c"])
def test_a_setting_that_yaml_cannot_read_is_a_text(text: str) -> None:
    assert Job(command="x", inputs={"a": 1}).with_set(f"inputs.a={text}").inputs["a"] == text


def test_a_file_whose_errors_cannot_speak_is_refused_all_the_same() -> None:
    Path("f.py").write_text("class E(Exception):\n    def __str__(self):\n        raise RuntimeError\nraise E\n")
    with pytest.raises(JobError, match=r"it fails when loaded: E\n"):
        Job.load("f.py:job")
