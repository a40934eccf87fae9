"""Run this sample: python submit.py --dry-run | --local | --compute gpu-cluster [--nodes N --servers N]."""

import argparse
import sys
from pathlib import Path

from azml_dist import DistError, Job, TensorFlow, submit


def main() -> None:
    job = Job.load(Path(__file__).with_name("job.yml"))
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--dry-run", action="store_true", help="show what the job means, and start nothing")
    where.add_argument("--local", action="store_true", help="run it on this machine")
    where.add_argument("--compute", metavar="CLUSTER", help="run it on this cluster of your Azure ML workspace")
    parser.add_argument("--nodes", type=int, default=job.node_count, help="number of nodes, each with one worker")
    parser.add_argument("--servers", type=int, default=1, help="parameter servers; at most one on each node")
    args = parser.parse_args()

    job = job.with_(
        node_count=args.nodes,
        distribution=TensorFlow(parameter_server_count=args.servers),
        compute=args.compute or job.compute,
    )
    if args.dry_run:
        print(job.plan())
        return
    run = submit(job, on="local" if args.local else None)
    print(f"run {run.name}: {run.url}", file=sys.stderr)
    if args.compute:
        print(f"follow it with: azml-dist logs {run.name} --follow", file=sys.stderr)
        return
    try:
        for line in run.logs(follow=True):
            print(line, flush=True)
    except KeyboardInterrupt:
        run.cancel()
    run.wait()
    for name, folder in run.outputs.items():
        print(f"output {name}: {folder}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except DistError as error:
        sys.exit(f"error: {error}")
