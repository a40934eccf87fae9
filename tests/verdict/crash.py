"""The same failure again and again, while the machine is busy: it is always the same rank, exception and file."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from azml_dist import Job, Local, PyTorch, RunFailed

SCRIPT = """\
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
for step in range(20):
    ones = torch.ones(4)
    dist.all_reduce(ones)
    if rank == 0:
        print(f"step {step} loss {1 / (step + 1):.3f}", flush=True)
    if rank == 2 and step == 10:
        batch = {"image": ones}
        batch["labels"]
dist.destroy_process_group()
"""
RIGHT = ("user-code", "certain", 2, "KeyError", "crash.py", 13, 2)


@contextlib.contextmanager
def busy(loops: int = 2) -> Iterator[None]:
    """So many processes take all that a core has."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def crash(folder: Path, launcher: str) -> tuple[object, ...]:
    """What is said of the failure: by the verdict, and the rank that the run itself names."""
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "src" / "crash.py").write_text(SCRIPT)
    job = Job(
        command="python crash.py",
        code=str(folder / "src"),
        node_count=2,
        distribution=PyTorch(process_count_per_node=2),
    )
    options: dict[str, Any] = {"launcher": launcher}
    run = Local(root=folder / "runs", **options).submit(job)
    with contextlib.suppress(RunFailed):
        run.wait(300)
    found = run.verdict()
    if found is None:
        return ("no verdict",)
    failed_rank = run.state().failed_rank
    return found.kind, found.certainty, found.rank, found.exception, found.file, found.line, failed_rank


def main() -> int:
    wrong = 0
    with busy(), tempfile.TemporaryDirectory() as root:
        for number in range(int(sys.argv[1])):
            for launcher in ("torchrun", "direct"):
                found = crash(Path(root, str(number), launcher), launcher)
                wrong += found != RIGHT
                print(f"{number + 1} {launcher}: {'right' if found == RIGHT else found}", flush=True)
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
