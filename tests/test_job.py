"""The models: what a Job takes, what it refuses, and what its command becomes in a real shell."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from azml_dist.errors import JobError
from azml_dist.job import Build, Environment, Input, Job, Mpi, Output, PyTorch, Queue, Ray, Ssh, TensorFlow
from azml_dist.model.given import own_variables
from azml_dist.plan.rules import file_problems

ARGV = ["python", "-c", "import sys; print('\\0'.join(sys.argv[1:]), end='')"]


def arguments(job: Job) -> list[str]:
    """What the job's command passes on, run by bash after its literals are replaced as the service does it."""
    command = re.sub(r"\$\{\{\s*inputs\.(\w+)\s*\}\}", lambda m: job.literal(m[1]), job.shell_command)
    done = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True)
    return done.stdout.split("\0")


def problem(error: pytest.ExceptionInfo[JobError]) -> str:
    return "\n".join(f"{p} {p.hint or ''}" for p in error.value.problems)


@pytest.mark.parametrize(
    "element",
    ["plain", "a b", "$HOME", "`id`", "it's", 'say "x"', "a\\b", "*", "~", "", "a\nb", ";|&<>", "#no", "${x}", "!!"],
)
def test_each_element_of_a_list_arrives_as_one_argument(element: str) -> None:
    assert arguments(Job(command=[*ARGV, "first", element, "last"])) == ["first", element, "last"]


@pytest.mark.parametrize("value", ["a b", "$HOME", '"', "`id`", "a\\", "*", "", "x\ny"])
def test_a_value_in_an_element_stays_in_that_argument(value: str) -> None:
    job = Job(command=[*ARGV, "--lr=${{inputs.lr}}", "it's ${{ inputs.lr }}!"], inputs={"lr": value})

    assert arguments(job) == [f"--lr={value}", f"it's {value}!"]


def test_a_value_with_a_single_quote_is_refused_in_a_list() -> None:
    with pytest.raises(JobError, match="is in single quotes"):
        Job(command=["echo", "${{inputs.a}}"], inputs={"a": "it's"})


@pytest.mark.parametrize(
    "value", ["a b", "a;b", "a&b", "a|b", "$HOME", "a*", "it's", 'a"b', "a\nb", "", "`x`", "#x", "~"]
)
def test_a_value_that_the_shell_would_tear_apart_is_refused(value: str) -> None:
    with pytest.raises(JobError, match="the shell would not pass") as error:
        Job(command="echo ${{inputs.a}}", inputs={"a": value})

    assert error.value.problems[0].where == "inputs.a"


@pytest.mark.parametrize(
    ("quote", "value"),
    [
        ('"', "a b"),
        ('"', "it's; a *"),
        ('"', r".*\.jpg$"),
        ('"', "a\\b"),
        ("'", "a b $HOME `x` \\"),
        ("'", '"'),
        ("", "0.1"),
        ("", "/data/x-1_2:3,4@5%6+7=8"),
        ("", "a#b~"),
    ],
)
def test_a_value_that_its_quotes_protect_arrives_whole(quote: str, value: str) -> None:
    command = f"python -c \"import sys; print(sys.argv[1], end='')\" {quote}${{{{inputs.a}}}}{quote}"

    assert arguments(Job(command=command, inputs={"a": value})) == [value]


@pytest.mark.parametrize(("quote", "value"), [('"', "$HOME"), ('"', 'a"b'), ('"', "`id`"), ('"', "a\\"), ("'", "it's")])
def test_a_value_that_its_quotes_do_not_protect_is_refused(quote: str, value: str) -> None:
    with pytest.raises(JobError, match="the shell would not pass"):
        Job(command=f"echo {quote}${{{{inputs.a}}}}{quote}", inputs={"a": value})


def test_quotes_inside_a_command_substitution_count() -> None:
    Job(command='echo "$(cat "${{inputs.a}}")"', inputs={"a": "a b"})
    with pytest.raises(JobError, match="not in quotes"):
        Job(command='echo "$(cat ${{inputs.a}})"', inputs={"a": "a b"})


