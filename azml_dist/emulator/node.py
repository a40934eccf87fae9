"""Runs a submitted job: its wire body becomes processes on this machine, by the service's rules."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from azml_dist.emulator import guard
from azml_dist.emulator.assets import AssetRoutes
from azml_dist.emulator.jobs import Job
from azml_dist.emulator.knobs import Knobs
from azml_dist.emulator.places import SPECIAL, Places
from azml_dist.emulator.wire import Refusal
from azml_dist.emulator.world import (
    Meeting,
    NotEmulatedError,
    Process,
    literals,
    node_count,
    processes,
    render,
    seconds,
)

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV")
"""What processes get of this machine's environment, with this Python first: an image's stand-in."""
_GRACE = 2.0
"""Seconds between TERM and KILL of a cancelled job."""

_IMAGE_LOG = "azureml-logs/20_image_build_log.txt"
_IMAGE_MESSAGE = f"Image build failed. For more details, check log file {_IMAGE_LOG}."
"""As users quote it (Azure/MachineLearningNotebooks)."""


class ImageError(Exception):
    """The build of the image failed, as was asked for."""


class JobRun:
    """One execution of a job, in its own thread. `exit_codes` holds the exit code of each rank at the end."""

    def __init__(
        self, job: Job, assets: AssetRoutes, *, env: Mapping[str, str] | None = None, knobs: Knobs | None = None
    ) -> None:
        self.job = job
        self.on_end: Callable[[], None] | None = None
        """Called when the job and everything it started are gone."""
        self.exit_codes: dict[int, int] = {}
        self.failed_rank: int | None = None
        """The rank that failed first, by itself."""
        self.attempt = 0
        """How often the job was started again on other nodes."""
        self._assets = assets
        self._knobs = knobs or Knobs()
        self._extra = {**self._knobs.job_env, **(env or {})}
        self._timers: list[threading.Timer] = []
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._pumps: list[threading.Thread] = []
        self._ended: queue.Queue[tuple[int, int] | None] = queue.Queue()
        self._cancelled = threading.Event()
        self._preempted = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"run of {job.name}", daemon=True)
        job.on_cancel = self.cancel
        if job.status == "CancelRequested":
            self.cancel()

    def start(self) -> JobRun:
        """Begin; the job moves on by itself from here."""
        self._thread.start()
        return self

    def wait(self, timeout: float = 60) -> str:
        """Block until the job and everything it started are gone; the job's status then."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"job {self.job.name} is still {self.job.status} after {timeout} s")
        return self.job.status

    def cancel(self) -> None:
        """Stop the processes; the job ends as Canceled."""
        self._cancelled.set()
        self._ended.put(None)

    def preempt(self) -> None:
        """Take the nodes away, as from a cluster of spot nodes: the job starts again on others, and keeps its name.

        Their working directories are lost; named outputs are mounts, and stay.
        """
        self._preempted.set()
        self._ended.put(None)

    def _run(self) -> None:
        """The end is told last: nothing of the job is left then, and its nodes are free."""
        tell_the_end = self._live()
        if self.on_end:
            self.on_end()
        tell_the_end()

    def _live(self) -> Callable[[], None]:
        try:
            with tempfile.TemporaryDirectory(prefix="emulated-job-", ignore_cleanup_errors=True) as root:
                folder = Path(root).resolve()
                with _guarded(folder):
                    world = self._attempts(Places(folder, self.job, self._assets))
            return lambda: self._settle(world)
        except ImageError:
            return lambda: self.job.fail(_IMAGE_MESSAGE, "UserError", "ImageBuildFailure")
        except (NotEmulatedError, Refusal) as error:
            message = f"Execution failed. The emulator cannot run this job: {error}"
        except Exception:
            message = f"The emulator failed:\n{traceback.format_exc()}"
        return lambda: self.job.fail(message)

    def _attempts(self, places: Places) -> list[Process]:
        try:
            world = self._once(places)
            while self._preempted.is_set() and not self._cancelled.is_set():
                self._begin_again(places)
                world = self._once(places)
            if self._running:
                self._finish(places)
            return world
        finally:
            for timer in self._timers:
                timer.cancel()
            self._kill(signal.SIGKILL)

    def _once(self, places: Places) -> list[Process]:
        """One attempt, to the end of its processes."""
        self.job.advance("Preparing")
        self._build_image()
        world = self._prepare(places)
        if not self._cancelled.is_set():
            self.job.advance("Running")
            self._start(world, places)
            self._disturb()
            self._supervise(world, seconds((self.job.body.get("limits") or {}).get("timeout")))
        return world

    def _build_image(self) -> None:
        """As long as a build of the image takes; a failed one ends the job."""
        if self.attempt == 0 and self._knobs.image_seconds:
            self._cancelled.wait(self._knobs.image_seconds)
        if self._knobs.image_failure is not None and not self._cancelled.is_set():
            self.job.write_log(_IMAGE_LOG, self._knobs.image_failure + "\n")
            raise ImageError

    def _disturb(self) -> None:
        """What the knobs ask for: a rank that dies, nodes that are taken away."""
        rank = self._knobs.fail_rank
        if rank in self._running:
            self._later(self._knobs.fail_after, lambda: _kill_group(self._running[rank].pid, signal.SIGKILL))
        if self.attempt == 0 and self._knobs.preempt_after is not None:
            self._later(self._knobs.preempt_after, self.preempt)

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, function)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _begin_again(self, places: Places) -> None:
        self._preempted.clear()
        self.attempt += 1
        self._end_what_is_left(places)
        self.job.advance("Queued")
        self.exit_codes.clear()
        self._running.clear()
        places.lose_nodes()

    def _prepare(self, places: Places) -> list[Process]:
        nodes = node_count(self.job.body)
        addresses = tuple(f"127.0.0.{1 + node}" for node in range(nodes))
        runtime = self.job.workspace.runtime
        first = runtime.task_port
        here = Meeting(
            addresses,
            _free_port(),
            task_port=lambda node, nth: first + nth if first else _free_port(),
            runtime=runtime,
        )
        world = processes(self.job.body, here)
        if self.attempt == 0:
            self._inputs = places.stage_inputs()
            self._outputs = places.make_outputs()
        else:
            world = [replace(process, log=self._log_of_the_attempt(process.log)) for process in world]
        places.stage_code(nodes)
        self._command = render(self.job.body["command"], self._inputs, self._outputs)
        return world

    def _log_of_the_attempt(self, log: str) -> str:
        folder, _, name = log.rpartition("/")
        return f"{folder}/retry_{self.attempt:03d}/{name}"

    def _start(self, world: list[Process], places: Places) -> None:
        self.job.write_log("system_logs/lifecycler/execution-wrapper.log", f"starting {len(world)} processes\n")
        for process in world:
            child = subprocess.Popen(
                ["bash", "-c", self._command],
                cwd=places.working_dir(process.node),
                env=self._environment(process, places),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running[process.rank] = child
            pump = threading.Thread(target=self._pump, args=(process, child), daemon=True)
            self._pumps.append(pump)
            pump.start()

    def _pump(self, process: Process, child: subprocess.Popen[bytes]) -> None:
        """Write a process's output to its log as it arrives, then report its end."""
        watcher = threading.Thread(target=lambda: self._ended.put((process.rank, child.wait())), daemon=True)
        watcher.start()
        assert child.stdout
        with child.stdout:
            while chunk := os.read(child.stdout.fileno(), 1 << 20):
                self.job.write_log(process.log, chunk)
        watcher.join()

    def _supervise(self, world: list[Process], limit: float | None) -> None:
        """Until every process has ended; the first that fails takes the others with it."""
        deadline = None if limit is None else time.monotonic() + limit
        awaited = {process.rank for process in world if process.ends}
        stopping = False
        while len(self.exit_codes) < len(self._running):
            try:
                event = self._ended.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.job.warnings.append("The job reached its timeout.")
                self._cancelled.set()
                event, deadline = None, None
            if event is None:
                stopping = True
                self._terminate() if self._cancelled.is_set() else self._kill(signal.SIGKILL)
                continue
            rank, code = event
            self.exit_codes[rank] = code
            if not stopping and (code != 0 or awaited <= self.exit_codes.keys()):
                self.failed_rank = rank if code != 0 else None
                stopping = True
                self._kill(signal.SIGKILL)  # parameter servers, too, which are left when all workers are done

    def _terminate(self) -> None:
        self._kill(signal.SIGTERM)
        timer = threading.Timer(_GRACE, self._kill, args=(signal.SIGKILL,))
        timer.daemon = True
        timer.start()

    def _kill(self, number: signal.Signals) -> None:
        """Signal the group of every process that was started, for what it may have left behind too."""
        for child in self._running.values():
            _kill_group(child.pid, number)

    def _finish(self, places: Places) -> None:
        if not self._cancelled.is_set():
            self.job.advance("Finalizing")
        self._end_what_is_left(places)
        places.upload_outputs(node_count(self.job.body))

    def _end_what_is_left(self, places: Places) -> None:
        """End what the processes left in the background, even in sessions of their own; then read the last lines."""
        self._kill(signal.SIGKILL)
        guard.end_all(os.fsencode(places.root))
        for pump in self._pumps:
            pump.join(timeout=10)
        self._pumps.clear()

    def _settle(self, world: list[Process]) -> None:
        if self._cancelled.is_set():
            self.job.advance("Canceled")
        elif self.failed_rank is None:
            self.job.advance("Completed")
        else:
            log = next(process.log for process in world if process.rank == self.failed_rank)
            tail = "\n".join(self.job.log(log).splitlines()[-5:]) if log in self.job.log_names() else ""
            self.job.fail(
                f"Execution failed. User process 'bash' exited with status code {self.exit_codes[self.failed_rank]}. "
                f"Please check log file '{log}' for error details. Error: {tail}"
            )

    def _environment(self, process: Process, places: Places) -> dict[str, str]:
        """All variables of one process; what the runtime sets is stronger than what the job asks for."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        asked = {name: str(value) for name, value in (self.job.body.get("environmentVariables") or {}).items()}
        values = literals(self.job.body)
        inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
        nodes = str(node_count(self.job.body))
        env = {**inherited, **self._extra, **asked, **self._ids(), "AZUREML_NODE_COUNT": nodes}
        for name, value in self._inputs.items():
            if name in values:
                env[f"AZUREML_PARAMETER_{name}"] = value
            else:
                env[f"AZURE_ML_INPUT_{name}"] = env[f"AZUREML_DATAREFERENCE_{name}"] = value
        for name, value in self._outputs.items():
            env[f"AZURE_ML_OUTPUT_{name}"] = env[name] = value
        directory = str(places.working_dir(process.node))
        env["PWD"] = env["AZUREML_CR_EXECUTION_WORKING_DIR_PATH"] = directory
        for name in SPECIAL:
            env[f"AZUREML_CR_HT_CAP_{name.replace('-', '_')}_PATH"] = f"{directory}/{name}"
        env["AZUREML_CR_DATA_CAPABILITY_PATH"] = str(places.root / "cap")
        env["AZUREML_CR_COMPUTE_CONTEXT"] = json.dumps(self._compute(process.node), separators=(",", ":"))
        unset = self.job.workspace.runtime.unset
        return {name: value for name, value in {**env, **process.env}.items() if name not in unset}

    def _compute(self, node: int) -> dict[str, object]:
        """What the runtime knows of the machine, under the names that a job of Kubernetes had."""
        body = self.job.body
        return {
            "cluster_name": (body.get("computeId") or "").rpartition("/")[2] or None,
            "node_id": f"tvmps_{node}",
            "vm_id": None,
            "run_attempt_count": 1 + self.attempt,
            "gpu_count": 0,
            "vm_size": (body.get("resources") or {}).get("instanceType"),
            "vm_priority": None,
        }

    def _ids(self) -> dict[str, str]:
        """Who the job is, and where its service is."""
        here, experiment = self.job.workspace, self.job.body.get("experimentName") or "Default"
        experiment_id = f"{here.workspace_id[:-4]}0001"
        scope = here.arm_id
        return {
            "AZUREML_RUN_ID": self.job.name,
            "AZUREML_ROOT_RUN_ID": self.job.name,
            "AZUREML_EXPERIMENT_ID": experiment_id,
            "AZUREML_EXPERIMENT_SCOPE": f"{scope}/experiments/{experiment}",
            "AZUREML_ARM_SUBSCRIPTION": here.subscription_id,
            "AZUREML_ARM_RESOURCEGROUP": here.resource_group,
            "AZUREML_ARM_WORKSPACE_NAME": here.name,
            "AZUREML_ARM_PROJECT_NAME": experiment,
            "AZUREML_WORKSPACE_ID": here.workspace_id,
            "AZUREML_WORKSPACE_SCOPE": scope,
            "AZUREML_RUN_TOKEN": here.run_token,
            "AZUREML_SERVICE_ENDPOINT": here.api_url,
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{here.api_url}/discovery",
            "AZUREML_RUN_HISTORY_SERVICE_ENDPOINT": here.api_url,
            "MLFLOW_TRACKING_URI": f"azureml://{here.region}.api.azureml.ms/mlflow/v1.0{scope}",
            "MLFLOW_TRACKING_TOKEN": here.run_token,
            "MLFLOW_RUN_ID": self.job.name,
            "MLFLOW_EXPERIMENT_ID": experiment_id,
            "MLFLOW_EXPERIMENT_NAME": experiment,
        }


@contextlib.contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """At the end of the block, or of this process, what has the folder in its environment is ended."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, str(folder)],
        cwd="/",
        env=os.environ.copy(),  # the variables themselves may move while another thread sets one
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the emulator, which ends its jobs first
    )
    try:
        yield
    finally:
        process.communicate()


def _kill_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _free_port() -> int:
    """A port that rank 0 may listen on: on one machine jobs cannot all have the service's 6105."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
