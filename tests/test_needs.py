"""What a machine lacks is said: a skip here, a failure in CI, and never a test that passes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = """\
import pytest
from needs import needs

@needs("sys", "a_module_that_nobody_has")
def test_one(): pass

@needs("unshare")
def test_two(): pass

@pytest.mark.gpu
def test_three(): pass
"""


@pytest.fixture
def pytest_run(tmp_path: Path) -> Any:
    """Runs pytest on a machine without GPU and without programs."""
    (tmp_path / "test_it.py").write_text(TESTS)

    def run(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-p", "needs", "-p", "no:cacheprovider", "-ra", *options]
        hidden = {"PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "CI": "", "PYTHONPATH": str(Path(__file__).parent)}
        environ = os.environ | hidden | env
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)

    return run


def test_what_is_missing_is_skipped_with_what_to_install(pytest_run: Any) -> None:
    done = pytest_run()

    assert done.returncode == 0
    assert "`a_module_that_nobody_has` is not there: pip install" in done.stdout
    assert "`unshare` is not there: install Debian's util-linux" in done.stdout
    assert "2 skipped, 1 deselected" in done.stdout


def test_what_is_missing_fails_in_ci(pytest_run: Any) -> None:
    done = pytest_run(CI="true")

    assert done.returncode == 1
    assert "1 deselected, 2 errors" in done.stdout


def test_gpu_tests_that_did_not_run_are_counted(pytest_run: Any) -> None:
    done = pytest_run("-m", "gpu")

    assert done.returncode != 0
    assert "no CUDA device here: 1 test(s) marked `gpu` did not run" in done.stdout
