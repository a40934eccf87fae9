"""The folders of a job that runs here, and what moves between them and the blobs."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from azml_dist.emulator.assets import AssetRoutes
from azml_dist.emulator.jobs import Job
from azml_dist.emulator.wire import Json
from azml_dist.emulator.world import NotEmulatedError, literals

SPECIAL = ("outputs", "logs", "user_logs", "azureml-logs")
"""Folders that the host tools of a job watch: a job that printed its environment had a variable for each."""


@dataclass
class Places:
    """A job's folder: `node_<i>/wd` for each node, and mounts that all nodes see under one path."""

    root: Path
    job: Job
    assets: AssetRoutes

    def working_dir(self, node: int) -> Path:
        """Where the processes of a node start; they share it."""
        return self.root / f"node_{node}" / "wd"

    def stage_code(self, nodes: int) -> None:
        """A copy of the code for each node, with the folders that the service keeps."""
        code = self.job.body.get("codeId")
        uri = self.assets.by_id(code)["properties"]["codeUri"] if code else None
        for node in range(nodes):
            folder = self.working_dir(node)
            for special in SPECIAL:
                (folder / special).mkdir(parents=True)
            if uri:
                self._download(uri, folder)

    def lose_nodes(self) -> None:
        """The nodes are gone, with all that was on them."""
        for folder in self.root.glob("node_*"):
            shutil.rmtree(folder)

    def stage_inputs(self) -> dict[str, str]:
        """What each input is in the command: its value, or a path."""
        values = literals(self.job.body)
        for name, sent in (self.job.body.get("inputs") or {}).items():
            if name not in values:
                values[name] = self._stage_input(name, sent)
        return values

    def _stage_input(self, name: str, sent: Json) -> str:
        uri: str = sent["uri"]
        if uri.lower().startswith("/subscriptions/"):
            uri = self.assets.by_id(uri)["properties"]["dataUri"]
        if sent.get("mode") == "Direct":
            return uri
        place = self.root / "cap" / f"INPUT_{name}"
        place.mkdir(parents=True)
        written = self._download(uri, place)
        if not written:
            raise NotEmulatedError(f"input {name}: there is nothing at {uri}")
        return str(written[0] if sent["jobInputType"] == "uri_file" else place)

    def make_outputs(self) -> dict[str, str]:
        """A folder for each named output, mounted on every node; of a `uri_file` only the folder around it.

        Commands write to a file output by its path (azureml-examples, hello-pipeline-customize-output-file.yml).
        """
        outputs = self.job.body.get("outputs") or {}
        places = {name: self.root / "cap" / name for name in outputs}
        for name, place in places.items():
            (place.parent if outputs[name]["jobOutputType"] == "uri_file" else place).mkdir(parents=True, exist_ok=True)
        return {name: str(place) for name, place in places.items()}

    def upload_outputs(self, nodes: int) -> None:
        """Named outputs to where they belong; each node's special folders to the job's artifacts."""
        account = self.job.workspace.account
        for name in self.job.body.get("outputs") or {}:
            container, prefix = self._blob_place(self.job.output_uri(name))
            folder = self.root / "cap" / name
            if folder.is_file():
                account.put(container, prefix.rstrip("/"), folder.read_bytes())
            for file in _files(folder):
                account.put(container, f"{prefix.rstrip('/')}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        container = self.job.workspace.datastores["workspaceartifactstore"].container
        taken: set[str] = set()
        for node in range(nodes):
            folder = self.working_dir(node)
            for file in (file for special in SPECIAL for file in _files(folder / special)):
                path = file.relative_to(folder).as_posix()
                if path in taken:
                    self.job.warnings.append(f"{path} was written on several nodes; one of them was kept")
                    continue
                taken.add(path)
                account.put(container, f"{self.job.artifacts}/{path}", file.read_bytes())

    def _download(self, uri: str, folder: Path) -> list[Path]:
        """Everything under an address, into a folder; a single file under its own name."""
        account = self.job.workspace.account
        container, prefix = self._blob_place(uri)
        inside = prefix.rstrip("/") + "/" if prefix else ""
        names = [name for name in account.names(container, prefix) if name == prefix or name.startswith(inside)]
        written = []
        for name in names:
            path = folder / (Path(name).name if name == prefix else name[len(inside) :])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(account.get(container, name))
            written.append(path)
        return written

    def _blob_place(self, uri: str) -> tuple[str, str]:
        """Container and prefix of an address in one of the workspace's datastores, or in its account."""
        account = self.job.workspace.account
        found = re.fullmatch(rf"https://{re.escape(account.host)}(?::443)?/([^/]+)/(.*)", uri)
        if found:
            return found[1], found[2]
        found = re.fullmatch(r"azureml:.*/datastores/([^/]+)/paths/(.*)", uri)
        if found and found[1] in self.job.workspace.datastores:
            return self.job.workspace.datastores[found[1]].container, found[2]
        raise NotEmulatedError(f"the address {uri}")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
