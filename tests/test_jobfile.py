"""Jobs from `az ml` YAML and from Python files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from jobcases import CASES, yaml_of

from azml_dist.errors import JobError
from azml_dist.files.component import is_component
from azml_dist.files.dump import yaml_of as dump_yaml
from azml_dist.files.schema import job_schema
from azml_dist.job import (
    Build,
    Environment,
    Identity,
    Input,
    Job,
    JupyterLab,
    Output,
    PyTorch,
    Queue,
    TensorBoard,
)

REPOSITORY = Path(__file__).parents[1]

EVERYTHING = """
$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
type: command
name: a-name
display_name: a display name
experiment_name: cases
description: words
tags: {team: vision, level: "1.50", on: "true"}
properties: {p: q}
command: python train.py --lr ${{inputs.lr}} --data ${{inputs.data}} --to ${{outputs.model}}
code: src
inputs:
  lr: 0.1
  wrapped: {value: 3}
  data: {type: uri_file, path: data.csv, mode: download}
  remote: {path: 'azureml:cifar:1'}
  web: {path: https://x.y/z}
outputs:
  model: {type: custom_model, mode: upload, name: m, version: 2}
  plain:
environment: azureml:env@latest
environment_variables: {FLAG: true, N: 1.50, TOKEN: null, EMPTY: ''}
distribution: {type: PyTorch, process_count_per_instance: 4}
compute: azureml:gpu
resources: {instance_count: 2, instance_type: x, shm_size: 16g, docker_args: [--ipc=host], max_instance_count: 4,
  locations: [westus], properties: {a: {b: 1}}}
limits: {timeout: 60}
queue_settings: {job_tier: Spot, priority: High}
identity: {type: managed, client_id: abc}
services: {lab: {type: jupyter_lab, nodes: all}, board: {type: tensor_board, log_dir: tb, port: 6006}}
parent_job_name: parent
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("print(1)\n")
    (tmp_path / "data.csv").write_text("1\n")
    return tmp_path


def load(folder: Path, text: str, name: str = "job.yml") -> Job:
    (folder / name).write_text(text)
    return Job.load(folder / name)


def test_every_field_of_the_schema_has_its_place(folder: Path) -> None:
    assert load(folder, EVERYTHING) == Job(
        name="a-name",
        display_name="a display name",
        experiment_name="cases",
        description="words",
        tags={"team": "vision", "level": "1.50", "on": "true"},
        properties={"p": "q"},
        command="python train.py --lr ${{inputs.lr}} --data ${{inputs.data}} --to ${{outputs.model}}",
        code=str(folder / "src"),
        inputs={
            "lr": 0.1,
            "wrapped": 3,
            "data": Input(type="uri_file", path=str(folder / "data.csv"), mode="download"),
            "remote": Input(path="azureml:cifar:1"),
            "web": Input(path="https://x.y/z"),
        },
        outputs={"model": Output(type="custom_model", mode="upload", name="m", version="2"), "plain": Output()},
        environment="azureml:env@latest",
        environment_variables={"FLAG": "true", "N": "1.50", "TOKEN": None, "EMPTY": ""},
        distribution=PyTorch(process_count_per_node=4),
        compute="gpu",
        node_count=2,
        instance_type="x",
        shm_size="16g",
        docker_args=("--ipc=host",),
        max_node_count=4,
        locations=("westus",),
        resource_properties={"a": {"b": 1}},
        timeout=60,
        queue=Queue(tier="spot", priority="high"),
        identity=Identity(type="managed", client_id="abc"),
        services={"lab": JupyterLab(nodes="all"), "board": TensorBoard(log_dir="tb", port=6006)},
        parent_job_name="parent",
    )


def test_every_field_that_azure_ai_ml_reads_is_read_or_refused_by_name() -> None:
    """Nothing in a job file is dropped without a word."""
    names = "import warnings; warnings.simplefilter('ignore')\n"
    names += "from azure.ai.ml._schema.job.command_job import CommandJobSchema as S\n"
    names += "from azure.ai.ml._schema.job_resource_configuration import JobResourceConfigurationSchema as R\n"
    names += "s = S(context={'base_path': '.'})\n"
    names += "print(*[n for n, f in s.fields.items() if not f.dump_only])\n"
    names += "print(*R().fields)"
    done = subprocess.run([sys.executable, "-c", names], capture_output=True, text=True, check=True)
    top, resources = (set(line.split()) for line in done.stdout.strip().splitlines()[-2:])
    schema = job_schema()

    assert top - set(schema["properties"]) == set()
    assert resources == set(schema["properties"]["resources"]["properties"])


def test_paths_are_seen_from_the_files_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "jobs").mkdir()
    (folder / "jobs" / "job.yml").write_text("command: x\ncode: ../src\ninputs: {d: {path: 'file:../data.csv'}}\n")
    monkeypatch.chdir(folder)
    job = Job.load("jobs/job.yml")

    assert (job.code, job.local_path("d")) == (str(folder / "src"), str(folder / "data.csv"))


