"""YAML of command jobs that between them use every field of azure-ai-ml's schema, and what they need around them."""

from __future__ import annotations

from pathlib import Path

BASE = """
name: case
experiment_name: cases
command: python train.py
environment: azureml:env:1
"""

CASES = {
    "the least": "",
    "pytorch": "distribution: {type: pytorch}",
    "pytorch with its count": "distribution: {type: PyTorch, process_count_per_instance: 8}",
    "pytorch with a count of one": "distribution: {type: pytorch, process_count_per_instance: 1}",
    "mpi": "distribution: {type: mpi}",
    "mpi with its count": "distribution: {type: MPI, process_count_per_instance: 4}",
    "tensorflow": "distribution: {type: tensorflow}",
    "tensorflow with tasks": "resources: {instance_count: 3}\n"
    "distribution: {type: TensorFlow, worker_count: 3, parameter_server_count: 1}",
    "ray": "distribution: {type: ray}",
    "ray with everything": "distribution: {type: ray, port: 6379, address: '10.0.0.1', include_dashboard: true,"
    " dashboard_port: 8265, head_node_additional_args: --a, worker_node_additional_args: --b}",
    "ray without its dashboard": "distribution: {type: ray, include_dashboard: false}",
    "one node, said": "resources: {instance_count: 1}",
    "resources": "resources: {instance_count: 1, instance_type: Standard_ND96, shm_size: 16g, docker_args: --ipc=host,"
    " max_instance_count: 4, locations: [westus, eastus]}",
    "docker arguments in a list": "resources: {docker_args: [--ipc=host, '-v /a:/b'], max_instance_count: 4,"
    " locations: [westus], instance_type: x}",
    "resource properties": "resources: {properties: {Singularity: {a: {b: 1}}, ITP: {c: d}, other: [1]}}",
    "local compute": "compute: local",
    "local compute with resources": "compute: local\nresources: {instance_type: x}",
    "a compute": "compute: azureml:gpu-cluster",
    "a compute without its prefix": "compute: gpu-cluster",
    "a compute by its id": "compute: azureml:/subscriptions/s/resourceGroups/g/providers/p/workspaces/w/computes/c",
    "a second": "limits: {timeout: 1}",
    "a minute": "limits: {timeout: 60}",
    "an hour": "limits: {timeout: 3600}",
    "a day": "limits: {timeout: 86400}",
    "a day and a bit": "limits: {timeout: 90061}",
    "a week": "limits: {timeout: 604800}",
    "a month": "limits: {timeout: 2592000}",
    "a queue's tier": "queue_settings: {job_tier: Spot}",
    "no tier": "queue_settings: {job_tier: 'null'}",
    "a queue's priority": "queue_settings: {priority: low}",
    "a queue": "queue_settings: {job_tier: premium, priority: High}",
    "a managed identity": "identity: {type: managed, client_id: abc}",
    "a managed identity by object": "identity: {type: managed_identity, object_id: abc}",
    "my identity": "identity: {type: user_identity}",
    "my identity in capitals": "identity: {type: UserIdentity}",
    "the workspace's token": "identity: {type: AMLToken}",
    "services": """
services:
  lab: {type: jupyter_lab}
  code: {type: vs_code, nodes: all}
  board: {type: tensor_board, log_dir: outputs/tb, port: 6006}
  shell: {type: ssh, ssh_public_keys: ssh-rsa AAA, properties: {z: y}}
""",
    "texts": "display_name: a name\ndescription: |\n  two\n  lines\nparent_job_name: parent",
    "tags": "tags: {a: '1', b: null}\nproperties: {c: d}",
    "variables": "environment_variables: {A: text, B: '', C: '1.50', D: 'true'}",
    "literals": """
inputs:
  a: yes
  b: 0.00001
  c: '007'
  d: 0x10
  e: -3
  f: '.inf'
  g: 1_000
  h: '1e-5'
  i: 'True'
  j: 1e5
  k: ''
  l: 1.0
  m: 010
  n: {value: 3}
  o: "a 'b' \\"c\\""
""",
    "data": """
inputs:
  a: {path: azureml:cifar:1}
  b: {path: azureml:cifar@latest, mode: download}
  c: {path: azureml://datastores/w/paths/a/, type: mltable, mode: eval_mount}
  d: {type: mltable, path: azureml:t:1, mode: eval_download}
  e: {type: custom_model, path: azureml:m:3, mode: direct}
  f: {type: mlflow_model, path: azureml:m:3}
  g: {type: triton_model, path: azureml:m:3, mode: ro_mount}
  h: {type: uri_file, path: https://x.y/z.csv}
  i: {type: uri_folder, path: wasbs://c@a.blob.core.windows.net/z}
  j: {type: uri_folder, path: abfss://c@a.dfs.core.windows.net/z, mode: ro_mount}
  k: {type: URI_FILE, path: azureml:cifar:1, mode: RO_MOUNT}
  l: {type: uri_file, path: azureml://registries/r/data/d/versions/1}
""",
    "outputs": """
outputs:
  a:
  b: {}
  c: {type: uri_file, mode: rw_mount}
  d: {type: mltable, mode: direct}
  e: {type: custom_model, mode: upload, name: model}
  f: {type: mlflow_model, name: model, version: 4}
  g: {type: triton_model}
  h: {path: 'azureml://datastores/w/paths/o/${{name}}', mode: mount}
""",
    "an environment's label": "environment: azureml:env@latest",
    "an environment of a registry": "environment: azureml://registries/azureml/environments/e/labels/latest",
    "a version of a registry": "environment: azureml://registries/azureml/environments/e/versions/3",
    "an environment by name": "environment: azureml:env",
    "a folded command": "command: >-\n  python train.py\n  --a ${{inputs.a}}\n  --o ${{outputs.o}}\n"
    "inputs: {a: 3}\noutputs: {o: }",
    "spaces in an expression": "command: python t.py ${{ inputs.a }}\ninputs: {a: 3}",
    "a code asset": "code: azureml:code:1",
    "an inline environment": "environment: {image: python:3.11, os_type: Linux, description: d, tags: {a: b}}",
    "an image and its conda file": "environment: {image: python:3.11, conda_file: conda.yml}",
    "an image and its packages": "environment: {image: i, conda_file: {dependencies: [pip, {pip: [x]}]}}",
    "a build": "environment: {build: {path: ctx}}",
    "a build by another file": "environment: {build: {path: ./ctx, dockerfile_path: Other}}",
    "a build on the web": "environment: {build: {path: 'https://github.com/a/b.git#main'}}",
    "an environment file": "environment: file:envs/environment.yml",
    "an environment for endpoints too": "environment: {image: a, inference_config: {liveness_route: {port: 1, path: /},"
    " scoring_route: {port: 1, path: /}, readiness_route: {port: 1, path: /}}}",
    "an environment's datastore": "environment: {build: {path: ctx}, datastore: other}",
    "an environment by its id": "environment: azureml:/subscriptions/s/resourceGroups/g/providers/"
    "Microsoft.MachineLearningServices/workspaces/w/environments/e/versions/1",
    "a code folder": "code: src",
    "an evaluated mount without a type": "inputs: {d: {path: 'azureml:cifar:1', mode: eval_mount}}",
    "a code file": "code: ./src/train.py",
    "a code folder from here": "code: ./src",
    "code of a registry": "code: azureml://registries/r/codes/c/versions/1",
    "code of a feed": "code: azureml://feeds/r/codes/c/versions/1",
    "local data": "inputs: {a: {type: uri_file, path: data.csv, mode: download}, b: {path: ./src}}",
    "data as a file reference": "inputs: {a: {type: uri_file, path: 'file:data.csv'}}",
    "data for another datastore": "inputs: {a: {path: azureml:c:1, datastore: other}}",
    "data by its id": "inputs: {a: {path: azureml:/subscriptions/s/resourceGroups/g/providers/"
    "Microsoft.MachineLearningServices/workspaces/w/data/d/versions/1}}",
    "data that a pipeline gives": "inputs: {a: {path: '${{parent.inputs.b}}'}, b: '${{parent.inputs.c}}'}",
    "wrapped literals": "inputs: {a: {value: text}, b: {value: true}, c: {value: 7}, d: {value: 'yes'}}",
    "old expressions": "command: echo {inputs.a} ${{inputs.a}}\ninputs: {a: 3}",
    "an optional part": "command: echo $[[--a ${{inputs.a}}]] $[[--b ${{inputs.b}}]]\ninputs: {a: 3}",
    "a value of two words": "command: echo ${{inputs.a}}\ninputs: {a: hello world}",
    "empty groups": "resources: {}\nlimits: {}\nservices: {}\nqueue_settings: {}\ninputs: {}\noutputs: {}\ntags: {}",
    "counts as texts": "resources: {instance_count: '2'}\ndistribution: {type: mpi, process_count_per_instance: '4'}\n"
    "limits: {timeout: '90'}",
    "nested settings": "resources: {properties: {a: 1, b: null, c: [1, {d: e}]}}",
    "a service's settings": "services: {a: {type: ssh, properties: {n: 1, s: x}}, b: {type: vs_code, port: '8080'}}",
    "what az ml shows": "services: {a: {type: ssh, endpoint: e, status: s}}\nid: x\nstatus: Completed\n"
    "log_files: {a: b}\n"
    "parameters: {a: b}\ncreation_context: {created_by: me}\nproperties: {_azureml.ComputeTargetType: amlcompute}",
    "a virtual cluster": "compute: /subscriptions/s/resourceGroups/g/providers/p/virtualclusters/v",
    "a schema and a type": "$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json\ntype: command",
    "a managed identity by both ids": "identity: {type: managed, client_id: a, object_id: b}",
    "texts that look like values": "description: 'yes'\ndisplay_name: '1e5'\ntags: {a: 'null', b: '0x10', c: ''}",
    "many lines": 'command: |\n  set -e\n  python a.py\n\n  python b.py\ndescription: "a: b # c\\n\\ttab"',
    "not only ASCII": "description: größer 大 🚀\ntags: {ü: é}",
    "anchors": "tags: &t {a: b}\nproperties: {<<: *t, c: d}",
}


