"""The environments: loaded by azure-ai-ml, pinned as the tests are, and possible to install, all without Docker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import horovod_build
import pytest
import yaml
from needs import needs
from packaging.requirements import Requirement

from azml_dist import Environment

REPOSITORY = Path(__file__).parents[1]
ENVIRONMENTS = REPOSITORY / "environments"
NAMES = ["pytorch", "tensorflow", "mpi-horovod", "deepspeed", "cpu"]
BUILT = ["mpi-horovod", "deepspeed"]
PYTHON = "3.11"
"""Of every environment, and of constraints.txt's pins that they are compared with."""

OTHERWISE = {
    "azureml-mlflow": "the tests have no tracking server of Azure ML",
    "cmake": "only Horovod is built with it, which the tests take as it is",
    "setuptools": "Horovod's setup.py needs one before 80",
    "nvidia-cudnn-cu12": "the tests run on CPUs",
    "nvidia-nccl-cu12": "the tests run on CPUs",
}
"""Pins that constraints.txt does not have, or has otherwise, and why."""
SAME_AS = {"tensorflow": "tensorflow-cpu"}
"""Packages that the tests have under another name."""

CACHE = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv")
"""uv's own, of what packages say of themselves: asked for before a test has a home of its own."""

every_environment = pytest.mark.parametrize("name", NAMES)


def pins(name: str, file: str = "requirements.txt") -> dict[str, Requirement]:
    lines = (ENVIRONMENTS / name / file).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]
    return {requirement.name: requirement for requirement in found}


def conda_file(name: str) -> Any:
    return yaml.safe_load((ENVIRONMENTS / name / "conda.yaml").read_text(encoding="utf-8"))


def version(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement} is not pinned"
    return specifier.version


def base_image(name: str) -> str:
    environment = Environment.load(ENVIRONMENTS / name / "environment.yaml")
    if environment.image:
        return environment.image
    dockerfile = (ENVIRONMENTS / name / "Dockerfile").read_text(encoding="utf-8")
    (image,) = re.findall(r"^FROM (\S+?)(?::\$\{TAG\})?$", dockerfile, re.MULTILINE)
    return str(image)


