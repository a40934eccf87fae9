"""Distributed training jobs for Azure ML: describe a run once, run it locally, then submit the same run.

Public names load on first use (PEP 562), so that `import azml_dist` costs about a millisecond.
"""

from azml_dist.version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from azml_dist.api import list_runs as list_runs
    from azml_dist.api import run as run
    from azml_dist.api import submit as submit
    from azml_dist.azureml.executor import AzureML as AzureML
    from azml_dist.azureml.workspace import Workspace as Workspace
    from azml_dist.errors import AuthError as AuthError
    from azml_dist.errors import DistError as DistError
    from azml_dist.errors import JobError as JobError
    from azml_dist.errors import LaunchError as LaunchError
    from azml_dist.errors import NotFound as NotFound
    from azml_dist.errors import RunFailed as RunFailed
    from azml_dist.errors import SubmitError as SubmitError
    from azml_dist.job import Environment as Environment
    from azml_dist.job import Input as Input
    from azml_dist.job import Job as Job
    from azml_dist.job import Mpi as Mpi
    from azml_dist.job import Output as Output
    from azml_dist.job import PyTorch as PyTorch
    from azml_dist.job import Ray as Ray
    from azml_dist.job import TensorFlow as TensorFlow
    from azml_dist.local.executor import Local as Local
    from azml_dist.pipeline import Pipeline as Pipeline
    from azml_dist.plan.plan import LaunchPlan as LaunchPlan
    from azml_dist.runs.difference import diff as diff
    from azml_dist.runs.download import DownloadFailed as DownloadFailed
    from azml_dist.runs.plot import plot as plot
    from azml_dist.runs.run import Run as Run
    from azml_dist.status import RunStatus as RunStatus
    from azml_dist.sweep import Sweep as Sweep

_HOME = {
    "azml_dist.errors": "DistError JobError LaunchError SubmitError AuthError NotFound RunFailed",
    "azml_dist.job": "Job PyTorch TensorFlow Mpi Ray Environment Input Output",
    "azml_dist.pipeline": "Pipeline",
    "azml_dist.plan.plan": "LaunchPlan",
    "azml_dist.azureml.executor": "AzureML",
    "azml_dist.azureml.workspace": "Workspace",
    "azml_dist.local.executor": "Local",
    "azml_dist.api": "list_runs run submit",
    "azml_dist.runs.run": "Run",
    "azml_dist.runs.plot": "plot",
    "azml_dist.runs.difference": "diff",
    "azml_dist.status": "RunStatus",
    "azml_dist.runs.download": "DownloadFailed",
    "azml_dist.sweep": "Sweep",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