REFUSED = {
    "a mode of an input": ("inputs: {a: {path: azureml:c:1, mode: rw_mount}}", "'rw_mount' is not one of ro_mount"),
    "a mode of a table for a folder": (
        "inputs: {a: {type: uri_folder, path: azureml:c:1, mode: eval_mount}}",
        "'eval_mount' is not one of ro_mount, download, direct",
    ),
    "an input without a value": ("inputs: {a: {path: azureml:c:1, mode: }}", "inputs.a.mode: it has no value"),
    "inputs without a value": ("inputs:", "inputs: it has no value"),
    "resources without a value": ("resources:", "resources: it has no value"),
    "a size without a value": ("resources: {instance_type: }", "resources.instance_type: it has no value"),
    "tags without a value": ("tags:", "tags: it has no value"),
    "a number as a tag": ("tags: {a: 1.50}", 'put it in quotes: "1.50"'),
    "a truth value as a property": ("properties: {a: yes}", 'put it in quotes: "yes"'),
    "a date as a tag": ("tags: {a: 2026-01-02}", 'put it in quotes: "2026-01-02"'),
    "code with a prefix": ("code: file:src", "write `src`"),
    "code without a version": ("code: azureml:code", "`azureml:code@latest`"),
    "a conda file with a prefix": ("environment: {image: i, conda_file: 'file:conda.yml'}", "write `conda.yml`"),
    "a build with a prefix": ("environment: {build: {path: 'file:ctx'}}", "write `ctx`"),
    "properties of an environment": ("environment: {image: i, properties: {a: b}}", "leave it out"),
    "no environment": ("environment:", "environment: it has no value"),
    "a conda file as an environment": ("environment: {name: e, dependencies: [pip]}", "this is a conda file"),
    "an image as an environment": ("environment: python:3.11/x", "mapping with `image:`"),
    "a managed identity by its resource": ("identity: {type: managed, msi_resource_id: /a}", "`client_id`"),
    "a command as a list": ("command: [python, t.py]", "Job(command=[...])"),
    "another spelling of the type": ("type: Command", "write `type: command`"),
    "a distribution that is none": ("distribution: {type: dask}", "known here: pytorch, mpi, tensorflow, ray"),
    "a field of another distribution": ("distribution: {type: mpi, worker_count: 1}", "unknown field `worker_count`"),
    "a tier that is none": ("queue_settings: {job_tier: gold}", "'gold' is not one of"),
    "a service on one node": ("services: {a: {type: ssh, nodes: '1'}}", "'1' is not one of all"),
    "an input's name": ("inputs: {a-b: 1}", "letters, digits and `_`"),
    "an output of a value": ("outputs: {a: {type: integer}}", "'integer' is not one of uri_file"),
    "an output's other mode": ("outputs: {a: {mode: ro_mount}}", "'ro_mount' is not one of rw_mount"),
    "an input that is not declared": ("command: echo ${{inputs.a}}\ninputs: {ab: 1}", "did you mean `ab`?"),
    "a field that is none": ("envrionment_variables: {a: b}", "did you mean `environment_variables`?"),
}
"""What azure-ai-ml refuses too, with a part of what is said here."""


def yaml_of(case: str) -> str:
    """A whole job, in which the case's fields take the place of the common ones."""
    fields = REFUSED[case][0] if case in REFUSED else CASES[case]
    first_words = {line.split(":")[0] for line in fields.splitlines()}
    base = "\n".join(line for line in BASE.splitlines() if line.split(":")[0] not in first_words)
    return f"{base}\n{fields}\n"


def make_files(folder: Path) -> None:
    """Everything on this machine that a case names."""
    for name in ("src", "ctx", "envs"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "src" / "train.py").write_text("print(1)\n")
    (folder / "data.csv").write_text("1,2\n")
    (folder / "conda.yml").write_text("name: e\ndependencies: [pip]\n")
    (folder / "ctx" / "Dockerfile").write_text("FROM python:3.11\n")
    (folder / "ctx" / "Other").write_text("FROM python:3.11\n")
    environment = "name: e\nversion: 1.10\nimage: python:3.11\nconda_file: ../conda.yml\ntags: {a: b}\n"
    (folder / "envs" / "environment.yml").write_text(environment)
