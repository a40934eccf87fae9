"""Code brought home, timed: `python -m bench.home_client ours|sdk CODE FOLDER`. Prints the seconds of it alone.

`upload FOLDER` puts code there first, and prints its id.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from bench.azure_client import Token, ids


def upload(folder: str) -> str:
    from azml_dist import Workspace
    from azml_dist.azureml.code import code_id
    from azml_dist.plan.snapshot import take_snapshot

    return code_id(Workspace(*ids(), credential=Token()), take_snapshot(folder), threading.Event())


def ours(code: str, folder: str) -> Callable[[], int]:
    from azml_dist import Workspace
    from azml_dist.azureml.snapshot import code_home

    workspace = Workspace(*ids(), credential=Token())
    _ = workspace.client  # imports azure-ai-ml, as the peer has done by now
    return lambda: len(code_home(workspace, code, "bench").files)


def sdk(code: str, folder: str) -> Callable[[], int]:
    from azure.ai.ml import MLClient

    operations = MLClient(Token(), *ids())._code
    name, version = code.split("/")[-3], code.split("/")[-1]

    def download() -> int:
        operations.download(name, version, folder)
        return sum(len(files) for _, _, files in os.walk(folder))

    return download


def main() -> None:
    warnings.simplefilter("ignore")
    who, *rest = sys.argv[1:]
    if who == "upload":
        print(upload(*rest))
        return
    fetch = {"ours": ours, "sdk": sdk}[who](*rest)
    Path(os.environ["BENCH_READY"]).touch()
    while not Path(os.environ["BENCH_GO"]).exists():
        time.sleep(0.01)
    began = time.perf_counter()
    count = fetch()
    seconds = time.perf_counter() - began
    if count != int(os.environ.get("BENCH_FILES", "2000")):
        raise SystemExit(f"{count} files came")
    print(seconds)


if __name__ == "__main__":
    main()