def test_code_in_azure_is_kept(folder: Path) -> None:
    job = load(folder, "command: x\ncode: azureml:code:1\n")
    assert (job.code, job.local_code) == ("azureml:code:1", None)


def test_an_environment_file_is_read_with_its_own_paths(folder: Path) -> None:
    (folder / "envs").mkdir()
    (folder / "envs" / "e.yaml").write_text("name: e\nversion: 1.10\nimage: python:3.11\nconda_file: conda.yaml\n")
    job = load(folder, "command: x\nenvironment: file:envs/e.yaml\n")

    expected = Environment(
        name="e", version="1.10", image="python:3.11", conda_file=str(folder / "envs" / "conda.yaml")
    )
    assert job.environment == expected == Environment.load(folder / "envs" / "e.yaml")


def test_an_inline_environment_has_its_build_folder(folder: Path) -> None:
    job = load(folder, "command: x\nenvironment: {build: {path: src, dockerfile_path: Dockerfile.gpu}}\n")
    assert job.environment == Environment(build=Build(path=str(folder / "src"), dockerfile_path="Dockerfile.gpu"))


def test_conda_packages_may_stand_in_the_job(folder: Path) -> None:
    job = load(folder, "command: x\nenvironment: {image: i, conda_file: {dependencies: [pip]}}\n")
    assert isinstance(job.environment, Environment)
    assert job.environment.conda_file == {"dependencies": ["pip"]}


def test_yaml_1_1_is_read_as_azure_ai_ml_reads_it(folder: Path) -> None:
    job = load(folder, "command: x\ninputs: {a: yes, b: 0x10, c: 010, d: '007', e: 1e-5}\n")
    assert dict(job.inputs) == {"a": True, "b": 16, "c": 8, "d": "007", "e": "1e-5"}


def test_anchors_and_merges_work(folder: Path) -> None:
    job = load(folder, "command: x\ntags: &t {a: '1', b: '2'}\nproperties: {<<: *t, b: '3'}\n")
    assert dict(job.properties) == {"a": "1", "b": "3"}


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(folder: Path) -> None:
    (folder / "job.yml").write_bytes(b"\xef\xbb\xbfcommand: x\r\ncompute: c\r\n")
    assert Job.load(folder / "job.yml") == Job(command="x", compute="c")


def test_what_az_ml_shows_of_a_job_may_stand_in_its_file(folder: Path) -> None:
    assert load(folder, "command: x\nstatus: Completed\nid: azureml:/x\ncreation_context: {a: b}\n") == Job(command="x")


