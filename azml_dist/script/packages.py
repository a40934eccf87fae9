"""Compares the imports of a script with the packages that the job's environment lists."""

from __future__ import annotations

import ast
import posixpath
import sys
from collections.abc import Iterator, Mapping
from functools import cache

from azml_dist.errors import Finding
from azml_dist.listed import REQUIREMENT, Pins, pins_of, plain
from azml_dist.script.look import Look
from azml_dist.script.source import Module

DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "attr": ("attrs",),
    "azureml": ("azureml-core", "azureml-mlflow", "azureml-sdk", "azureml-dataset-runtime", "azureml-defaults"),
    "bs4": ("beautifulsoup4",),
    "Crypto": ("pycryptodome",),
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv", "py-opencv"),
    "dateutil": ("python-dateutil",),
    "dotenv": ("python-dotenv",),
    "faiss": ("faiss-cpu", "faiss-gpu", "faiss"),
    "flash_attn": ("flash-attn",),
    "git": ("gitpython",),
    "google": ("protobuf",),
    "hydra": ("hydra-core",),
    "jwt": ("pyjwt",),
    "keras": ("keras", "tensorflow", "tensorflow-cpu", "tensorflow-gpu"),
    "lightning": ("lightning",),
    "mlflow": ("mlflow", "mlflow-skinny"),
    "MPI4PY": ("mpi4py",),
    "OpenSSL": ("pyopenssl",),
    "PIL": ("pillow", "pillow-simd"),
    "pkg_resources": ("setuptools", "pip", "python"),
    "pytorch_lightning": ("pytorch-lightning", "lightning"),
    "ruamel": ("ruamel-yaml",),
    "skimage": ("scikit-image",),
    "sklearn": ("scikit-learn",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-rocm", "tf-nightly"),
    "torch": ("torch", "pytorch", "pytorch-gpu", "pytorch-cpu", "libtorch"),
    "umap": ("umap-learn",),
    "yaml": ("pyyaml",),
}
"""Packages with a module of another name, according to PyPI's metadata and the names at conda-forge."""
_SEVERAL = frozenset(["azure", "google", "nvidia", "ruamel"])
"""Namespaces that many packages share."""


def of_packages(look: Look, excluded: Mapping[str, str]) -> Iterator[Finding]:
    """Imports of the script that its environment does not list, or that the snapshot leaves out."""
    packages = pins_of(look.job.environment)
    said: set[str] = set()
    for module, node, name in _imports(look):
        top = name.split(".")[0]
        if top in said or top in sys.stdlib_module_names or look.program.has(top):
            continue
        said.add(top)
        if left_out := _left_out(look, top, excluded):
            path, rule = left_out
            message = f"it imports `{top}`, but {path} is excluded from the code by {rule}"
            yield from look.finding("module-left-out", look.level(node), (module, node), message, "change that line")
        elif packages and not _is_listed(name, packages):
            yield from _not_listed(look, (module, node), top, packages)


def _imports(look: Look) -> Iterator[tuple[Module, ast.stmt, str]]:
    """What a file imports at its top level, outside `try` and other blocks."""
    for module in look.program.modules:
        for node in module.tree.body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield module, node, alias.name
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield module, node, node.module


def _left_out(look: Look, top: str, excluded: Mapping[str, str]) -> tuple[str, str] | None:
    for folder in dict.fromkeys([look.program.start, ""]):
        stem = posixpath.join(folder, top)
        for path, rule in excluded.items():
            if path == f"{stem}.py" or (path.startswith(f"{stem}/") and path.endswith(".py")):
                return path, rule
    return None


def _is_listed(name: str, packages: Pins) -> bool:
    top = name.split(".")[0]
    names = {plain(one) for one in (*DISTRIBUTIONS.get(top, ()), top)}
    if top in _SEVERAL or top == "azureml":
        names |= {one for one in packages.names if one.startswith(f"{plain(top)}-")}
    if names & packages.names:
        return True
    if top == "azureml":
        return False
    known = {plain(one) for one in _by_module().get(top, ())}
    reached, unknown = brought_by(packages)
    return bool((names | known) & reached) or bool(unknown - _PLAIN if names & _ROOTS else unknown)


_ROOTS = frozenset(["torch", "pytorch", "tensorflow", "timm", "transformers", "deepspeed", "horovod", "mpi4py", "ray"])
"""Packages that only packages for training install."""
_PLAIN = frozenset(
    [
        *(
            "torch",
            "pytorch",
            "pytorch-cuda",
            "tensorflow",
            "mpi4py",
            "horovod",
            "ray",
            "numpy",
            "pandas",
            "scipy",
            "scikit-learn",
            "scikit-image",
            "pillow",
        ),
        *("matplotlib", "seaborn", "plotly", "tqdm", "pyyaml", "requests", "h5py", "joblib", "pyarrow", "protobuf"),
        *("mlflow", "mlflow-skinny", "azureml-mlflow", "azureml-core", "azureml-defaults", "azure-identity", "wandb"),
        *("azure-ai-ml", "azure-storage-blob", "azureml-fsspec", "tensorboard", "opencv-python", "hydra-core", "rich"),
        *("opencv-python-headless", "omegaconf", "click", "fire", "psutil", "packaging", "fsspec", "sentencepiece"),
        *("tokenizers", "huggingface-hub", "tiktoken", "einops", "xgboost", "lightgbm", "debugpy", "ipykernel"),
    ]
)
"""Packages that install none of these others."""


def _not_listed(look: Look, at: tuple[Module, ast.AST], top: str, packages: Pins) -> Iterator[Finding]:
    package = DISTRIBUTIONS.get(top, (plain(top),))[0]
    yield from look.finding(
        "package-not-listed",
        "warning",
        at,
        f"it imports `{top}`, which {packages.where} of the job's environment does not list",
        f"add `{package}` there",
    )


@cache
def _by_module() -> Mapping[str, list[str]]:
    """The locally installed packages, by their modules."""
    import importlib.metadata  # takes 20 ms, and is not needed where every import is listed

    return importlib.metadata.packages_distributions()


def brought_by(packages: Pins) -> tuple[frozenset[str], frozenset[str]]:
    """The packages that come along, by what is installed here; and those that are not, and may bring anything."""
    return _closure(packages.names, packages.with_extras)


@cache
def _closure(pins: frozenset[str], with_extras: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    import importlib.metadata

    found: set[str] = set()
    unknown, waiting = set[str](), [*pins]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            unknown |= {name} - {"python", "pip", "setuptools", "wheel"}
            continue
        wanted = requires if name in with_extras else [one for one in requires if "extra ==" not in one]
        waiting += [plain(match[1]) for one in wanted if (match := REQUIREMENT.match(one))]
    return frozenset(found), frozenset(unknown)