def test_a_backslash_protects_one_character_and_no_value() -> None:
    with pytest.raises(JobError, match="not in quotes"):
        Job(command="echo \\${{inputs.a}}", inputs={"a": "a b"})


def test_a_quote_in_a_comment_quotes_nothing() -> None:
    with pytest.raises(JobError, match="not in quotes"):
        Job(command="# it isn't quoted\necho ${{inputs.a}}", inputs={"a": "a b"})


def test_the_hint_for_a_torn_value_names_quotes_that_protect_it() -> None:
    with pytest.raises(JobError) as error:
        Job(command="echo ${{inputs.a}}", inputs={"a": "it's"})

    assert error.value.hint == 'put quotes around it in the command: "${{inputs.a}}"'


@pytest.mark.parametrize(("value", "text"), [(True, "True"), (1e-5, "1e-05"), (3, "3"), ("007", "007"), (0.10, "0.1")])
def test_a_literal_has_the_text_that_azure_ai_ml_sends(value: str | float, text: str) -> None:
    assert Job(command="x", inputs={"a": value}).literal("a") == text


@pytest.mark.parametrize("nothing", [{"node_count": 0}, {"node_count": -1}, {"timeout": 0}, {"max_node_count": 0}])
def test_counts_start_at_one(nothing: dict[str, int]) -> None:
    with pytest.raises(JobError, match="too small; the minimum is 1"):
        Job(command="x", **nothing)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, 1.5, "two"])
def test_a_count_is_a_whole_number(value: object) -> None:
    with pytest.raises(JobError, match="not a whole number"):
        Job(command="x", node_count=value)  # type: ignore[arg-type]


def test_azures_names_are_accepted() -> None:
    job = Job(command="x", instance_count=2, distribution=PyTorch(process_count_per_instance=4))  # type: ignore[call-arg]

    assert (job.node_count, job.process_count_per_node) == (2, 4)


def test_a_field_given_under_both_names_is_refused() -> None:
    with pytest.raises(JobError, match="set twice"):
        Job(command="x", node_count=1, instance_count=1)  # type: ignore[call-arg]


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(JobError) as error:
        Job(command="x", nodecount=2)  # type: ignore[call-arg]

    assert str(error.value) == "nodecount: unknown field `nodecount`\n\nhint: did you mean `node_count`?"


def test_a_problem_in_a_part_has_the_whole_path() -> None:
    with pytest.raises(JobError) as error:
        Job(command="x", distribution={"type": "pytorch", "process_count_per_instance": 0})  # type: ignore[arg-type]

    assert error.value.problems[0].where == "distribution.process_count_per_node"


def test_all_problems_are_told_together() -> None:
    with pytest.raises(JobError) as error:
        Job(command="x", node_count=0, shm_size="16gb", tags={"a": []})  # type: ignore[dict-item]

    assert [p.where for p in error.value.problems] == ["node_count", "shm_size", "tags.a"]


def test_a_job_does_not_change() -> None:
    job = Job(command="x", inputs={"a": 1})

    with pytest.raises(JobError, match="is immutable"):
        job.node_count = 2
    with pytest.raises(JobError, match="are immutable"):
        job.inputs["a"] = 2  # type: ignore[index]
    assert job == Job(command="x", inputs={"a": 1})


def test_a_variant_is_validated() -> None:
    job = Job(command="x", node_count=2, distribution=PyTorch())

    assert job.with_(node_count=3).node_count == 3
    assert job.model_copy(update={"instance_count": 4}).node_count == 4
    with pytest.raises(JobError, match="2 nodes without a distribution"):
        job.with_(distribution=None)
    with pytest.raises(JobError, match="did you mean `node_count`"):
        job.with_(node_coun=3)


def test_a_job_shows_what_was_given_and_can_be_typed_again() -> None:
    job = Job(
        command="x ${{inputs.lr}}",
        compute="gpu",
        node_count=2,
        inputs={"lr": 0.1, "data": Input(path="azureml:digits:1", mode="download")},
        distribution=PyTorch(process_count_per_node=2),
        environment_variables={"A": "b", "SECRET": None},
    )

    assert eval(repr(job)) == job
    assert "node_count=2" in repr(job)
    assert "None" not in repr(job).replace("'SECRET': None", "")


