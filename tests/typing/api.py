"""What users write, for the type checker alone: this file is never run."""

from pathlib import Path

from azml_dist import (
    Environment,
    Input,
    Job,
    LaunchPlan,
    Local,
    Mpi,
    Output,
    Pipeline,
    PyTorch,
    Run,
    RunFailed,
    RunStatus,
    Sweep,
    diff,
    plot,
    submit,
)
from azml_dist import run as find
from azml_dist.local.groups.run import GroupRun
from azml_dist.local.run import LocalRun
from azml_dist.verdict.recovery import Recovery

job: Job = Job(
    command=["python", "train.py", "--lr", "${{inputs.lr}}"],
    code="src",
    node_count=2,
    distribution=PyTorch(process_count_per_node=4),
    inputs={"lr": 0.1, "data": Input(path="azureml:cifar10:1")},
    outputs={"model": Output()},
    environment=Environment(image="an/image"),
    environment_variables={"KEY": None},
)
plan: LaunchPlan = job.plan()
rank: int = plan.processes[3].rank
port: str = plan.processes[3].env["MASTER_PORT"]
other: Job = job.with_(distribution=Mpi(process_count_per_node=1))
dry: LaunchPlan = submit(job, dry_run=True)
run: Run = submit(job, on=Local(inputs={"data": Path("data")}, root="runs", timeout=60))
run = submit(job, on=Local(faults=["kill:rank=1@step=3"], fault_seed=7, step_pattern=r"batch (\d+)", against="calm"))
recovered: Recovery | None = run.recovery()
run = submit(job, on="local")
submit(job, check=False)
run = submit(job, max_cost=100.0)
sweep: Sweep = Sweep.load("sweep.yml").with_set("limits.max_total_trials=2")
run = submit(sweep, on="local")
trials: GroupRun = Local().submit(sweep, at_a_time=2)
trial: LocalRun = trials.members["trial 0"]
pipeline: Pipeline = Pipeline.load("pipeline.yml")
run = submit(pipeline, on="local")
status: RunStatus = run.wait(timeout=5).status
lines: list[str] = list(run.logs(rank=3, follow=True))
copied: Path = run.download("out")
copied = run.download("out", only=["outputs/model"], so_far=True)
bundled: Path = run.bundle()
differs: dict[str, object] = diff(run, job).to_dict()
metrics: dict[str, float] = find("name").metrics()
steps: list[int] = [point.step for point in find("name").metrics().history("loss")]
png: bytes = plot(find("a"), find("b"), metrics=["loss"])._repr_png_()
board: str | None = find("name").services["board"].url
registered: str = find("name").register("digits", output="model").reference
watched: Run = submit(job, on=Local(services=True))
try:
    run.wait()
except RunFailed as failed:
    first: int | None = failed.failed_rank
    tail: str = failed.log_tail

repeated: Run = submit(run, on="local")
repeated = submit(run.rerun(download="all", sample=3, resume=True), on="local")
of_run: Job = Job.from_run(run)
sent_again: Run = submit(run)
