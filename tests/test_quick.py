"""What `make quick` takes for quick, and what a test hears that is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = """\
import subprocess, sys
from contextlib import contextmanager
from functools import cache
import pytest
from needs import needs

def helper(): subprocess.run([sys.executable, "-c", ""], check=True)
@contextmanager
def wrapped(): yield helper()
@cache
def kept(): helper()
class Shell:
    def run(self): helper()

@pytest.fixture
def one(): helper()
@pytest.fixture
def two(one): return 2
@pytest.fixture(scope="module")
def shared(): return 3
@pytest.fixture
def plain(): return 4

def test_plain(plain, tmp_path_factory): assert plain == 4
@pytest.mark.parametrize("x", [1, 2])
def test_parameters(x): assert x
@needs("sys")
def test_needs(): pass
@pytest.mark.slow
def test_slow(): pass
def test_shared(shared): pass
def test_directly(): subprocess.run([sys.executable, "-c", ""], check=True)
def test_inside():
    def inner(): helper()
    inner()
def test_helper(): helper()
def test_wrapped():
    with wrapped(): pass
def test_kept(): kept()
def test_class(): Shell().run()
def test_fixture(two): pass
def test_asks_later(request): request.getfixturevalue("plain")
"""


@pytest.fixture
def quick(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the quick tests of a file beside whose helpers `quick` lies."""
    (tmp_path / "quick.py").write_text((Path(__file__).parent / "quick.py").read_text())

    def run(tests: str, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(tests)
        command = [sys.executable, "-m", "pytest", "-p", "quick", "-p", "needs", "-p", "no:cacheprovider", *options]
        path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
        environ = os.environ | {"PYTHONPATH": path}
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)

    return run


def test_what_starts_a_process_or_needs_something_is_not_quick(
    quick: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = quick(TESTS, "-m", "quick", "-v")

    names = [line.partition("::")[2].split()[0] for line in done.stdout.splitlines() if " PASSED" in line]
    assert names == ["test_plain", "test_parameters[1]", "test_parameters[2]"], done.stdout


HIDDEN = "import importlib\ndef test_it(): getattr(importlib.import_module('sub' + 'process'), 'run')(['true'])\n"
SWALLOWED = "import os, contextlib\ndef test_it():\n with contextlib.suppress(Exception): os.system('true')\n"
FIXTURE = """
import importlib, pytest
@pytest.fixture
def one(): getattr(importlib.import_module("os"), "sys" + "tem")("true")
def test_it(one): pass
"""
FRAMEWORK = "def test_it():\n try: import horovod\n except ImportError: pass\n"


@pytest.mark.parametrize(
    ("test", "did"),
    [
        (HIDDEN, "a process was started (subprocess.Popen)"),
        (SWALLOWED, "a process was started (os.system)"),
        (FIXTURE, "a process was started (os.system)"),
        (FRAMEWORK, "`horovod` was imported"),
    ],
)
@pytest.mark.parametrize("options", [(), ("-m", "quick")])
def test_a_test_that_only_looks_quick_fails(
    quick: Callable[..., subprocess.CompletedProcess[str]], test: str, did: str, options: tuple[str, ...]
) -> None:
    done = quick(test, "--tb=short", *options)

    assert done.returncode == 1
    assert f"{did} by a test that is taken for a quick test" in done.stdout
    assert "pytest.mark.slow" in done.stdout
    assert "1 failed" in done.stdout or "1 error" in done.stdout