def test_a_job_can_be_pickled_and_copied() -> None:
    job = Job(command="x", inputs={"a": 1, "d": Input(path="azureml:d:1")}, services={"s": Ssh(ssh_public_keys="k")})

    assert pickle.loads(pickle.dumps(job)) == job == copy.deepcopy(job)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo ${{inputs.epoch}}", "did you mean `epochs`"),
        ("echo ${{ inputs.epoch }}", "did you mean `epochs`"),
        ("echo ${{outputs.modl}}", "did you mean `model`"),
        ("echo ${{outputs.epochs}}", "`epochs` is an input"),
        ("echo $${{inputs.epochs}}", "one `$` too many"),
        ("echo ${inputs.epochs}", "f-string"),
        ("echo {inputs.epochs}", "write `${{inputs.epochs}}`"),
        ("echo ${{search_space.lr}}", "sweep"),
        ("echo ${{parent.inputs.x}}", "pipeline"),
        ("echo ${{something}}", "has no meaning in a plain job"),
        ("echo $[[--x ${{inputs.epochs}}]]", "cannot have optional parts"),
    ],
)
def test_an_expression_that_means_nothing_is_refused(command: str, words: str) -> None:
    with pytest.raises(JobError) as error:
        Job(command=command, inputs={"epochs": 1}, outputs={"model": Output()})

    assert words in problem(error)


@pytest.mark.parametrize(
    "command", ["echo ${HOME} {a,b} $((1+2)) ${x:-y}", "awk '{print $1}'", "echo ${{ inputs.epochs }}"]
)
def test_the_shells_own_braces_are_left_alone(command: str) -> None:
    assert Job(command=command, inputs={"epochs": 1}).shell_command == command


@pytest.mark.parametrize("name", ["a-b", "1a", "a b", "", "ä"])
def test_names_of_inputs_are_those_azure_takes(name: str) -> None:
    with pytest.raises(JobError, match="letters, digits and `_`" if name else "it is empty"):
        Job(command="x", inputs={name: 1})


@pytest.mark.parametrize("field", ["name", "experiment_name"])
@pytest.mark.parametrize("name", ["a b", "-a", "a/b", "", "a" * 300, "a.b"])
def test_names_that_azure_refuses_are_refused(field: str, name: str) -> None:
    with pytest.raises(JobError, match="letters, digits, `-` and `_`" if name else "it is empty"):
        Job(command="x", **{field: name})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("distribution", "words"),
    [
        (None, "2 nodes without a distribution"),
        (TensorFlow(worker_count=3), "3 workers on 2 nodes"),
        (TensorFlow(parameter_server_count=3), "3 parameter servers on 2 nodes"),
    ],
)
def test_processes_that_do_not_fit_two_nodes_are_refused(distribution: TensorFlow | None, words: str) -> None:
    with pytest.raises(JobError, match=words):
        Job(command="x", node_count=2, distribution=distribution)


@pytest.mark.parametrize("distribution", [PyTorch(), Mpi(), TensorFlow(), TensorFlow(worker_count=2), Ray()])
def test_every_distribution_takes_two_nodes(distribution: PyTorch | Mpi | TensorFlow | Ray) -> None:
    assert Job(command="x", node_count=2, distribution=distribution).process_count_per_node == 1


@pytest.mark.parametrize(
    "command",
    [
        "torchrun train.py",
        "pip install . && torchrun --nproc-per-node 4 train.py",
        "OMP_NUM_THREADS=1 exec /opt/bin/torchrun train.py",
        "python -m torch.distributed.run train.py",
        "python3 -u -m torch.distributed.launch train.py",
        "accelerate launch train.py",
        "cd x; deepspeed train.py",
        "mpirun -np 4 python train.py",
        "if true\nthen torchrun train.py\nfi",
    ],
)
def test_a_launcher_in_each_of_several_processes_is_refused(command: str) -> None:
    with pytest.raises(JobError, match="would run in each of the 4 processes"):
        Job(command=command, distribution=PyTorch(process_count_per_node=4))


