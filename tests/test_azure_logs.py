"""Following the logs of runs on Azure ML when things go wrong, and when there are many: against real blobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from emulated import SDK_WARNINGS
from running import CLI, await_
from submitting import job, workspace_of
from test_azure_run import login_at

from azml_dist import AuthError, AzureML, PyTorch, RunFailed, SubmitError, Workspace
from azml_dist.azureml.addresses import is_signed, is_storage
from azml_dist.azureml.logs import LOOK, PIECE
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import Emulator, StaticToken, answer, odd, reset_after, reset_before
from azml_dist.emulator.faults import Fault

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


@pytest.fixture
def run(azure: AzureML) -> AzureRun:
    """A run of 2 x 2 processes that waits for the test."""
    return azure.submit(job(node_count=2, distribution=PyTorch(process_count_per_node=2)))


def log(rank: int, attempt: int = 0) -> str:
    return f"user_logs/{f'retry_{attempt:03d}/' if attempt else ''}std_log_process_{rank}.txt"


@contextmanager
def followed(run: AzureRun, rank: int | None = None, **options: int) -> Iterator[list[str]]:
    """The lines that a follower has seen so far; at the end of the block it is waited for."""
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.extend(run.logs(rank, follow=True, **options)), daemon=True)
    thread.start()
    yield lines
    thread.join(timeout=60)
    assert not thread.is_alive()


def reads(emulator: Emulator, path: str = "") -> int:
    return sum(request.route == "blobs.get" and request.path.endswith(path) for request in list(emulator.requests))


def storage(emulator: Emulator) -> str:
    return emulator.workspace.account.host


# Nothing lost, nothing repeated


@pytest.mark.parametrize("fault", [answer(503), reset_before(), answer(403), answer(404)], ids=str)
def test_a_fault_at_the_last_look_loses_nothing(emulator: Emulator, run: AzureRun, fault: Fault) -> None:
    emulator.job(run.name).write_log(log(0), "said\nlast")
    emulator.job(run.name).advance("Completed")
    emulator.inject(fault, host=storage(emulator), times=2)

    assert list(run.logs(rank=0)) == ["said", "last"]


@pytest.mark.parametrize("fault", [answer(503), answer(429, retry_after=0.1), reset_before(), reset_after()], ids=str)
def test_a_fault_at_any_request_loses_and_repeats_nothing(emulator: Emulator, run: AzureRun, fault: Fault) -> None:
    for rank in range(4):
        emulator.job(run.name).write_log(log(rank), f"first of {rank}\nlast of {rank}")
    emulator.job(run.name).advance("Completed")

    def lines_of_a_fresh_handle() -> list[str]:
        return sorted(AzureRun(workspace_of(emulator), run.name).logs(follow=True))

    emulator.forget()
    expected = lines_of_a_fresh_handle()
    assert len(expected) == 8
    for index in range(len(emulator.requests)):
        emulator.forget()
        emulator.inject(fault, at=index)
        assert lines_of_a_fresh_handle() == expected, f"after {fault} at {emulator.requests[index]}"


def test_a_log_that_is_known_by_name_alone_is_empty(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).write_log(log(1), "not there\n")
    emulator.job(run.name).advance("Completed")
    emulator.inject(answer(404, code="BlobNotFound"), host=storage(emulator), times=None)

    assert list(run.logs()) == []


def test_run_history_may_be_out_of_reach_for_a_while(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.advance("Running")
    here.write_log(log(0), "first\n")
    with followed(run, 0) as lines:
        await_(lambda: lines == ["first"])
        emulator.inject(reset_before(), route="runs.details", times=7)  # more than one call tries
        here.write_log(log(0), "second\n")
        here.advance("Completed")

    assert lines == ["first", "second"]


def test_a_token_that_expires_is_replaced(emulator: Emulator, run: AzureRun) -> None:
    emulator.workspace.signed_logs = False
    here = emulator.job(run.name)
    here.advance("Running")
    here.write_log(log(0), "first\n")
    with followed(run, 0) as lines:
        await_(lambda: lines == ["first"])
        emulator.workspace.token = "another"
        here.write_log(log(0), "second\n")
        here.advance("Completed")

    assert lines == ["first", "second"]


def test_one_token_serves_all_logs(emulator: Emulator, run: AzureRun) -> None:
    emulator.workspace.signed_logs = False
    credential = StaticToken(emulator.workspace)
    here = emulator.workspace
    for rank in range(4):
        emulator.job(run.name).write_log(log(rank), f"{rank}\n")
    other = AzureRun(Workspace(here.subscription_id, here.resource_group, here.name, credential=credential), run.name)
    list(other.logs())
    before = credential.asked

    assert len(list(other.logs())) == 4
    assert credential.asked == before + 1


def test_who_may_not_read_the_storage_is_told_which_role_is_missing(emulator: Emulator, run: AzureRun) -> None:
    emulator.workspace.signed_logs = False
    emulator.workspace.forbidden.add("blobs.get")
    emulator.job(run.name).write_log(log(0), "said\n")
    emulator.job(run.name).advance("Completed")

    with pytest.raises(AuthError, match="storage answers 403") as refused:
        list(run.logs(rank=0))

    assert "Storage Blob Data Reader" in str(refused.value.hint)


def test_a_line_without_an_end_waits_for_it(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.advance("Running")
    with followed(run) as lines:
        here.write_log(log(0), "whole\nha")
        await_(lambda: lines)
        here.write_log(log(3), "other\n")
        await_(lambda: len(lines) == 2)
        here.write_log(log(0), "lf\n")
        here.advance("Completed")

    assert lines == ["[node0 rank0] whole", "[node1 rank3] other", "[node0 rank0] half"]


def test_bytes_that_are_no_text_are_shown_all_the_same(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).write_log(log(0), b"10%\r20% a\xff\x00b\n")
    emulator.job(run.name).advance("Completed")

    assert list(run.logs(rank=0)) == ["20% a�\x00b"]


# Whom the login is shown to


@pytest.mark.parametrize(
    "address",
    [
        "http://{storage}/azureml/log.txt",
        "https://elsewhere.example/azureml/log.txt",
        "https://{storage}.elsewhere.example/log.txt",
        "https://{storage}@elsewhere.example/log.txt",
        "https://{storage}:444/log.txt",
        "https://elsewhere.example/{storage}/log.txt",
        "https://elsewhere.example?https://{storage}/log.txt",
        "https://elsewhere.example\\\\@{storage}/log.txt",
        "https://elsewhere.example#@{storage}/sig=1",
    ],
)
def test_the_login_goes_to_azures_storage_over_tls_alone(emulator: Emulator, run: AzureRun, address: str) -> None:
    emulator.job(run.name).advance("Completed")
    url = address.format(storage=storage(emulator))
    said = {"status": "Completed", "logFiles": {log(0): url}}
    list(run.logs())
    emulator.forget()
    emulator.inject(odd(200, json.dumps(said).encode(), heard=False), route="runs.details", times=None)

    with pytest.raises(SubmitError, match=r"is not https|is not storage of AzureCloud"):
        list(run.logs())

    assert {request.route for request in emulator.requests} == {"runs.details"}


def test_a_redirect_of_the_storage_is_not_followed(emulator: Emulator, run: AzureRun) -> None:
    emulator.workspace.signed_logs = False
    emulator.job(run.name).write_log(log(0), "said\n")
    emulator.job(run.name).advance("Completed")
    elsewhere = odd(307, b"", heard=False, Location=f"https://{storage(emulator)}/elsewhere/log.txt")
    emulator.inject(elsewhere, host=storage(emulator), times=None)

    with pytest.raises(SubmitError, match="the storage answers 307"):
        list(run.logs(rank=0))

    assert not [request for request in emulator.requests if "elsewhere" in request.path]


@pytest.mark.parametrize(
    "api", ["http://eastus.api.azureml.ms", "https://api.azureml.ms.elsewhere.example", "azureml.ms"]
)
def test_the_login_goes_to_no_service_but_azures(emulator: Emulator, run: AzureRun, api: str) -> None:
    emulator.inject(odd(200, json.dumps({"api": api}).encode(), heard=False), route="discovery", times=None)

    with pytest.raises(SubmitError, match="which is not Azure ML in AzureCloud"):
        AzureRun(workspace_of(emulator), run.name).describe()

    assert "runs.details" not in emulator.counts()


@pytest.mark.parametrize(
    ("cloud", "url", "known"),
    [
        ("AzureCloud", "https://acct.blob.core.windows.net/c/b?x", True),
        ("AzureCloud", "https://acct.z01.blob.storage.azure.net:443/c", True),
        ("AzureCloud", "https://acct.blob.core.usgovcloudapi.net/c", False),
        ("AzureUSGovernment", "https://acct.blob.core.usgovcloudapi.net/c", True),
        ("AzureChinaCloud", "https://acct.blob.core.chinacloudapi.cn/c", True),
        ("AzureChinaCloud", "https://acct.blob.core.chinacloudapi.cn.example/c", False),
        ("AzureCloud", "https://blob.core.windows.net.example/c", False),
        ("AzureCloud", "https://acct.blob.core.windows.net\n@example/c", False),
        ("AzureCloud", "https://a_b.example/.blob.core.windows.net/c", False),
        ("a private cloud", "https://acct.blob.local.example/c", True),
        ("a private cloud", "http://acct.blob.local.example/c", False),
    ],
)
def test_which_addresses_are_storage_depends_on_the_cloud(cloud: str, url: str, known: bool) -> None:
    assert is_storage(url, cloud) is known


def test_a_signature_is_one_in_the_query_alone() -> None:
    assert is_signed("https://a.blob.core.windows.net/c/b?sv=1&sig=x")
    for url in ("https://a/c/sig=1", "https://a/c?nosig=1", "https://a/c?sig=", "https://a/c?x#&sig=1"):
        assert not is_signed(url), url


class LostLogin(StaticToken):
    """A login that has run out: what it gave before is not taken any more, and it gives no more."""

    lost = False

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        from azure.core.exceptions import ClientAuthenticationError

        if self.lost:
            raise ClientAuthenticationError("AADSTS700082: The refresh token has expired due to inactivity.")
        return super().get_token(*scopes, **options)


@pytest.mark.parametrize("ask", [lambda run: run.wait(timeout=60), lambda run: list(run.logs(follow=True))])
def test_a_login_that_is_lost_while_waiting_is_an_error_at_once(
    emulator: Emulator, run: AzureRun, ask: Callable[[AzureRun], object]
) -> None:
    here, login = emulator.workspace, LostLogin(emulator.workspace)
    other = AzureRun(Workspace(here.subscription_id, here.resource_group, here.name, credential=login), run.name)
    emulator.job(run.name).advance("Running")
    emulator.job(run.name).write_log(log(0), "said\n")
    list(other.logs())
    here.token, login.lost = "another", True
    emulator.forget()

    with pytest.raises(AuthError, match="your login has expired"):
        ask(other)

    assert len(emulator.requests) < 5


# Attempts


def test_a_node_that_is_restarted_and_writes_its_log_anew_is_a_further_attempt(
    emulator: Emulator, run: AzureRun
) -> None:
    here, store = emulator.job(run.name), emulator.workspace.datastores["workspaceartifactstore"].container
    here.advance("Running")
    here.write_log(log(0), "a long line before the restart\n")
    with followed(run, 0) as lines:
        await_(lambda: len(lines) == 1)
        emulator.account.create_append(store, f"{here.artifacts}/{log(0)}")
        await_(partial(emulator.account.exists, store, f"{here.artifacts}/{log(0)}"))
        seen = reads(emulator)
        await_(lambda: reads(emulator) > seen + 1)
        here.write_log(log(0), "again\n")
        here.advance("Completed")

    assert lines == ["a long line before the restart", "-- attempt 2 --", "again"]


@pytest.mark.parametrize("again", ["again\n", "again, and longer than what was there before\n"])
def test_a_log_that_is_restarted_within_a_line_does_not_join_two_halves(
    emulator: Emulator, run: AzureRun, again: str
) -> None:
    here, store = emulator.job(run.name), emulator.workspace.datastores["workspaceartifactstore"].container
    here.advance("Running")
    here.write_log(log(0), "whole\nhalf a li")
    with followed(run, 0) as lines:
        await_(lambda: lines == ["whole"])
        written = int(time.time())
        await_(lambda: int(time.time()) > written)  # the storage has the time of creation in seconds
        emulator.account.create_append(store, f"{here.artifacts}/{log(0)}")
        here.write_log(log(0), again)
        await_(lambda: len(lines) > 3)
        here.advance("Completed")

    assert lines == ["whole", "half a li", "-- attempt 2 --", again.rstrip()]


def test_logs_of_an_earlier_attempt_are_not_asked_for_again(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.advance("Running")
    here.write_log(log(1), "began\nand died")
    here.write_log(log(1, 1), "began again\n")
    with followed(run, 1) as lines:
        await_(lambda: len(lines) == 4)
        before = reads(emulator, log(1))
        await_(lambda: reads(emulator, log(1, 1)) > 4)
        assert reads(emulator, f"{run.name}/{log(1)}") == 1
        here.advance("Completed")

    assert before
    assert lines == ["began", "and died", "-- attempt 2 --", "began again"]


# Tails


def test_the_tail_is_the_last_lines_of_each_rank_and_does_not_cost_the_whole_log(
    emulator: Emulator, run: AzureRun
) -> None:
    here = emulator.job(run.name)
    for rank in range(4):
        here.write_log(log(rank), "".join(f"{i:09d}\n" for i in range(300_000)))
        here.write_log(log(rank), f"last of {rank}")
    here.advance("Completed")
    emulator.forget()

    lines = list(run.logs(tail=2))

    for rank in range(4):
        mine = [line for line in lines if f" rank{rank}]" in line]
        assert mine == [f"[node{rank // 2} rank{rank}] {last}" for last in ("000299999", f"last of {rank}")]
    assert emulator.bytes_by_host()[storage(emulator)][1] < 4 * 200_000


@pytest.mark.parametrize("tail", [1, 3, 9_000, 100_000])
def test_a_tail_of_any_length_is_whole(emulator: Emulator, run: AzureRun, tail: int) -> None:
    here = emulator.job(run.name)
    written = [f"{i:09d}" for i in range(20_000)]
    here.write_log(log(0), "\n".join(written) + "\n")
    here.advance("Completed")

    assert list(run.logs(rank=0, tail=tail)) == written[-tail:]


def test_following_goes_on_after_the_tail(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.advance("Running")
    here.write_log(log(0), "one\ntwo\nthr")
    with followed(run, 0, tail=2) as lines:
        await_(lambda: lines == ["two"])
        here.write_log(log(0), "ee\nfour\n")
        here.advance("Completed")

    assert lines == ["two", "three", "four"]


def test_no_tail_at_all_is_what_comes_from_now_on(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.advance("Running")
    here.write_log(log(0), "old\n")

    assert list(run.logs(rank=0, tail=0)) == []
    with followed(run, 0, tail=0) as lines:
        await_(lambda: reads(emulator) > 1)
        here.write_log(log(0), "new\n")
        here.advance("Completed")

    assert lines == ["new"]


@pytest.mark.parametrize("tail", [1, 2, 3])
def test_a_tail_of_lines_longer_than_what_is_asked_for_at_once_is_whole(
    emulator: Emulator, run: AzureRun, tail: int
) -> None:
    written = ["first", "a" * (PIECE + 5), "b" * (3 * PIECE), "last"]
    emulator.job(run.name).write_log(log(0), "\n".join(written) + "\n")
    emulator.job(run.name).advance("Completed")

    assert list(run.logs(rank=0, tail=tail)) == written[-tail:]


def test_what_a_failure_shows_of_a_long_line_is_its_end(emulator: Emulator, run: AzureRun) -> None:
    emulator.job(run.name).write_log(log(0), "before\n" + "é" * 100_000 + "the end\n")
    emulator.job(run.name).fail("it failed")

    with pytest.raises(RunFailed) as failed:
        run.wait(timeout=30)

    assert failed.value.log_tail.startswith("…")
    assert failed.value.log_tail.endswith("ééthe end")
    assert len(failed.value.log_tail) < 40_000


def test_a_line_of_64_mb_takes_no_memory_of_its_length(
    emulator: Emulator, run: AzureRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked of the run, and compared with a run that has said next to nothing."""
    for name, value in login_at(emulator, tmp_path).items():
        monkeypatch.setenv(name, value)
    short = AzureML(workspace_of(emulator)).submit(job())
    for one in (short, run):
        emulator.job(one.name).write_log(log(0), "said\n")
        emulator.job(one.name).fail("it failed")
    store, long = emulator.workspace.datastores["workspaceartifactstore"].container, emulator.job(run.name)
    for _ in range(16):
        emulator.account.append(store, f"{long.artifacts}/{log(0)}", b"x" * (4 << 20))

    usual = peak_memory(tmp_path, "logs", short.name)

    for command in (["logs", "--tail", "2"], ["logs"], ["status"], ["cancel"]):
        assert peak_memory(tmp_path, *command, run.name) < usual + (40 << 20), command


