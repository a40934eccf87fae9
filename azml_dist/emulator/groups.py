"""Sweeps and pipelines that run: a thread for each submits its children, and ends with them."""

from __future__ import annotations

import math
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from azml_dist.emulator.children import needs, step_body, trials
from azml_dist.emulator.jobs import TERMINAL, Job, JobRoutes
from azml_dist.emulator.wire import Json, Refusal
from azml_dist.emulator.world import NotEmulatedError


@dataclass
class GroupRun:
    """One execution of a sweep or a pipeline."""

    job: Job
    routes: JobRoutes
    submit: Callable[[Job], object]
    """Lets a child run."""
    children: dict[str, Job] = field(default_factory=dict)
    """By the name of the step, or the number of the trial."""

    def start(self) -> GroupRun:
        """Begin; the job moves on by itself from here."""
        self.job.on_cancel = self.cancel
        self._thread = threading.Thread(target=self._run, name=f"run of {self.job.name}", daemon=True)
        self._thread.start()
        return self

    def cancel(self) -> None:
        """End the children, and with them the job."""
        with self.job.workspace.changed:
            if self.job.status not in TERMINAL:
                self.job.advance("CancelRequested")
        for child in list(self.children.values()):
            if child.status not in TERMINAL:
                child.advance("CancelRequested")
                if child.on_cancel:
                    child.on_cancel()

    def wait(self, timeout: float = 60) -> None:
        """Block until the job has ended."""
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self.job.advance("Running")
            play = self._sweep if self.job.body["jobType"] == "Sweep" else self._pipeline
            failure = play()
            if self._is_canceled():
                self.job.advance("Canceled")
            elif failure:
                self.job.fail(failure)
            else:
                self.job.advance("Completed")
        except (NotEmulatedError, Refusal) as error:
            self.job.fail(f"The emulator cannot run this job: {error}")
        except Exception:
            self.job.fail(f"The emulator failed:\n{traceback.format_exc()}")
        finally:
            if self.job.status != "Completed":
                self.cancel()

    def _is_canceled(self) -> bool:
        return self.job.status == "CancelRequested"

    def _start_child(self, key: str, name: str, body: Json) -> Job:
        child = self.routes.adopt(name, {key: value for key, value in body.items() if value is not None}, self.job)
        self.children[key] = child
        self.submit(child)
        return child

    def _await(self, condition: Callable[[], bool]) -> None:
        """Until something that the children do makes it true, or the job is cancelled."""
        changed = self.job.workspace.changed
        with changed:
            changed.wait_for(lambda: condition() or self._is_canceled())

    def _open(self) -> list[Job]:
        return [child for child in self.children.values() if child.status not in TERMINAL]

    # Sweeps

    def _sweep(self) -> str | None:
        body = self.job.body
        if body.get("earlyTermination"):
            self.job.warnings.append("The emulator stops no trial early: it does not play `early_termination`.")
        most = (body.get("limits") or {}).get("maxConcurrentTrials") or 1000
        for number, (_, trial) in enumerate(trials(body)):
            self._await(lambda: len(self._open()) < most)
            if self._is_canceled():
                return None
            self._start_child(str(number), f"{self.job.name}_{number}", trial)
        self._await(lambda: not self._open())
        self._name_the_best()
        ended = [child.status for child in self.children.values()]
        return None if "Completed" in ended else "All trials failed."

    def _name_the_best(self) -> None:
        """As documented: the property `best_child_run_id`; trials are compared by the best value that each logged.

        Of equal trials it is the first, and NaN is the worst value (inferred; nothing documented says either).
        """
        objective = self.job.body["objective"]
        metric, sign = objective["primaryMetric"], -1 if objective["goal"].lower() == "minimize" else 1
        values = {
            child.name: [sign * point["value"] for point in child.metrics[metric]]
            for child in self.children.values()
            if child.status == "Completed" and metric in child.metrics
        }
        scored = {
            name: max(-math.inf if math.isnan(value) else value for value in logged) for name, logged in values.items()
        }
        if scored:
            properties = self.job.body.get("properties") or {}
            self.job.body["properties"] = {**properties, "best_child_run_id": max(scored, key=scored.__getitem__)}
        else:
            self.job.warnings.append(f"No trial logged the primary metric `{metric}`.")

    # Pipelines

    def _pipeline(self) -> str | None:
        steps: Json = self.job.body["jobs"]
        left = dict(steps)
        goes_on = (self.job.body.get("settings") or {}).get("continue_on_step_failure")
        while not self._is_canceled():
            for name in [name for name, step in left.items() if self._is_ready(step)]:
                self._start_step(name, left.pop(name))
            seen = {name: child.status for name, child in self.children.items()}
            failed = [name for name, status in seen.items() if status in ("Failed", "Canceled")]
            if failed and not goes_on:
                return f"Step {failed[0]} has {seen[failed[0]].lower()}."
            running = sum(status not in TERMINAL for status in seen.values())
            if not running:
                return f"Steps that did not complete: {', '.join([*failed, *left])}." if failed or left else None
            self._await(lambda before=running: len(self._open()) != before)  # type: ignore[misc] # a default
        return None

    def _is_ready(self, step: Json) -> bool:
        return all(name in self.children and self.children[name].status == "Completed" for name in needs(step))

    def _start_step(self, name: str, step: Json) -> None:
        spec = self.routes.component(step)
        body = step_body(step, spec, self.job.body, self.job.output_uri, self._as_input)
        if step.get("type") == "sweep":
            raise NotEmulatedError(f"step {name}: a sweep in a pipeline")
        self._start_child(name, f"{self.job.name}_{name}", {**body, "displayName": name})

    def _as_input(self, step: str, output: str) -> Json:
        child = self.children[step]
        if output == "artifacts":  # as in azureml-examples' hello-pipeline-default-artifacts.yml
            store = "azureml://datastores/workspaceartifactstore/paths"
            return {"jobInputType": "uri_folder", "uri": f"{store}/{child.artifacts}"}
        return {"jobInputType": child.body["outputs"][output]["jobOutputType"], "uri": child.output_uri(output)}