@pytest.mark.parametrize(
    "command",
    [
        "python torchrun.py",
        "echo torchrun",
        "python train.py --launcher torchrun",
        "python train.py -m torch.distributed.run",
        "echo 'a; torchrun x'",
        "accelerate config",
        "pip install deepspeed",
    ],
)
def test_the_name_of_a_launcher_elsewhere_is_no_launcher(command: str) -> None:
    Job(command=command, distribution=PyTorch(process_count_per_node=4))


def test_one_launcher_on_each_node_is_legal() -> None:
    Job(command="torchrun --nnodes 2 --node-rank $NODE_RANK train.py", node_count=2, distribution=PyTorch())
    Job(command="torchrun train.py", node_count=2, distribution=Mpi(process_count_per_node=1))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("accelerate launch --cpu --num_processes 2 train.py", "ignores `--num_processes 2`"),
        (
            "accelerate launch --num-processes=4 train.py",
            "without `--multi_gpu`, `accelerate launch` starts only one process",
        ),
        ("accelerate launch --multi_gpu --num_processes=4 train.py", None),
        ("accelerate launch --num_processes 1 train.py", None),
        ("accelerate launch train.py", None),
    ],
)
def test_processes_that_accelerate_would_not_start_are_pointed_out(command: str, words: str | None) -> None:
    findings = [str(p) for p in Job(command=command, distribution=PyTorch()).plan().findings if "accelerate" in str(p)]

    assert [words in finding for finding in findings if words] == ([True] if words else [])
    assert len(findings) == bool(words)


def test_azure_builds_the_mpirun_line_itself() -> None:
    with pytest.raises(JobError, match="`mpirun` would run"):
        Job(command="mpirun python train.py", distribution=Mpi())


@pytest.mark.parametrize("size", ["16gb", "0g", "g", "1.5g", "16 g"])
def test_shared_memory_has_a_number_and_a_unit(size: str) -> None:
    with pytest.raises(JobError, match="such as `16g`"):
        Job(command="x", shm_size=size)


@pytest.mark.parametrize(
    "reference", ["azureml:env@latest", "azureml:env:3", "azureml://registries/azureml/environments/e/labels/latest"]
)
def test_a_reference_to_an_environment_is_kept(reference: str) -> None:
    assert Job(command="x", environment=reference).environment == reference


def test_an_image_as_environment_is_refused_with_the_way_out() -> None:
    with pytest.raises(JobError) as error:
        Job(command="x", environment="mcr.microsoft.com/azureml/x:1")

    assert "Environment(image=" in problem(error)


def test_an_environment_has_an_image_or_a_build() -> None:
    with pytest.raises(JobError, match="needs an `image` or a `build`"):
        Environment(conda_file="conda.yaml")


def test_data_needs_a_version_or_a_label() -> None:
    with pytest.raises(JobError) as error:
        Input(path="azureml:cifar10")

    assert error.value.hint == "write `azureml:cifar10@latest`, or a number: `azureml:cifar10:1`"


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("data", True),
        ("/data/x", True),
        ("azureml:cifar:1", False),
        ("azureml://datastores/d/paths/x", False),
        ("https://x.y/z", False),
        ("wasbs://c@a/z", False),
    ],
)
def test_an_input_knows_whether_it_is_here(path: str, local: bool) -> None:
    assert Input(path=path).is_local is local


def test_a_variable_is_text_and_none_stays_none() -> None:
    job = Job(command="x", environment_variables={"A": 1, "B": None})  # type: ignore[dict-item]
    assert dict(job.environment_variables) == {"A": "1", "B": None}


def test_code_is_a_folder_with_files_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    (tmp_path / "file.py").write_text("")
    os.mkfifo(tmp_path / "pipe")

    jobs = [Job(command="x", code=str(tmp_path / name)) for name in ("nope", "empty", "pipe", "file.py", ".")]
    found = [[p.message for p in file_problems(job)] for job in jobs]

    assert found == [
        [f"there is no code folder {tmp_path}/nope"],
        [f"the code folder {tmp_path}/empty is empty, which azure-ai-ml refuses"],
        [f"the code {tmp_path}/pipe is a named pipe"],
        [],
        [],
    ]


