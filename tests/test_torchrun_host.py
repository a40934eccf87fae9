"""The process that becomes the agents of torchrun imports what they need before they part."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from needs import needs

from azml_dist.local.launchers import torchrun_host

AGENT = """\
import json, sys
from torch.distributed.run import main
for name in json.loads(sys.argv[1]):
    __import__(name)
before = set(sys.modules)
main(sys.argv[3:])
with open(sys.argv[2], "w") as told:
    json.dump(sorted(set(sys.modules) - before), told)
"""


@needs("torch")
def test_an_agent_imports_nothing_by_itself(tmp_path: Path) -> None:
    """What each agent imported would be in memory once for each node."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    static = ["--nnodes=1", "--node-rank=0", "--master-addr=127.0.0.1", f"--master-port={port}"]
    told = [json.dumps(torchrun_host.NEEDED_LATER), str(tmp_path / "told"), *static, "--no-python", "true"]

    subprocess.run([sys.executable, "-c", AGENT, *told], check=True, capture_output=True)

    assert json.loads((tmp_path / "told").read_text()) == []
