#!/usr/bin/env bash
# A job is submitted, followed, fails, is explained, repeated here, fixed and submitted again: `make demo-azure`.
# The workspace is on this machine, so nothing needs an account; it has a cluster of small machines without GPUs.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir -p code/shards

cat > code/train.py <<'PYTHON'
import json
import os
from pathlib import Path

rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
records = json.loads(Path(f"shards/{rank}.json").read_text())
total = 0
for step, record in enumerate(records):
    total += record["label"]
    print(f"rank {rank} of {world_size}, step {step}: label {record['label']}", flush=True)
Path(os.environ["AZURE_ML_OUTPUT_model"], f"{rank}.txt").write_text(str(total))
PYTHON

for rank in 0 1 2 3; do
    echo "[{\"label\": $rank}, {\"label\": 1}]" > code/shards/$rank.json
done
sed -i.before 's/{"label": 1}/{"lable": 1}/' code/shards/2.json && rm code/shards/2.json.before # the mistake

cat > job.yml <<'YAML'
command: python train.py
code: code
environment: azureml://registries/azureml/environments/sklearn-1.5/labels/latest
compute: azureml:cpu-cluster
outputs:
  model:
    type: uri_folder
resources:
  instance_count: 2
distribution:
  type: pytorch
  process_count_per_instance: 2
YAML

# Shows a command, and runs it: its exit code is 1 if the run failed.
step() {
    printf '\n\033[1m# %s\033[0m\n$ %s\n' "$1" "${*:2}"
    "${@:2}" || [ $? = 1 ]
}

step "submit a job" azml-dist submit job.yml --set name=first
step "follow its logs" azml-dist logs first --follow
step "why did it fail?" azml-dist why first
step "the same run here, from its own code" azml-dist rerun first --launcher direct
step "the mistake is in the data of rank 2" cat code/shards/2.json
step "fix it" sed -i.before 's/lable/label/' code/shards/2.json
rm code/shards/2.json.before
step "and submit again" azml-dist submit job.yml --set name=second --wait
step "what it made" azml-dist download second --to result
find result -type f | sort
