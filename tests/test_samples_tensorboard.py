"""`tensorboard` trains, shows its page while it runs, and leaves the files of each rank."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs
from sampling import reported, script

from azml_dist.local.find import runs
from azml_dist.local.served import EVENTS, event_folder

pytestmark = needs("torch", "sklearn", "tensorboard")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensorboard")


def test_it_learns_beside_its_board_and_leaves_the_files_of_each_rank(root: Path) -> None:
    ended = script("tensorboard", "submit.py", "--local", root=root)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "service board: http://127.0.0.1:" in ended.stderr
    [run] = runs(root)
    assert reported(run, "test_accuracy")[-1] >= 0.9
    folder = event_folder(run.folder)
    assert folder == run.folder / "artifacts" / "outputs" / "board"
    assert sorted(one.name for one in folder.iterdir()) == ["rank_0", "rank_1"]
    assert all(list(one.glob(f"{EVENTS}*")) for one in folder.iterdir())
