"""Which tests are quick: `make quick` runs those that stay in this process and import no framework.

Nobody lists them. A test is quick unless it has a mark `needs`, `gpu` or `slow`, asks for a fixture that is shared
between tests (which is what costly ones are: Azurite, a finished run), or its code, its helpers and its fixtures reach
something that starts a process. What this reading of the code overlooks is found when the test runs: a quick test that
starts a process or imports a framework fails, in `make quick` and in `make test`.
"""

from __future__ import annotations

import dis
import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

_HERE = str(Path(__file__).parent)
_STARTS = {"subprocess", "Popen", "fork", "posix_spawn", "multiprocessing", "submit", "getfixturevalue"}
"""Names whose use starts a process, or may."""
_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"}
_FRAMEWORKS = {"torch", "tensorflow", "lightning", "accelerate", "deepspeed", "ray", "mpi4py", "horovod", "sklearn"}

_NOT_QUICK = "is taken for a quick test (tests/quick.py): mark it with `needs(...)` or `pytest.mark.slow`"
_done: list[str] | None = None
"""What the quick test that now runs did and may not do; None while another one runs."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: starts no process and imports no framework; nobody sets it")
    config.addinivalue_line("markers", "slow: is not quick, for a reason that cannot be read from its code")
    sys.addaudithook(_watch)


@pytest.hookimpl(tryfirst=True)  # before `-m quick` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reached: dict[Any, bool] = {}
    for item in items:
        if isinstance(item, pytest.Function) and _is_quick(item, reached):
            item.add_marker("quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _watched(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _watched(item):
        yield


@contextmanager
def _watched(item: pytest.Item) -> Iterator[None]:
    global _done
    _done = [] if item.get_closest_marker("quick") else None
    try:
        yield
    finally:
        done, _done = _done, None
        if done:
            pytest.fail(f"{done[0]} by a test that {_NOT_QUICK}", pytrace=False)


def _watch(event: str, args: tuple[Any, ...]) -> None:
    # A thread may be left over from another test.
    if _done is None or threading.current_thread() is not threading.main_thread():
        return
    if event in _EVENTS:
        _done.append(f"a process was started ({event})")
        raise RuntimeError(f"refused in a test that {_NOT_QUICK}: {event}")
    if event == "import" and args[0] in _FRAMEWORKS:
        _done.append(f"`{args[0]}` was imported")


def _is_quick(item: pytest.Function, reached: dict[Any, bool]) -> bool:
    if any(item.get_closest_marker(name) for name in ("needs", "gpu", "slow")):
        return False
    fixtures = [one for several in item._fixtureinfo.name2fixturedefs.values() for one in several[-1:]]
    fixtures = [one for one in fixtures if not one.func.__module__.startswith("_pytest.")]
    if any(one.scope != "function" for one in fixtures):
        return False
    return not any(_starts(function, reached) for function in [item.function, *(one.func for one in fixtures)])


def _starts(thing: Any, reached: dict[Any, bool]) -> bool:
    """Whether a function or class of the tests, or one that it uses, names something that starts a process."""
    if thing not in reached:
        reached[thing] = False  # against circles
        reached[thing] = any(_function_starts(function, reached) for function in _functions(thing))
    return reached[thing]


def _functions(thing: Any) -> list[FunctionType]:
    members = vars(thing).values() if isinstance(thing, type) else [thing]
    return [one for one in map(inspect.unwrap, members) if isinstance(one, FunctionType)]


def _function_starts(function: FunctionType, reached: dict[Any, bool]) -> bool:
    codes = list(_codes(function.__code__))
    if any(_STARTS.intersection(code.co_names) for code in codes):
        return True
    # An attribute, as in `pickle.dumps`, is not the fixture of that name.
    names = {one.argval for code in codes for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}
    used = [function.__globals__[name] for name in names if name in function.__globals__]
    return any(_starts(one, reached) for one in used if _is_of_the_tests(one))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_of_the_tests(thing: Any) -> bool:
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    return callable(thing) and str(getattr(module, "__file__", "")).startswith(_HERE)
