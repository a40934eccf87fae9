"""One submission, timed: `python -m bench.azure_client ours|sdk WHAT FOLDER`. Prints the seconds of it alone.

A process of its own, so that the emulated service does not share an interpreter with the client.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MANY = 100
ENVIRONMENT = "torch@latest"


class Token:
    """The emulator's token, handed over in a variable."""

    def get_token(self, *_: str, **__: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken(os.environ["BENCH_TOKEN"], int(time.time()) + 3600)


def ours(what: str, folder: Path) -> Callable[[], object]:
    from azml_dist import AzureML, Job, Workspace

    azure = AzureML(Workspace(*ids(), credential=Token()), check=what.startswith("checked"))
    what = what.removeprefix("checked ")

    def jobs(count: int) -> list[Job]:
        one = Job(
            command="echo ${{inputs.lr}}",
            code=str(folder),
            environment=f"azureml:{ENVIRONMENT}",
            compute="gpu-cluster",
            inputs={"lr": 0},
        )
        return [one.with_(inputs={"lr": i}) for i in range(count)]

    _ = azure.workspace.client  # imports azure-ai-ml, as the peer has done by now
    if what == "again":
        azure.submit(jobs(1)[0])
    if what == "many":
        return lambda: azure.submit_all(jobs(MANY))
    return lambda: azure.submit(jobs(1)[0])


def sdk(what: str, folder: Path) -> Callable[[], object]:
    from azure.ai.ml import MLClient, command

    client = MLClient(Token(), *ids())

    def submit(count: int) -> None:
        for i in range(count):
            client.jobs.create_or_update(
                command(
                    command="echo ${{inputs.lr}}",
                    code=str(folder),
                    environment=ENVIRONMENT,
                    compute="gpu-cluster",
                    inputs={"lr": i},
                )
            )

    if what == "again":
        submit(1)
    return lambda: submit(MANY if what == "many" else 1)


def ids() -> tuple[str, str, str]:
    return os.environ["BENCH_SUBSCRIPTION"], os.environ["BENCH_GROUP"], os.environ["BENCH_WORKSPACE"]


CONTENDERS: Mapping[str, Callable[[str, Path], Callable[[], object]]] = {"ours": ours, "sdk": sdk}


def main() -> None:
    who, what, folder = sys.argv[1:]
    warnings.simplefilter("ignore")
    submit = CONTENDERS[who](what, Path(folder))
    # Counting starts here.
    Path(os.environ["BENCH_READY"]).touch()
    while not Path(os.environ["BENCH_GO"]).exists():
        time.sleep(0.01)
    began = time.perf_counter()
    submit()
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