def test_every_folder_is_tested() -> None:
    assert sorted(NAMES) == sorted(folder.name for folder in ENVIRONMENTS.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what azure-ai-ml uses
@every_environment
def test_azure_ai_ml_loads_it_as_we_do(name: str) -> None:
    from azure.ai.ml import load_environment

    path = ENVIRONMENTS / name / "environment.yaml"
    ours, theirs = Environment.load(path), load_environment(path)

    assert ours.name == theirs.name == name
    assert ours.description == theirs.description
    assert ours.image == theirs.image
    assert (ours.build and Path(ours.build.path)) == (theirs.build and Path(path.parent, str(theirs.build.path)))
    if ours.image:
        assert theirs.conda_file == conda_file(name)


@every_environment
def test_its_base_image_is_one_that_azure_ml_has(name: str) -> None:
    """The guide lists them with their source."""
    guide = (REPOSITORY / "docs" / "environments.md").read_text(encoding="utf-8")
    known = re.findall(r"^\| `(openmpi\S+)` \|", guide, re.MULTILINE)

    assert base_image(name).removeprefix("mcr.microsoft.com/azureml/") in known


@needs("hadolint")
@pytest.mark.parametrize("name", BUILT)
def test_its_dockerfile_has_no_fault(name: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    linted = subprocess.run(
        ["hadolint", ENVIRONMENTS / name / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": path},
    )

    assert (linted.returncode, linted.stdout) == (0, "")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BUILT])
def test_its_conda_file_has_the_pins_of_its_requirements(name: str) -> None:
    *packages, pip = conda_file(name)["dependencies"]

    assert packages == [f"python={PYTHON}", "pip"]
    assert [Requirement(line) for line in pip["pip"]] == list(pins(name).values())


@pytest.mark.parametrize(
    ("name", "file"), [*((name, "requirements.txt") for name in NAMES), ("mpi-horovod", "requirements-build.txt")]
)
def test_its_pins_are_those_that_the_tests_run(name: str, file: str) -> None:
    for package, requirement in pins(name, file).items():
        if package not in OTHERWISE:
            assert version(requirement) == in_the_tests()[SAME_AS.get(package, package)], package


def test_the_horovod_of_the_image_is_the_one_that_the_tests_train_with() -> None:
    script = (ENVIRONMENTS / "mpi-horovod" / "install_horovod.sh").read_text(encoding="utf-8")
    readme = (ENVIRONMENTS / "mpi-horovod" / "README.md").read_text(encoding="utf-8")

    assert f"version={horovod_build.VERSION}\n" in script
    assert f"| Horovod | {horovod_build.VERSION} |" in readme


def test_what_the_environments_pin_otherwise_is_not_what_the_tests_have() -> None:
    """An exception that is none any more goes."""
    files = [*((name, "requirements.txt") for name in NAMES), ("mpi-horovod", "requirements-build.txt")]
    assert OTHERWISE.keys() <= {package for name, file in files for package in pins(name, file)}
    for name in NAMES:
        for package in pins(name).keys() & OTHERWISE.keys():
            assert version(pins(name)[package]) != in_the_tests().get(package), package


@needs("uv")
@every_environment
def test_its_pins_can_be_installed_together(name: str) -> None:
    """Resolved on PyPI, for Linux, by metadata alone; the CUDA parts come out as its README says."""
    resolved = resolve(name)

    for package, requirement in pins(name).items():
        assert resolved[package] == version(requirement)
    readme = (ENVIRONMENTS / name / "README.md").read_text(encoding="utf-8")
    for part, told in re.findall(r"^\| (cuDNN|NCCL|CUDA of \w+) \| (\S+) \|", readme, re.MULTILINE):
        package = {"cuDNN": "nvidia-cudnn", "NCCL": "nvidia-nccl"}.get(part, "nvidia-cuda-runtime")
        (found,) = [v for p, v in resolved.items() if re.fullmatch(rf"{package}(-cu\d+)?", p)]
        assert f"{found}.".startswith(f"{told}."), part


@needs("uv")
@every_environment
def test_it_can_have_all_versions_that_the_tests_have(name: str) -> None:
    """Nobody's script meets another azure-storage or MLflow there than here: azureml-mlflow takes what was tried."""
    resolved = resolve(name, "-c", str(REPOSITORY / "constraints.txt"))

    shared = resolved.keys() & in_the_tests().keys() - {"setuptools", "cmake"}
    assert {"mlflow-skinny", "azure-storage-blob", "python-dateutil"} <= shared
    assert {package: resolved[package] for package in shared} == {
        package: in_the_tests()[package] for package in shared
    }


@needs("uv")
@pytest.mark.parametrize("python", ["3.10", "3.13"])
def test_azureml_mlflow_can_be_installed_beside_us(python: str, tmp_path: Path) -> None:
    """As in an image that runs `runtime` and MLflow: with azure-ai-ml in the version that the tests have."""
    (tmp_path / "requirements.txt").write_text(f"azure-ai-ml\n{pins('cpu')['azureml-mlflow']}\n")

    lines = compiled(tmp_path / "requirements.txt", python, "-c", str(REPOSITORY / "constraints.txt"))

    for package in ("azure-ai-ml", "mlflow-skinny", "azure-storage-blob", "azure-storage-file-datalake"):
        assert f"{package}=={in_the_tests()[package]}\n" in lines


@needs("uv")
def test_pins_that_exclude_each_other_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("azureml-mlflow==1.62.0.post6\nmlflow-skinny==3.17.2\n")

    with pytest.raises(AssertionError, match="mlflow-skinny"):
        compiled(tmp_path / "requirements.txt")


@needs("uv")
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_what_make_installs_can_be_installed_on_every_python(python: str) -> None:
    """By constraints.txt, from the first release of each on: Debian's 3.11 is 3.11.2."""
    groups = ["--group", "test", "--group", "check", "--group", "quickstart", "--extra", "torch", "--extra", "mlflow"]
    lines = compiled(REPOSITORY / "pyproject.toml", python, "-c", str(REPOSITORY / "constraints.txt"), *groups)

    assert "pytest==" in lines


def resolve(name: str, *options: str) -> dict[str, str]:
    lines = compiled(ENVIRONMENTS / name / "requirements.txt", PYTHON, *options).splitlines()
    return dict(re.sub(r"\[.*\]", "", line).split("==") for line in lines if line)


def compiled(requirements: Path, python: str = PYTHON, *options: str) -> str:
    """What uv makes of requirements for a Linux, as lines of `name==version`. Skips where PyPI is away."""
    certificates = {"SSL_CERT_FILE": os.environ["PIP_CERT"]} if "PIP_CERT" in os.environ else {}
    index = {"UV_DEFAULT_INDEX": os.environ["PIP_INDEX_URL"]} if "PIP_INDEX_URL" in os.environ else {}
    uv = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate"]
    target = ["--python-version", python, "--python-platform", "x86_64-manylinux_2_39", "--no-python-downloads"]
    done = subprocess.run(
        [*uv, *target, *options, requirements],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | certificates | index | {"UV_CACHE_DIR": CACHE},
    )
    if done.returncode and ("Failed to fetch" in done.stderr or "error sending request" in done.stderr):
        pytest.skip(f"PyPI cannot be reached from here: {done.stderr.strip().splitlines()[-1].strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def in_the_tests() -> dict[str, str]:
    """The pins of constraints.txt for the environments' Python."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    here = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.7"}
    return {r.name: version(r) for r in found if r.marker is None or r.marker.evaluate(here)}