def peak_memory(folder: Path, *args: str) -> int:
    """The most memory that a command had, in bytes."""
    process = subprocess.Popen([*CLI, *args], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# Many ranks, and speed


def test_a_new_line_is_seen_within_three_seconds_of_a_long_silence(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.advance("Running")
    seen: list[float] = []
    for rank in range(4):
        here.write_log(log(rank), "hello\n")
    thread = threading.Thread(target=lambda: seen.extend(time.monotonic() for _ in run.logs(follow=True)))
    thread.start()
    await_(lambda: len(seen) == 4)
    last = {rank: reads(emulator, log(rank)) for rank in range(4)}
    await_(lambda: all(reads(emulator, log(rank)) >= last[rank] + 4 for rank in range(4)))  # backed off by now

    waited = []
    for i, rank in enumerate((2, 0, 3)):
        emulator.job(run.name).write_log(log(rank), "news\n")
        written = time.monotonic()
        await_(partial(_is_longer, seen, 4 + i))
        waited.append(seen[-1] - written)
    here.advance("Completed")
    thread.join(timeout=30)

    assert max(waited) < 3
    assert LOOK[1] < 3


def _is_longer(found: list[float], count: int) -> bool:
    return len(found) > count


def test_ranks_that_are_silent_are_asked_less_often(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.advance("Running")
    here.write_log(log(1), "hello\n")
    with followed(run) as lines:
        for i in range(12):
            here.write_log(log(0), f"{i}\n")
            await_(partial(_holds, lines, f"[node0 rank0] {i}"))
        busy, silent = reads(emulator, log(0)), reads(emulator, log(1))
        here.advance("Completed")

    assert silent < busy


def _holds(lines: list[str], line: str) -> bool:
    return line in lines


def test_512_ranks_are_followed_with_bounded_connections(emulator: Emulator, azure: AzureML) -> None:
    run = azure.submit(job(node_count=64, distribution=PyTorch(process_count_per_node=8)))
    here = emulator.job(run.name)
    here.advance("Running")
    for rank in range(512):
        here.write_log(f"user_logs/std_log_process_{rank:03d}.txt", f"I am {rank}\n")
    most = 0

    def threads() -> int:
        return sum(thread.name == "azml_dist" for thread in threading.enumerate())

    with followed(run) as lines:
        while len(lines) < 512:
            most = max(most, threads())
            time.sleep(0.002)
        here.write_log("user_logs/std_log_process_511.txt", "the end")
        here.advance("Completed")

    assert sorted(lines) == sorted(
        [*(f"[node{r // 8} rank{r}] I am {r}" for r in range(512)), "[node63 rank511] the end"]
    )
    assert 0 < most <= 16


def test_a_reader_that_is_slow_is_not_read_ahead_of(emulator: Emulator, azure: AzureML) -> None:
    """Whoever pipes the logs of many ranks into a pager does not have all of them in memory."""
    run = azure.submit(job(node_count=8, distribution=PyTorch(process_count_per_node=8)))
    here = emulator.job(run.name)
    for rank in range(64):
        here.write_log(f"user_logs/std_log_process_{rank:02d}.txt", f"I am {rank}\n")
    here.advance("Completed")
    chunks = run.chunks()
    next(chunks)

    _stays(lambda: reads(emulator), 16)
    assert len(b"".join(chunks).splitlines()) == 63


def _stays(count: Callable[[], int], value: int) -> None:
    await_(lambda: count() >= value)
    time.sleep(0.2)  # for what should not come there is nothing to await
    assert count() == value
