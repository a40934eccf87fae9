"""Logs and verdicts for tests: what a rank may leave, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azml_dist.verdict.judge import judge
from azml_dist.verdict.known import Ended, Known, Line, Log
from azml_dist.verdict.verdict import Verdict

CODE = "/mnt/azureml/cr/j/0a1b2c/exe/wd"
PACKAGES = "/opt/conda/lib/python3.11/site-packages"
LOST = "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.4]:38032"


def log(rank: int | None, text: str, name: str = "") -> Log:
    lines = [Line(number, line) for number, line in enumerate(text.splitlines(), 1)]
    return Log(name or f"user_logs/std_log_process_{rank}.txt", lines, rank)


def raised(error: str, file: str = "train.py", line: int = 12, source: str = "step()") -> str:
    return f'Traceback (most recent call last):\n  File "{CODE}/{file}", line {line}, in main\n    {source}\n{error}'


def in_a_library(error: str) -> str:
    """A traceback from the user's file into a library."""
    head, _, _ = raised("").rpartition("\n")
    return f'{head}\n  File "{PACKAGES}/library/core.py", line 7, in call\n    return one()\n{error}'


def verdict(texts: Mapping[int, str], ends: Mapping[int, Ended] | None = None, **known: Any) -> Verdict:
    found = judge(Known([log(rank, text) for rank, text in texts.items()], ends or {}, **known))
    assert found is not None
    return found
