"""A workspace of Azure Machine Learning on this machine: the real azure-ai-ml talks to it and knows no difference.

    def test_a_submission(azureml: EmulatedWorkspace) -> None:
        job = azureml.submit(command(command="echo hello", environment=Environment(image="any"), compute="gpu-cluster"))
        assert job.wait() == "Completed"        # what was sent became a process on this machine
        assert job.log("user_logs/std_log.txt") == "hello\\n"

It is written from Azure's documentation and from what clients send, and imports nothing of the rest of the package.
Public names load on first use.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .credential import StaticToken as StaticToken
    from .faults import answer as answer
    from .faults import delay as delay
    from .faults import odd as odd
    from .faults import reset_after as reset_after
    from .faults import reset_before as reset_before
    from .jobs import Job as Job
    from .knobs import Knobs as Knobs
    from .node import JobRun as JobRun
    from .service import Emulator as Emulator
    from .state import Cluster as Cluster
    from .state import Datastore as Datastore
    from .testing import EmulatedWorkspace as EmulatedWorkspace
    from .testing import emulated_workspace as emulated_workspace
    from .testing import start as start
    from .wire import Request as Request
    from .world import Runtime as Runtime

_HOME = {
    "credential": "StaticToken",
    "faults": "answer delay odd reset_after reset_before",
    "jobs": "Job",
    "knobs": "Knobs",
    "node": "JobRun",
    "service": "Emulator",
    "state": "Cluster Datastore",
    "testing": "EmulatedWorkspace emulated_workspace start",
    "wire": "Request",
    "world": "Runtime",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value