def test_the_file_beside_a_local_input_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "train_images").mkdir()

    [problem] = file_problems(Job(command="x", inputs={"d": Input(path=str(tmp_path / "train-image"))}))

    assert problem.hint == f"there is {tmp_path / 'train_images'}"


def test_a_local_input_must_exist_and_be_what_its_type_says(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    job = Job(
        command="x",
        inputs={
            "gone": Input(path=str(tmp_path / "gone")),
            "file": Input(path=str(tmp_path / "a.csv")),
            "folder": Input(path=str(tmp_path), type="uri_file"),
            "good": Input(path=str(tmp_path)),
            "remote": Input(path="azureml:x:1"),
            "pipe": Input(path=str(tmp_path / "pipe"), type="uri_file"),
            "device": Input(path="/dev/zero", type="uri_file"),
        },
    )
    os.mkfifo(tmp_path / "pipe")

    found = {p.where: p.message for p in file_problems(job)}
    assert list(found) == [f"inputs.{name}.path" for name in ("gone", "file", "folder", "pipe", "device")]
    assert found["inputs.pipe.path"] == f"{tmp_path}/pipe is a named pipe; data must be a file or a folder"
    assert found["inputs.device.path"] == "/dev/zero is a device; data must be a file or a folder"


def test_files_of_an_environment_are_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "conda.yml")
    conda = Environment(image="x", conda_file=str(tmp_path / "conda.yml"))
    gone = Environment(image="x", conda_file=str(tmp_path / "gone.yml"))

    found = [p.message for each in (conda, gone) for p in file_problems(Job(command="x", environment=each))]

    assert found == [f"{tmp_path}/conda.yml is a named pipe, not a file", f"there is no file {tmp_path}/gone.yml"]


def test_a_job_is_shown_as_one_would_write_it() -> None:
    job = Job(command="x", inputs={"a": 1}, distribution=PyTorch(process_count_per_node=2), node_count=2)

    assert repr(Job(command="x")) == "Job(command='x')"
    assert (
        repr(job) == "Job(command='x', inputs={'a': 1}, node_count=2, distribution=PyTorch(process_count_per_node=2))"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"type": "pytorch", "process_count_per_node": 2}, PyTorch(process_count_per_node=2)),
        ({"type": "MPI", "process_count_per_node": 1}, Mpi(process_count_per_node=1)),
        ({"type": "TensorFlow"}, TensorFlow()),
    ],
)
def test_a_distribution_may_be_a_mapping(value: Any, expected: Any) -> None:
    assert Job(command="x", distribution=value).distribution == expected


def test_an_empty_name_is_said_to_be_empty() -> None:
    with pytest.raises(JobError) as error:
        Job(command="x", compute="")
    [problem] = error.value.problems
    assert (problem.message, problem.hint) == ("it is empty", "give it a value, or leave it out")


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ({}, "`type` of the distribution is missing", "write one of pytorch, mpi, tensorflow, ray"),
        (
            "MPI",
            "'MPI' is only the type of a distribution",
            "write `type: mpi` below it, or `--set distribution.type=mpi`",
        ),
        ({"type": "pytorc"}, "'pytorc' is not a distribution that Azure ML knows", "did you mean `pytorch`?"),
        (
            3,
            "3 is not a distribution",
            "write PyTorch(…), Mpi(…), TensorFlow(…), Ray(…), or a mapping with `type: pytorch`",
        ),
    ],
)
def test_what_is_no_distribution_is_refused_with_those_there_are(value: Any, message: str, hint: str) -> None:
    with pytest.raises(JobError) as error:
        Job(command="x", distribution=value)
    [problem] = error.value.problems
    assert (problem.message, problem.hint, problem.where) == (message, hint, "distribution")