def test_a_job_is_written_in_the_order_in_which_one_would_read_it() -> None:
    job = Job(
        command="echo ${{inputs.n}}\necho b",
        inputs={"n": 3, "d": Input(path="azureml:x:1", mode="download")},
        outputs={"o": Output(mode="upload")},
        environment="azureml:e:1",
        compute="c",
        node_count=2,
        distribution=PyTorch(process_count_per_node=2),
        environment_variables={"Z": "1.50", "A": "b"},
        timeout=60,
        display_name="größer",
        tags={"b": "x", "a": "y"},
    )
    assert (
        dump_yaml(job)
        == """\
$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
type: command
display_name: größer
tags:
  b: x
  a: y
command: |-
  echo ${{inputs.n}}
  echo b
inputs:
  n: 3
  d:
    type: uri_folder
    path: azureml:x:1
    mode: download
outputs:
  o:
    type: uri_folder
    mode: upload
environment: azureml:e:1
environment_variables:
  Z: '1.50'
  A: b
compute: c
distribution:
  type: pytorch
  process_count_per_instance: 2
resources:
  instance_count: 2
limits:
  timeout: 60
"""
    )


def test_a_job_in_python_may_import_what_is_beside_its_file(folder: Path) -> None:
    (folder / "parts.py").write_text("N = 3\n")
    (folder / "jobs.py").write_text(
        "from azml_dist.job import Job\nfrom parts import N\njob = Job(command='x', timeout=N)\n"
    )
    before = list(sys.path)

    assert Job.load(f"{folder}/jobs.py:job") == Job(command="x", timeout=3)
    assert sys.path == before


def test_loading_a_job_brings_no_azure_and_no_torch(folder: Path) -> None:
    load(folder, EVERYTHING)
    code = "import sys; from azml_dist.job import Job; from azml_dist.plan.request import request_body\n"
    code += "request_body(Job.load('job.yml'))\n"
    code += "print(*[m for m in ('azure', 'torch', 'marshmallow', 'msrest') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)

    assert done.stdout.strip() == ""


def schema_errors(*texts: str) -> list[str]:
    """What the schema, which takes a while to make, has against these job files."""
    schema = jsonschema.Draft202012Validator(job_schema())
    return [f"{error.message}: {text}" for text in texts for error in schema.iter_errors(yaml.safe_load(text))]


def test_the_schema_is_one_and_takes_a_whole_job() -> None:
    jsonschema.Draft202012Validator.check_schema(job_schema())
    text = EVERYTHING.replace("Spot", "spot").replace("High", "high")
    assert schema_errors(text) == []


def test_the_schema_takes_what_azure_ai_ml_takes() -> None:
    assert schema_errors(*map(yaml_of, CASES)) == []


def test_the_schema_takes_every_job_of_the_repository() -> None:
    texts = [file.read_text(encoding="utf-8") for file in REPOSITORY.glob("samples/**/*.y*ml")]
    jobs = [text for text in texts if "command:" in text and not is_component(yaml.safe_load(text))]

    assert jobs
    assert schema_errors(*jobs) == []


@pytest.mark.parametrize(
    "text",
    [
        "compute: x",
        "command: x\nnode_count: 2",
        "command: x\nresources: {instance_count: 0}",
        "command: x\nresources: {instance_cont: 1}",
        "command: x\ndistribution: {type: pytorch, process_count_per_node: 1}",
        "command: x\ndistribution: {process_count_per_instance: 1}",
        "command: x\noutputs: {a: {mode: download}}",
    ],
)
def test_the_schema_refuses_what_a_job_refuses(text: str, folder: Path) -> None:
    assert schema_errors(text)
    with pytest.raises(JobError):
        load(folder, text)


def test_the_schema_describes_every_field() -> None:
    schema: dict[str, Any] = job_schema()
    models = {"": schema, **schema["$defs"], **{g: schema["properties"][g] for g in ("resources", "limits")}}
    bare = [(m, f) for m, model in models.items() for f, s in model["properties"].items() if not s.get("description")]

    assert bare == []
    wrapped = schema["properties"]["inputs"]["additionalProperties"]["oneOf"][-1]
    assert wrapped["description"] == "A literal value, in azure-ai-ml's longer spelling."


@pytest.mark.parametrize("name", ["PyTorch", "Mpi", "TensorFlow", "Ray", "JupyterLab", "VsCode", "TensorBoard", "Ssh"])
def test_what_is_told_apart_by_its_type_must_have_one(name: str) -> None:
    model = job_schema()["$defs"][name]

    assert "type" in model["required"]
    assert "enum" in str(model["properties"]["type"])
