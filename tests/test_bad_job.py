"""Bad job files: each ends in one clear `JobError` with file and line, and never in a traceback or a hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from azml_dist.errors import JobError
from azml_dist.job import Environment, Job


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


def bomb() -> str:
    levels = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    return "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(levels)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "job.yml: it is empty"),
        ("# nothing\n", "job.yml: it is empty"),
        (b"\x7fELF\x00\x01", "binary"),
        ("command: \xe9\n".encode("latin-1"), "job.yml:1: byte 0xe9 is not UTF-8"),
        ("command: a: b\n", "job.yml:1: it is not YAML"),
        ("command: x\ninputs:\n\ta: 1\n", "YAML indents with spaces"),
        ('command: "x\n', "job.yml:2: it is not YAML: while scanning a quoted scalar"),
        ("command: x\n---\ncommand: y\n", "job.yml:2: it is not YAML: expected a single document"),
        ("- command: x\n", "job.yml:1: it holds a list"),
        ("just text\n", "job.yml:1: it holds a single value"),
        (bomb(), "its aliases multiply to over 100,000 values"),
        ("command: x\ntags: &t\n  a: *t\n", "job.yml:2: tags.a: an alias stands inside the value it stands for"),
        ("command: x\na: " + "[" * 100_000, "job.yml:2: its values are nested too deeply"),
        ("command: *nothing\n", "undefined alias"),
        ("command: " + "x" * 5_000_000, "too large"),
        ("command: !!python/object:os.system x\n", "job.yml:1: command: the tag !!python/object:os.system"),
        (
            "command: x\ncompute: a\ncompute: b\n",
            "job.yml:3: compute: `compute` stands here twice; the first one is on line 2",
        ),
    ],
)
def test_a_file_that_holds_no_job_is_refused(text: str | bytes, words: str) -> None:
    assert words in refused(text)


def test_a_missing_file_names_the_one_that_was_meant() -> None:
    Path("job.yml").write_text("command: x")
    with pytest.raises(JobError) as error:
        Job.load("jbo.yml")

    assert str(error.value) == "there is no file jbo.yml\n\nhint: there is job.yml"


def test_a_folder_names_the_files_in_it() -> None:
    Path("jobs").mkdir()
    Path("jobs/a.yml").write_text("command: x")
    with pytest.raises(JobError) as error:
        Job.load("jobs")

    assert str(error.value) == "jobs is a folder, not a job file\n\nhint: it holds a.yml"


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
        ("resources:\n  instance_count: -2", "-2 is too small; at least 1 is needed"),
        ("resources:\n  instance_count: two", "'two' is not a whole number"),
        ("resources:\n  instance_count: 2.5", "2.5 is not a whole number"),
        ("resources: 5", "job.yml:2: resources: 5 is not a mapping"),
        ("resources:\n  instance_count: 2", "job.yml:3: resources.instance_count: 2 nodes without a distribution"),
        ("limits:\n  timeout: 0", "job.yml:3: limits.timeout: 0 is too small"),
        (
            "distribution:\n  type: mpi\n  process_count_per_instance: 0",
            "job.yml:4: distribution.process_count_per_instance",
        ),
        ("name: 5", 'job.yml:2: name: 5 is not text\n\nhint: put it in quotes: "5"'),
        ("name: a b", "job.yml:2: name: 'a b' is not possible"),
        ("tags: x", "job.yml:2: tags: 'x' is not a mapping"),
        ("inputs: [a]", "job.yml:2: inputs: ['a'] is not a mapping"),
        ("inputs:\n  a-b: 1", "job.yml:3: inputs.a-b: 'a-b' is not possible"),
        ("inputs:\n  a:", "job.yml:3: inputs.a: it has no value"),
        ("inputs:\n  a: 2020-01-01", 'put it in quotes: "2020-01-01"'),
        ("inputs:\n  a: 2020-13-45", "month must be in 1..12"),
        ("inputs:\n  a: .nan", "no number to azure-ai-ml"),
        ("inputs:\n  a: {path: 'azureml:d'}", "job.yml:3: inputs.a: 'azureml:d' has no version"),
        ("inputs:\n  a: {path: d, typ: uri_file}", "did you mean `type`?"),
        ("outputs:\n  a: {mode: ro_mount}", "did you mean `rw_mount`?"),
        ("outputs:\n  a: {version: 1}", "a `version` needs the `name`"),
        ("code: git+https://github.com/x/y", "job.yml:2: code"),
        ("environment: pytorch", "`azureml:NAME@latest`"),
        ("environment: {conda_file: c.yml}", "needs an `image` or a `build`"),
        ("environment: file:nope.yml", "job.yml:2: environment: there is no file"),
        ("environment: {image: x, dependencies: []}", "this is a conda file"),
        ("environment_variables: {A B: x}", "'A B' is not possible"),
        ("services:\n  a: {type: jupyter}", "did you mean `jupyter_lab`?"),
        ("queue_settings:\n  job_tier: spt", "job.yml:3: queue_settings.job_tier: 'spt' is not one of"),
        ("identity: {type: me}", "managed, user_identity, aml_token"),
        ("resources:\n  shm_size: 16gb", "as in `16g`"),
        ("? [a]\n: b", "a key is a single value"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_line(text: str, words: str) -> None:
    assert words in refused(f"command: x\n{text}\n")


@pytest.mark.parametrize("kind", ["sweep", "pipeline", "component", "spark"])
def test_another_kind_of_job_is_named(kind: str) -> None:
    assert "azml_dist runs command jobs" in refused(f"type: {kind}\njobs: {{}}\n")


def test_an_environment_file_is_not_a_job() -> None:
    text = "$schema: https://azuremlschemas.azureedge.net/latest/environment.schema.json\nname: e\nimage: x\n"
    assert "this is an environment, not a job" in refused(text)


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
    assert [p.where for p in plan.findings if "tear" in p.message] == ["inputs.a"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = "command: x\ninputz: {}\nresources: {instance_count: 0}\nlimits: {timeout: a}\n"
    assert refused(text).count("job.yml:") == 3


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
        ("job = 5\n", "job", "`job` in f.py is of type int, not a Job"),
        ("def f():\n    raise ValueError('a\\nb')\nf()\n", "job", "f.py:2: it stops while it is read: ValueError: a b"),
        ("import nothing_of_this_name\n", "job", "f.py:1: it stops while it is read: ModuleNotFoundError"),
        ("import sys\nsys.exit(3)\n", "job", 'under `if __name__ == "__main__":`'),
        ("def f(:\n", "job", "f.py:1: it is not Python"),
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


def test_pydantics_own_way_in_has_our_words_too() -> None:
    with pytest.raises(JobError, match="unknown field `node_cout`"):
        Job.model_validate({"command": "x", "node_cout": 2})