def test_a_variable_without_a_value_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(command="x", environment_variables={"A": "1", "B": "2"}, inputs={"n": 3})
    found = job.with_set("environment_variables.A=null")
    assert found.environment_variables == {"A": None, "B": "2"}

    monkeypatch.setenv("A", "mine")
    assert own_variables(found) == {"A": "mine"}
    monkeypatch.delenv("A")
    assert own_variables(found, {"A": "known"}) == {"A": "known"}
    with pytest.raises(JobError) as error:
        own_variables(found)
    assert [(one.message, one.hint, one.where) for one in error.value.problems] == [
        (
            "the job takes A from your environment, but it is not set there",
            "`export A=...` first, or set a value in the job",
            "environment_variables.A",
        )
    ]


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("lr=3", "did you mean `inputs.lr`?"),
        ("model=x", "did you mean `outputs.model`?"),
        ("commnd=x", "did you mean `command`?"),
    ],
)
def test_a_setting_of_no_field_is_answered_with_the_one_that_was_probably_meant(setting: str, hint: str) -> None:
    job = Job(command="x", inputs={"lr": 1}, outputs={"model": Output()})
    with pytest.raises(JobError) as error:
        job.with_set(setting)
    [problem] = error.value.problems
    assert (problem.message, problem.hint) == (f"unknown field `{setting.partition('=')[0]}`", hint)
    assert (problem.where or "").startswith("--set")


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"node_count": 2}, "node_count"),
        ({"max_node_count": 1, "node_count": 2, "distribution": PyTorch()}, "max_node_count"),
        (
            {"distribution": TensorFlow(), "environment_variables": {"TF_CONFIG": "{}"}},
            "environment_variables.TF_CONFIG",
        ),
        ({"distribution": TensorFlow(worker_count=2)}, "distribution.worker_count"),
        ({"distribution": TensorFlow(parameter_server_count=2)}, "distribution.parameter_server_count"),
        ({"command": "echo ${{nothing}}"}, "command"),
        ({"command": "echo ${{inputs.a}}"}, "command"),
        ({"command": "echo ${{name}}"}, "command"),
        ({"command": "echo $${{inputs.a}}", "inputs": {"a": 1}}, "command"),
        ({"command": "echo {inputs.a}", "inputs": {"a": 1}}, "command"),
        ({"command": "echo $[[--a ${{inputs.a}}]]", "inputs": {"a": 1}}, "command"),
        ({"command": "torchrun a.py", "distribution": PyTorch(process_count_per_node=2)}, "command"),
    ],
)
def test_what_is_wrong_with_a_job_has_its_field(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(JobError) as error:
        Job(**{"command": "x", **fields})
    assert [one.where for one in error.value.problems] == [where]


def test_as_many_of_everything_as_there_are_nodes_is_fine() -> None:
    tensorflow = TensorFlow(worker_count=2, parameter_server_count=2)
    assert Job(command="x", node_count=2, max_node_count=2, distribution=tensorflow).max_node_count == 2


@pytest.mark.parametrize(
    ("kind", "what", "hint"),
    [
        ("uri_file", "folder", "use `uri_folder`"),
        ("uri_folder", "file", "write `type: uri_file` (the default is `uri_folder`), or use its folder"),
        ("mltable", "file", "write `type: uri_file` (the default is `uri_folder`), or use its folder"),
        ("uri_file", "file", None),
        ("uri_folder", "folder", None),
        ("mltable", "folder", None),
        ("custom_model", "file", None),
        ("custom_model", "folder", None),
    ],
)
def test_data_is_the_file_or_the_folder_that_its_type_says(
    kind: Any, what: str, hint: str | None, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" if what == "file" else tmp_path)
    found = [*file_problems(Job(command="x", inputs={"a": Input(type=kind, path=path)}))]

    assert [(one.where, one.hint) for one in found] == ([("inputs.a.path", hint)] if hint else [])
    if found:
        assert found[0].message == f"{path} is a {what}, but the type of the input is {kind}"


def test_a_build_has_its_dockerfile_among_what_is_uploaded(tmp_path: Path) -> None:
    def found(build: Build) -> list[tuple[str, str | None, str | None]]:
        problems = file_problems(Job(command="x", environment=Environment(build=build)))
        return [(one.message, one.hint, one.where) for one in problems]

    context = str(tmp_path / "context")
    at = "environment.build"
    assert found(Build(path=context)) == [(f"there is no folder {context}", f"{tmp_path} is empty", f"{at}.path")]
    (tmp_path / "context").mkdir()
    no_file = [(f"there is no file Dockerfile in {context}", f"{context} is empty", f"{at}.dockerfile_path")]
    assert found(Build(path=context)) == no_file
    (tmp_path / "context" / "Dockerfile").write_text("FROM scratch")
    assert found(Build(path=context)) == []
    typo = (f"there is no file Dockerfil in {context}", f"there is {context}/Dockerfile", f"{at}.dockerfile_path")
    assert found(Build(path=context, dockerfile_path="Dockerfil")) == [typo]
    (tmp_path / "context" / ".amlignore").write_text("Docker*")
    [(message, hint, where)] = found(Build(path=context))
    assert message == "Dockerfile is not uploaded: .amlignore:1: Docker*"
    assert hint == "keep it: add `!Dockerfile` as the last line of the ignore file"
    assert where == f"{at}.dockerfile_path"
    assert found(Build(path="https://github.com/a/b.git")) == []


def test_settings_take_yamls_names_and_ours() -> None:
    job = Job(command="echo ${{inputs.lr}}", inputs={"lr": 0.1}, distribution=PyTorch(process_count_per_node=2))

    changed = job.with_set(
        "resources.instance_count=2",
        "distribution.process_count_per_instance=8",
        "inputs.lr=1e-3",
        "environment_variables.A=true",
        "queue_settings.job_tier=Spot",
        "limits.timeout=60",
        "compute=azureml:gpu",
    )

    assert changed == Job(
        command="echo ${{inputs.lr}}",
        inputs={"lr": "1e-3"},  # YAML 1.1 takes a number with an exponent and no point for a text
        node_count=2,
        distribution=PyTorch(process_count_per_node=8),
        environment_variables={"A": "true"},
        queue=Queue(tier="spot"),
        timeout=60,
        compute="gpu",
    )


def test_settings_are_checked_together() -> None:
    job = Job(command="x").with_set("node_count=2", "distribution.type=mpi")
    assert isinstance(job.distribution, Mpi)


def test_null_takes_a_setting_back() -> None:
    assert Job(command="x", timeout=60).with_set("timeout=null").timeout is None


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("nodecount=2", "did you mean `node_count`"),
        ("resources.instance_cont=2", "did you mean `resources.instance_count`"),
        ("distribution.process_count=2", "did you mean `process_count_per_node`"),
        ("inputs.epoch=2", "did you mean `epochs`"),
        ("inputs.data=x", "inputs.data.path"),
        ("node_count=0", "the minimum is 1"),
        ("node_count", "is not FIELD=VALUE"),
        ("code.x=1", "has no fields"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(setting: str, words: str) -> None:
    job = Job(command="x", code=".", inputs={"epochs": 1, "data": Input(path="azureml:d:1")}, distribution=PyTorch())
    with pytest.raises(JobError) as error:
        job.with_set(setting)

    assert words in problem(error)
    assert str(error.value).startswith("--set")


def test_a_signature_reads_as_one_would_write_it() -> None:
    """What `Job?` shows in a notebook: types and defaults, without validators."""
    shown = str(signature(Job))

    assert shown.startswith("(*, command: str | list[str] | tuple[str, ...], code: str | None = None, inputs: Mapping[")
    assert "distribution: PyTorch | Mpi | TensorFlow | Ray | None = None" in shown
    assert "Validator" not in shown


@pytest.mark.parametrize(("model", "said"), [(Environment(image="x"), "an Environment"), (Job(command="x"), "a Job")])
def test_what_does_not_change_has_its_article(model: Job | Environment, said: str) -> None:
    with pytest.raises(JobError, match=f"{said} is immutable"):
        model.description = "y"


def test_a_mapping_that_does_not_change_says_how_a_new_one_is_made() -> None:
    with pytest.raises(JobError, match=r"`job.with_\(tags=\{\*\*job.tags, …\}\)`, likewise for any other field"):
        Job(command="x", tags={"a": "b"}).tags["a"] = "c"  # type: ignore[index]
