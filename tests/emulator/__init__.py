"""An emulator of Azure Machine Learning for tests: the real azure-ai-ml client talks to it and knows no difference.

    def test_a_submit(emulator: Emulator, ml_client: MLClient) -> None:
        emulator.assets.add_environment("torch")
        ml_client.jobs.create_or_update(command(name="one", environment="torch:1", compute="gpu-cluster", ...))
        run = emulator.run("one")               # the wire body becomes processes on this machine
        assert run.job.status == "Completed"
        assert emulator.counts()["jobs.put"] == 1

The fixtures are in `emulator.fixtures`. The emulator is written from Azure's documentation and from what the client
sends; it imports nothing of the package under test. Public names load on first use.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .credential import StaticToken as StaticToken
    from .faults import answer as answer
    from .faults import delay as delay
    from .faults import reset_after as reset_after
    from .faults import reset_before as reset_before
    from .jobs import Job as Job
    from .node import JobRun as JobRun
    from .service import Emulator as Emulator
    from .state import Cluster as Cluster
    from .state import Datastore as Datastore
    from .wire import Request as Request

_HOME = {
    "credential": "StaticToken",
    "faults": "answer delay reset_after reset_before",
    "jobs": "Job",
    "node": "JobRun",
    "service": "Emulator",
    "state": "Cluster Datastore",
    "wire": "Request",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value
