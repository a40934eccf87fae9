"""Why a run failed: what logs say, what they do not, and what is never said."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from judging import CODE, LOST, log, raised, verdict

from azml_dist.status import RunStatus
from azml_dist.verdict.judge import judge, known_in_part
from azml_dist.verdict.known import Ended, Known, Line, Log, Said

# --- who and what


def test_the_rank_with_a_cause_is_named_and_not_those_that_lost_it() -> None:
    texts = {r: raised(LOST, line=9) for r in range(4)} | {
        2: raised("KeyError: 'labels'", "crash.py", 15, 'batch["labels"]')
    }
    found = verdict(texts)

    assert found.to_dict() == {
        "kind": "user-code",
        "certainty": "certain",
        "rank": 2,
        "ranks": [2],
        "node": None,
        "exception": "KeyError",
        "message": "'labels'",
        "file": "crash.py",
        "line": 15,
        "source": 'batch["labels"]',
        "summary": "rank 2: KeyError: 'labels' (crash.py:15)",
        "hint": None,
        "followers": [0, 1, 3],
        "evidence": [{"rank": 2, "log": "user_logs/std_log_process_2.txt", "line": 4, "text": "KeyError: 'labels'"}],
    }


@pytest.mark.parametrize("root", ["/home/me/runs/x-3f2a91/nodes", "/home/me/runs/x-3f2a91/nodes/retry_001"])
def test_the_code_folder_of_a_node_makes_no_other_reason(root: str) -> None:
    text = raised("KeyError: 'labels'")
    found = verdict({rank: text.replace(CODE, f"{root}/{rank // 2}") for rank in range(4)})

    assert (found.certainty, found.rank, found.ranks) == ("certain", 0, [0, 1, 2, 3])


def test_no_rank_is_certain_in_a_log_that_several_processes_of_torchrun_share() -> None:
    begun = (
        "W1128 12:00:00.8 7 torch/distributed/run.py:874] Setting OMP_NUM_THREADS environment variable for each process"
    )
    text = f"{begun} to be 1 in default\nstep 1\nstep 1\nstep 1\n{raised('KeyError: 1')}"

    assert verdict({0: text}).certainty == "likely"
    assert verdict({0: text.replace(begun, "begun")}).certainty == "certain"


RESET = "TCPStore.cpp:106] [c10d] recvValue failed on SocketImpl(fd=4): Connection reset by peer"


@pytest.mark.parametrize("last", ["step 3 loss 0.7", "Training finished"])
def test_a_warning_of_a_lost_peer_does_not_mean_that_the_run_failed(last: str) -> None:
    logs = [log(0, f"step 2 loss 0.8\n{last}"), log(1, f"step 3 loss 0.7\n[rank1]:[W1128 12:00:09.1 {RESET}")]
    found = judge(Known(logs))

    assert found is None or (found.kind, found.rank) == ("unknown", None)


def test_an_error_of_a_lost_peer_does() -> None:
    found = verdict({0: "step 3 loss 0.7", 1: f"step 3 loss 0.7\n[rank1]:[E1128 12:00:09.1 {RESET}"})

    assert (found.kind, found.rank, found.certainty) == ("killed", 0, "likely")


def test_ranks_that_only_lost_a_peer_have_no_cause() -> None:
    found = verdict({rank: raised(LOST) for rank in range(3)})

    assert (found.kind, found.certainty, found.rank) == ("unknown", "unknown", None)


def test_a_bare_kill_proves_no_lack_of_memory() -> None:
    found = verdict({0: "step 1", 1: "step 1\nKilled"}, {1: Ended(signal=9), 0: Ended(signal=15, stopped=True)})

    assert (found.kind, found.certainty, found.rank) == ("killed", "likely", 1)


@pytest.mark.parametrize("kills", [0, 2])
def test_the_count_of_the_kernel_proves_it(kills: int) -> None:
    found = verdict({0: "step 1", 1: "step 1"}, {1: Ended(signal=9)}, out_of_memory_kills=kills)

    assert found.certainty == "certain"
    assert found.kind == ("host-out-of-memory" if kills else "killed")


@pytest.mark.parametrize("name", ["memory.events", "memory.oom_control"])
@pytest.mark.parametrize("count", [0, 1])
def test_the_count_of_the_kernel_is_read_from_its_files(name: str, count: int) -> None:
    events = log(None, f"low 0\noom {count}\noom_kill {count}", f"cgroup/{name}")
    found = judge(Known([log(0, "step 1"), events], {0: Ended(signal=9)}))

    assert found
    assert (found.kind == "host-out-of-memory") == bool(count)


def test_what_a_text_offers_as_a_possible_cause_is_not_certain() -> None:
    text = (
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm)."
    )
    found = verdict(
        {0: f"{text}\n" + raised("RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error.")}
    )

    assert (found.kind, found.certainty) == ("shared-memory", "likely")


def test_an_abort_at_exit_is_a_flake_only_if_nothing_else_failed() -> None:
    flake = "Training finished\nterminate called without an active exception"
    alone = verdict({0: flake, 1: "step 9"}, {0: Ended(signal=6), 1: Ended(0)})
    beside = verdict({0: flake, 1: raised("KeyError: 'x'")}, {0: Ended(signal=6), 1: Ended(1)})
    own = verdict({0: raised("KeyError: 'x'") + "\n" + flake.splitlines()[1]}, {0: Ended(signal=6)})

    assert (alone.kind, alone.rank) == ("exit-flake", 0)
    assert (beside.kind, beside.rank) == ("user-code", 1)
    assert (own.kind, own.exception) == ("user-code", "KeyError")


@pytest.mark.parametrize(
    "left", ["Exception ignored in: <function P.__del__ at 0x7f>", "Error in atexit._run_exitfuncs:"]
)
def test_what_is_raised_while_the_interpreter_ends_is_no_cause(left: str) -> None:
    after = 'Traceback (most recent call last):\n  File "/usr/lib/python3.10/x.py", line 2, in f\nTypeError: none'
    found = verdict({0: f"{raised(LOST)}", 1: f"{raised(LOST)}\n{left}\n{after}"})

    assert found.exception is None


def test_beside_a_log_that_cannot_be_read_nothing_is_certain() -> None:
    found = known_in_part(verdict({0: raised("KeyError: 'x'")}), "the log of rank 1 cannot be read", "log in")
    nothing = known_in_part(verdict({0: "step 1"}, status=RunStatus.FAILED), "no log can be read", "log in")

    assert (found.rank, found.certainty, found.hint) == (0, "likely", "the log of rank 1 cannot be read; log in")
    assert (nothing.summary, nothing.hint) == ("unknown, because no log can be read", "log in")


def test_the_order_of_two_causes_is_not_invented() -> None:
    texts = {0: raised("KeyError: 'a'", "a.py"), 1: raised("TypeError: b", "b.py")}
    found = verdict(texts)
    seen = verdict(texts, {0: Ended(1, noticed=1.0), 1: Ended(1, noticed=0.0)})

    assert (found.rank, found.ranks) == (None, [0, 1])
    assert found.certainty != "certain"
    assert (seen.rank, seen.certainty) == (1, "likely")


def test_the_same_failure_of_all_ranks_is_one() -> None:
    found = verdict({rank: raised("ValueError: no such split") for rank in range(4)})

    assert (found.rank, found.ranks, found.followers) == (0, [0, 1, 2, 3], [])


def test_a_script_that_reports_an_exception_and_ends_well_did_not_fail() -> None:
    text = raised("ValueError: no fused kernel") + "\nstep 1\nstep 2"

    assert judge(Known([log(0, text)], {0: Ended(0)})) is None
    assert judge(Known([log(0, text)], {0: Ended(0)}, status=RunStatus.COMPLETED)) is None


def test_a_traceback_of_a_rank_that_was_stopped_is_not_certain_beside_one_that_ended_first() -> None:
    """Rank 1 may have caught it and gone on, while rank 0 ended badly without a word."""
    stopped, ended = Ended(signal=15, stopped=True), Ended(3)
    found = verdict({0: "step 1", 1: raised("RuntimeError: first")}, {0: ended, 1: stopped})
    assert (found.rank, found.certainty) == (1, "likely")

    logged = "ERROR:root:a batch is skipped\n" + raised("RuntimeError: first")
    caught = verdict({0: "step 1", 1: logged}, {0: ended, 1: stopped}, status=RunStatus.FAILED)
    assert (caught.kind, caught.rank, caught.certainty) == ("exit-code", 0, "likely")
    assert (1, "RuntimeError: first") in [(one.rank, one.text) for one in caught.evidence]

    lost = "RuntimeError: Connection closed by peer [127.0.0.1]:1"
    peer = verdict({0: raised(lost), 1: raised("RuntimeError: first")}, {0: Ended(1), 1: stopped})
    assert (peer.rank, peer.certainty) == (1, "certain"), "it was slow to end, and the other only lost it"


def test_of_a_rank_that_was_stopped_an_old_traceback_counts_little() -> None:
    """It had written nothing for a minute: it had caught the exception, and others waited for it."""
    late = "RuntimeError: Timed out waiting 30000ms for recv operation to complete"
    ends = {0: Ended(1), 1: Ended(signal=15, stopped=True, quiet=60.0)}
    found = verdict({0: raised(late), 1: raised("KeyError: 'x'")}, ends)

    assert (found.kind, found.rank, found.certainty) == ("collective-timeout", 1, "likely")


@pytest.mark.parametrize(
    ("at", "kind", "rank", "certainty"), [(7, "killed", 1, "likely"), (3, "user-code", 0, "certain")]
)
def test_a_rank_that_ended_without_a_word_before_a_traceback_arrived_was_first(
    at: int, kind: str, rank: int, certainty: str
) -> None:
    logs = [
        replace(log(0, raised("RuntimeError: bad batch")), arrived=dict.fromkeys(range(1, 5), at)),
        log(1, "step 1"),
    ]
    ends = {0: Ended(1, noticed=9), 1: Ended(signal=9, noticed=5)}
    found = judge(Known(logs, ends, status=RunStatus.FAILED, here=True))

    assert found
    assert (found.kind, found.rank, found.certainty) == (kind, rank, certainty)


def test_of_two_exceptions_the_one_that_speaks_of_a_peer_came_of_the_other() -> None:
    found = verdict({0: raised("RuntimeError: a worker has left the ring"), 1: raised("KeyError: 'x'")})

    assert (found.rank, found.exception, found.certainty) == (1, "KeyError", "likely")
    assert verdict({0: raised("RuntimeError: a worker has left the ring")}).certainty == "likely"


def test_the_exit_code_that_the_service_tells_says_that_a_traceback_was_the_end() -> None:
    noise = "\n".join(f"INFO closing shard {at}" for at in range(80))
    texts = {0: raised("RuntimeError: a worker has left the ring"), 1: f"{raised('KeyError: 1')}\n{noise}"}
    said = Said("User process 'bash' exited with status code 1. See log file 'user_logs/std_log_process_1.txt'.")
    found = verdict(texts, said=said)

    assert (found.rank, found.exception, found.certainty) == (1, "KeyError", "likely")


@pytest.mark.parametrize(
    "line", ["__main__.main.<locals>.BadBatch: no labels", "struct.error: unpack requires 4 bytes"]
)
def test_exceptions_of_any_name_are_known_by_where_they_stand(line: str) -> None:
    found = verdict({0: raised(line) + "\nmore"})

    assert (found.kind, found.exception) == ("user-code", line.partition(":")[0].rpartition(".")[2])


def test_what_an_exception_means_may_be_said_by_what_came_of_it() -> None:
    cause = raised("ConnectionRefusedError: [Errno 111] Connection refused")
    chain = f"{cause}\n\nDuring handling of the above exception, another exception occurred:\n\n"
    found = verdict({0: chain + raised("urllib.error.URLError: <urlopen error [Errno 111] Connection refused>")})

    assert (found.kind, found.exception) == ("data-access", "ConnectionRefusedError")


@pytest.mark.parametrize(
    ("code", "here", "kind"), [(247, True, "exit-code"), (247, False, "killed"), (253, True, "exit-code")]
)
def test_a_negative_exit_is_one_where_the_end_itself_was_seen(code: int, here: bool, kind: str) -> None:
    found = verdict({0: "step 1", 1: "step 1"}, {0: Ended(code), 1: Ended(signal=15, stopped=True)}, here=here)

    assert (found.kind, found.rank) == (kind, 0)
    assert here is False or f"({code - 256} as a byte)" in (found.message or "")


def test_many_lines_after_a_traceback_do_not_hide_it_where_the_process_ended_as_after_one() -> None:
    noise = "\n".join(f"INFO closing shard {at}" for at in range(80))
    work = "\n".join(f"step {at} loss 0.1" for at in range(80))
    ends = {0: Ended(1), 1: Ended(signal=15, stopped=True)}
    cleaned, worked = (
        verdict({0: f"{raised('KeyError: 1')}\n{after}", 1: "step 1"}, ends, status=RunStatus.FAILED)
        for after in (noise, work)
    )

    assert (cleaned.kind, cleaned.exception, cleaned.certainty) == ("user-code", "KeyError", "likely")
    assert (worked.kind, worked.certainty) == ("exit-code", "likely"), "it had caught the exception"


def test_the_rank_that_only_noticed_that_the_others_had_gone_kept_them_waiting() -> None:
    late = "RuntimeError: Timed out waiting 4000ms for recv operation to complete"
    found = verdict({0: raised(late), 1: raised(LOST), 2: raised(late)})

    assert (found.kind, found.rank, found.certainty) == ("collective-timeout", 1, "likely")


MOUNT = "/mnt/azureml/cr/j/0a/cap/data-capability/wd/INPUT_images/a.tar"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (f"OSError: [Errno 107] Transport endpoint is not connected: '{MOUNT}'", "data-access"),
        (f"OSError: [Errno 5] Input/output error: '{MOUNT}'", "data-access"),
        ("OSError: [Errno 5] Input/output error", "disk-full"),
        ("OSError: [Errno 116] Stale file handle", "data-access"),
        ("requests.exceptions.HTTPError: 429 Client Error: Too Many Requests for url: https://x/y", "data-access"),
        ("urllib.error.HTTPError: HTTP Error 503: Service Unavailable", "data-access"),
        (
            "RuntimeError: The detected CUDA version mismatches the version that was used to compile PyTorch",
            "missing-module",
        ),
        ("ImportError: /lib/libc.so.6: version `GLIBC_2.32' not found (required by /x/y.so)", "missing-module"),
        ("RuntimeError: DataLoader timed out after 60 seconds", "hang"),
        ("OSError: [Errno 99] Cannot assign requested address", "user-code"),
    ],
)
def test_what_the_system_and_servers_refuse_is_told_apart(error: str, kind: str) -> None:
    found = verdict({0: raised(error)})

    assert (found.kind, found.rank) == (kind, 0)
    assert found.certainty == ("certain" if "429" in error else "likely"), "the line that met it may be right"


@pytest.mark.parametrize(
    "said",
    [
        "store based barrier on rank: 0, for key: k (world_size=3, worker_count=2, timeout=0:30:00)",
        "2/3 clients joined",
    ],
)
def test_a_rank_that_others_waited_for_at_the_start_is_named(said: str) -> None:
    error = f"RuntimeError: Timed out initializing process group in {said}"
    found = verdict({0: raised(error), 1: raised(error), 2: "downloading the vocabulary"})

    assert (found.kind, found.rank, found.certainty) == ("rendezvous", 2, "likely")


@pytest.mark.parametrize(
    "fatal", ["init_fs_encoding: failed to get the Python codec", "init_import_site: Failed to import the site module"]
)
def test_a_python_that_does_not_start_is_no_crash_of_the_script(fatal: str) -> None:
    found = verdict({0: f"Fatal Python error: {fatal}\nPython runtime state: core initialized\n"})

    assert (found.kind, found.certainty) == ("missing-module", "likely")
    assert "PYTHONHOME" in (found.hint or "")


@pytest.mark.parametrize(
    "said", ['could not select device driver "" with capabilities: [[gpu]]', "OCI runtime create failed: x"]
)
def test_a_container_that_does_not_start_is_the_nodes(said: str) -> None:
    found = judge(Known([], said=Said(f"docker: Error response from daemon: {said}")))

    assert found
    assert (found.kind, found.rank) == ("service", None)


def test_what_fails_in_a_finally_does_not_hide_the_cause() -> None:
    later = raised("FileNotFoundError: [Errno 2] No such file or directory: 'x'")
    chain = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
    found = verdict({0: raised("KeyError: 'labels'") + chain + later})

    assert (found.kind, found.exception) == ("user-code", "KeyError")


def test_a_traceback_before_another_exit_code_than_pythons_is_not_certain() -> None:
    found = verdict({0: raised("KeyError: 'x'"), 1: "step"}, {0: Ended(3), 1: Ended(signal=15, stopped=True)})

    assert (found.rank, found.exception, found.certainty) == (0, "KeyError", "likely")


@pytest.mark.parametrize(("number", "hint"), [(15, "did not send"), (24, "ulimit -t"), (25, "ulimit -f")])
def test_a_signal_from_outside_is_no_failure_of_the_script(number: int, hint: str) -> None:
    ends = {0: Ended(signal=number), 1: Ended(signal=15, stopped=True)}
    found = verdict({0: "step 1", 1: "step 1"}, ends, here=True)

    assert (found.kind, found.rank, found.certainty) == ("killed", 0, "certain")
    assert hint in (found.hint or "")


def test_a_rank_that_others_lost_and_that_says_nothing_was_probably_killed() -> None:
    found = verdict({0: raised(LOST), 1: "step 1\nstep 2", 2: raised(LOST)})
    assert (found.kind, found.rank, found.certainty) == ("killed", 1, "likely")
    assert "without a traceback" in found.summary, "`sys.exit` may have left a text"

    late = "RuntimeError: Timed out waiting 30000ms for recv operation to complete"
    waited = verdict({0: raised(late), 1: "step 1\nstep 2", 2: raised(late)})
    assert waited.kind == "collective-timeout", "it may be there still"


def test_logs_that_just_stop_are_no_hang_but_say_who_is_behind() -> None:
    found = verdict({0: "step 7\nstep 8", 1: "step 7", 2: "step 8"})

    assert (found.kind, found.rank, found.certainty) == ("unknown", None, "unknown")
    assert "rank 1 has come least far (step 7; the next one 8)" in (found.hint or "")


def test_a_dump_of_faulthandler_after_a_time_is_evidence_of_a_hang() -> None:
    dump = 'Timeout (0:05:00)!\nThread 0x00007f8e (most recent call first):\n  File "train.py", line 12 in load'
    found = verdict({0: "step 9", 1: f"step 9\n{dump}", 2: "step 9"})

    assert (found.kind, found.rank, found.certainty) == ("hang", 1, "likely")


def test_a_failed_system_call_of_nccl_says_what_nccl_says_last() -> None:
    error = (
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1333, unhandled system error\n"
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error."
    )
    last = f"{error}\nLast error:\nsocketStartConnect: Connect to 10.0.0.4<38032> failed : No route to host"
    bare, told = (verdict({0: raised(text), 1: raised(text)}) for text in (error, last))

    assert (bare.kind, bare.rank, bare.certainty) == ("unknown", None, "unknown")
    assert "NCCL_DEBUG=WARN" in (bare.hint or "")
    assert (told.kind, told.rank, told.certainty) == ("rendezvous", None, "likely")


def test_an_exception_before_much_work_is_not_what_ended_it() -> None:
    work = "\n".join(f"step {n} loss 0.1" for n in range(50))
    found = verdict({0: raised("ImportError: no apex", "log.py") + f"\n{work}\n" + raised("KeyError: 'x'", "main.py")})

    assert (found.file, found.exception) == ("main.py", "KeyError")


def test_a_traceback_that_was_not_read_is_not_denied() -> None:
    found = verdict({0: "step 1\n" + "y" * 9000}, {0: Ended(1)})

    assert (found.kind, found.hint) == ("exit-code", "no traceback was found: see its last lines")


def test_a_process_with_a_code_and_no_words() -> None:
    found = verdict(
        {0: "saving\nbad input", 1: ""}, {0: Ended(3), 1: Ended(signal=15, stopped=True)}, status=RunStatus.FAILED
    )

    assert (found.kind, found.certainty, found.rank, found.message) == ("exit-code", "certain", 0, "exit code 3")
    assert [one.text for one in found.evidence] == ["bad input"]


@pytest.mark.parametrize(("end", "kind"), [(Ended(signal=11), "crash"), (Ended(139), "crash"), (Ended(137), "killed")])
def test_a_signal_counts_however_it_is_reported(end: Ended, kind: str) -> None:
    found = verdict({0: "step 1", 1: raised(LOST)}, {0: end, 1: Ended(1)})

    assert (found.kind, found.rank, found.followers) == (kind, 0, [1])


def test_a_run_that_was_cancelled_or_stopped_in_time_says_so() -> None:
    assert verdict({0: "step"}, status=RunStatus.CANCELED, error="cancelled with Ctrl-C").kind == "canceled"
    assert (
        verdict({0: "step"}, status=RunStatus.CANCELED, error="it ran for longer than its timeout of 60 s").kind
        == "timeout"
    )


def test_the_service_may_blame_what_it_stopped() -> None:
    said = Said("Process 'worker 0' was terminated by the runtime due to failure in other processes on the same node")
    found = verdict({0: "step 1", 1: "step 1"}, {0: Ended(signal=9)}, said=said)

    assert (found.kind, found.rank) == ("unknown", None)


def test_the_error_of_the_service_is_read_to_its_innermost_code() -> None:
    inner = {"code": "ScriptExecution.StreamAccess.Authentication", "innerError": None}
    said = Said.of(
        {
            "error": {
                "error": {
                    "code": "UserError",
                    "message": "Mount failed",
                    "innerError": {"code": "X", "innerError": inner},
                }
            }
        }
    )
    found = verdict({0: ""}, said=said)

    assert (found.kind, found.rank) == ("data-access", None)


def test_of_codes_in_codes_the_outer_ones_count() -> None:
    error: dict[str, Any] = {"code": "C12"}
    for number in range(11, -1, -1):
        error = {"code": f"C{number}", "innerError": error}
    said = Said.of({"error": error, "warnings": [{"message": "w"}, {"message": None}, "x"]})

    assert said
    assert said.codes == [f"C{number}" for number in range(9)]
    assert (said.message, said.warnings) == ("", ["w"])


@pytest.mark.parametrize(
    "details",
    [{}, {"error": None}, {"error": "x"}, {"error": {}}, {"error": {"error": {}}}, {"error": {"message": ""}}],
)
def test_an_answer_without_an_error_says_nothing(details: dict[str, Any]) -> None:
    assert Said.of(details) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).",
         "shared-memory"),
        ("step 2", "crash"),
    ],
)  # fmt: skip
def test_a_bus_error_is_a_lack_of_shared_memory_where_something_says_so(text: str, kind: str) -> None:
    found = verdict({0: "step 1", 1: text}, {0: Ended(signal=15, stopped=True), 1: Ended(signal=7)})

    assert (found.kind, found.certainty, found.rank) == (kind, "likely", 1)
    assert "raise `shm_size`" in str(found.hint)


@pytest.mark.parametrize(
    ("text", "ends", "kind", "ranks"),
    [
        ("epoch 1\nterminate called without an active exception", {1: Ended(signal=6)}, "exit-flake", [1]),
        ("epoch 1\nAborted", {1: Ended(signal=6)}, "crash", [1]),
        ("epoch 1\nAborted", {0: Ended(signal=6), 1: Ended(signal=6)}, "crash", [0, 1]),
    ],
)
def test_an_abort_is_a_crash_unless_the_work_was_done(
    text: str, ends: dict[int, Ended], kind: str, ranks: list[int]
) -> None:
    found = verdict({0: text if 0 in ends else "epoch 1", 1: text}, {0: Ended(0), **ends})

    assert (found.kind, found.certainty, found.ranks) == (kind, "likely", ranks)
    assert (found.hint is not None) == (kind == "exit-flake")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("data/train.csv", "`data/train.csv` is in your code folder, and left out by `.amlignore` line 2 (`data/`)"),
        (f"{CODE}/./data/train.csv", "left out by `.amlignore` line 2 (`data/`)"),
        ("data", "`data` is in your code folder, and left out by `.amlignore` line 2 (`data/`)"),
        ("other.csv", "`other.csv` is relative to the code folder: check that it exists there"),
        ("/mnt/INPUT_data/x.csv", "is inside an input: check that the data has this path"),
        ("/data/x.csv", "`/data/x.csv` does not exist on the node: pass data as an input"),
        ("nvcc", "if `nvcc` is a program, it is not in the image or not on its PATH"),
    ],
)
def test_a_file_that_is_not_there_is_looked_for_in_what_is_known_of_the_job(path: str, hint: str) -> None:
    error = f"FileNotFoundError: [Errno 2] No such file or directory: '{path}'"
    found = verdict(
        {0: raised(error)}, {0: Ended(1)}, left_out={"data/train.csv": ".amlignore:2: data/"}, code_roots=[f"{CODE}/"]
    )

    assert found.kind == "missing-file"
    assert hint in str(found.hint)


def test_a_rank_that_had_ended_well_while_others_lost_it_is_named() -> None:
    well = verdict({0: raised(LOST), 1: "epoch 9", 2: raised(LOST)}, {0: Ended(1), 1: Ended(0), 2: Ended(1)}, here=True)
    two = verdict({0: raised(LOST), 1: "epoch 9", 2: "epoch 9"}, {0: Ended(1), 1: Ended(0), 2: Ended(0)}, here=True)

    assert (well.kind, well.certainty, well.rank, well.ranks) == ("collective-mismatch", "likely", 1, [1])
    assert (two.kind, two.rank, two.ranks) == ("collective-mismatch", None, [1, 2])
    assert "compare the lengths of their data" in str(well.hint)


# --- hints

LISTENS = (
    "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address."
    " port: {}, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use"
)


@pytest.mark.parametrize(
    ("error", "known", "hint"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB. GPU 5 has a total capacity of"
            " 79.15 GiB of which 512.00 MiB is free.",
            {"command": "python train.py --batch-size 64"},
            "GPU 5 has 79.15 GiB, 512.00 MiB free; 1.50 GiB more was needed; `--batch-size` is 64: try 32",
        ),
        (
            "ModuleNotFoundError: No module named 'cv2'",
            {"environment": "vision:3"},
            "`opencv-python-headless` to environment `vision:3`",
        ),
        ("ModuleNotFoundError: No module named 'torch'", {"here": True}, "pip install 'azml-dist[torch]'"),
        (LISTENS.format(6105), {"here": True}, "port 6105, which DeepSpeed and others choose in MPI jobs"),
        (LISTENS.format(29500), {"here": True}, "another process uses port 29500: an earlier run"),
        (LISTENS.format(6105), {}, "another process uses port 6105: an earlier run"),
        ("OSError: [Errno 98] Address already in use", {"here": True}, "another process uses this port: an earlier"),
        (
            "RuntimeError: Error(s) in loading state_dict for Net:\n\tsize mismatch for fc.weight: copying a param with"
            " shape torch.Size([10, 5]) from checkpoint, the shape in current model is torch.Size([12, 5]).",
            {},
            "`fc.weight` is torch.Size([10, 5]) in the checkpoint and torch.Size([12, 5]) in the model",
        ),
        ("RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x10 and 8x2)", {}, "a layer gets 4x10 but has 8x2"),
        (
            "mlflow.exceptions.RestException: INVALID_PARAMETER_VALUE: A given key of Parameters can not modify its"
            " value after it is set: 'lr' is '1.0e-3', and not '0.001'.",
            {},
            "log it once, with the same text, or under another name",
        ),
        (
            "mlflow.exceptions.MlflowException: Cannot start run with ID train-1 because active experiment ID does not"
            " match environment run ID. Make sure --experiment-name or --experiment-id matches experiment set with"
            " set_experiment(), or just use command-line arguments",
            {},
            "leave out `mlflow.set_experiment`",
        ),
        (
            "mlflow.exceptions.RestException: INVALID_PARAMETER_VALUE: A field of the entity is over the size limit."
            " FieldName=Parameters, Limit=200, Size=250.",
            {},
            "a run can have 200 parameters",
        ),
    ],
)  # fmt: skip
def test_a_hint_has_the_values_of_the_failure(error: str, known: dict[str, Any], hint: str) -> None:
    assert hint in (verdict({0: raised(error)}, **known).hint or "")


def test_a_hint_shows_the_argument_that_the_command_passes() -> None:
    found = verdict(
        {0: "usage: t.py [-h]\nt.py: error: unrecognized arguments: --lr=3"}, command="python t.py --lr=3 --epochs 2"
    )

    assert found.kind == "bad-arguments"
    assert "`python t.py --lr=3 --epochs 2`" in (found.hint or "")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("torch.OutOfMemoryError: XPU out of memory. Tried to allocate 2.00 GiB.", "gpu-out-of-memory"),
        ("RuntimeError: MPS backend out of memory (MPS allocated: 9 GB)", "gpu-out-of-memory"),
        ("jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory", "gpu-out-of-memory"),
        (
            "ValueError: Expected parameter loc (Tensor of shape (2,)) of distribution Normal to satisfy the constraint"
            " Real(), but found invalid values:\ntensor([nan, nan])",
            "not-a-number",
        ),
        ('ValueError: Input 0 of layer "dense" is incompatible with the layer: expected axis -1', "shape-mismatch"),
    ],
)  # fmt: skip
def test_what_other_frameworks_and_devices_say(error: str, kind: str) -> None:
    found = verdict({0: raised(error)})

    assert (found.kind, found.rank) == (kind, 0)
    assert "CUDA" not in (found.hint or ""), "that variable does nothing there"


def test_a_barrier_of_jax_that_timed_out_is_no_cause() -> None:
    timeout = "jaxlib.xla_extension.XlaRuntimeError: DEADLINE_EXCEEDED: Barrier timed out. Some tasks never arrived"
    found = verdict({0: raised(timeout), 1: raised("KeyError: 'x'")})

    assert (found.rank, found.exception, found.followers) == (1, "KeyError", [0])


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            f"python: can't open file '{CODE}/trian.py': [Errno 2] No such file or directory",
            "there is no `trian.py` in",
        ),
        ("python: can't open file '/data/t.py': [Errno 2] No such file or directory", "`/data/t.py` does not exist on"),
        ("/usr/bin/bash: line 2: --lr: command not found", "end the line before it with ` \\`"),
        ("bash: line 1: horovodrun: command not found", "`horovodrun` is not in the image"),
        ("run.sh: line 2: $'\\r': command not found", "the script has Windows line ends"),
        ("/usr/bin/env: \u2018python3\\r\u2019: No such file or directory", "the script has Windows line ends"),
        ("/usr/bin/env: 'pythn': No such file or directory", "`pythn` is not in the image"),
        ("bash: line 1: ./run.sh: cannot execute: required file not found", "after `#!`, does not exist"),
        ("bash: ./run.sh: /bin/bash^M: bad interpreter: No such file or directory", "sed -i 's/\\r$//' ./run.sh"),
        ("│ No such option: --lrr       │", "script's arguments: No such option: --lrr"),
    ],
)
def test_a_command_that_does_not_start_gets_a_hint(text: str, hint: str) -> None:
    assert hint in (verdict({0: text}).hint or "")


def test_a_summary_that_is_cut_says_so() -> None:
    found = verdict({0: raised("ValueError: " + "x" * 300)})

    assert "xxx… (train.py:12)" in found.summary


# --- size


def test_many_ranks_are_judged_in_a_time_that_grows_with_their_number() -> None:
    """Twice as many ranks take about twice as long, not four times."""

    def seconds(ranks: int) -> float:
        work = "\n".join(f"step {n} loss 0.1" for n in range(100))
        texts = {rank: f"{work}\n{raised(LOST)}" for rank in range(ranks)}
        texts[3] = raised("KeyError: 'x'")
        begin = time.process_time()
        assert verdict(texts).rank == 3
        return time.process_time() - begin

    seconds(8)
    assert seconds(512) < 12 * seconds(128) + 0.5


def test_a_log_is_let_go_once_it_has_been_heard() -> None:
    """However many ranks there are, the text of few is in memory."""
    work = [Line(n, f"step {n} loss 0.1 of a script that says much in each of its lines") for n in range(600)]

    def logs() -> Iterator[Log]:
        for rank in range(256):
            last = raised("KeyError: 'x'") if rank == 9 else raised(LOST)
            own = [line._replace(text=line.text + " ") for line in work]
            yield Log(f"user_logs/std_log_process_{rank}.txt", [*own, *log(rank, last).lines], rank)

    judge(Known([log(0, raised(LOST))]))
    tracemalloc.start()
    found = judge(Known(logs()))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found
    assert found.rank == 9
    assert most < 256 * 600 * len(work[0].text) / 2


# --- exceptions that a process survived


def test_an_exception_before_the_loss_of_a_peer_did_not_end_the_process() -> None:
    handled = raised("KeyError: 'labels'")
    ends = {0: Ended(1), 1: Ended(signal=9), 2: Ended(1)}
    found = verdict({0: f"{handled}\n{raised(LOST)}", 1: "step 4", 2: raised(LOST)}, ends)

    assert (found.kind, found.rank) == ("killed", 1)
    logs_only = verdict({0: f"{handled}\n{raised(LOST)}", 1: "step 4", 2: raised(LOST)})
    assert (logs_only.rank, logs_only.certainty) == (1, "likely")


def test_an_exception_before_the_loss_of_a_peer_is_likely_if_no_other_rank_is_silent() -> None:
    found = verdict({0: f"{raised('KeyError: 1')}\n{raised(LOST)}", 1: raised(LOST)}, {0: Ended(1), 1: Ended(1)})

    assert (found.rank, found.exception, found.certainty) == (0, "KeyError", "likely")


def test_the_exception_of_a_child_counts_although_its_parent_then_lost_it() -> None:
    child = f"Process SpawnProcess-1:\n{raised('KeyError: 1')}"
    found = verdict({0: f"{child}\n{raised(LOST)}", 1: "step 4"}, {0: Ended(1), 1: Ended(signal=15, stopped=True)})

    assert (found.rank, found.exception) == (0, "KeyError")


def test_an_exception_that_came_before_at_the_same_place_is_no_cause_beside_one_that_ended_its_rank() -> None:
    handled = raised("FileNotFoundError: [Errno 2] No such file or directory: '/data/3'", file="data.py")
    twice = f"{handled}\n{handled.replace('/data/3', '/data/4')}"
    ends = {0: Ended(signal=15, stopped=True, noticed=2), 1: Ended(1, noticed=1)}
    found = verdict({0: twice, 1: raised("KeyError: 1")}, ends, here=True)

    assert (found.rank, found.exception) == (1, "KeyError")


@pytest.mark.parametrize("quoted", ["Connection closed by peer", "RuntimeError: CUDA out of memory. Tried to allocate"])
def test_what_further_lines_of_an_exception_about_values_quote_does_not_say_what_it_is(quoted: str) -> None:
    text = raised(f"AssertionError: outputs differ\nexpected: {LOST}\ngot: {quoted}")
    found = verdict({0: raised(LOST), 1: text}, {0: Ended(1), 1: Ended(1)})

    assert (found.kind, found.rank, found.exception) == ("user-code", 1, "AssertionError")


def test_what_a_command_says_before_the_script_is_no_cause_once_the_script_works() -> None:
    text = "cat: /data/x: No such file or directory\nstep 1 loss 0.9"
    found = verdict({0: text, 1: text}, {0: Ended(signal=15, stopped=True), 1: Ended(5)})

    assert (found.kind, found.rank) == ("exit-code", 1)
    assert verdict({0: text, 1: text}).certainty == "likely"
    assert verdict({0: "cat: /data/x: No such file or directory"}, {0: Ended(1)}).certainty == "certain"


def test_an_exception_before_the_loss_of_a_peer_is_no_cause_beside_a_rank_that_crashed() -> None:
    texts = {0: f"{raised('KeyError: 1')}\n{raised(LOST)}", 1: "Segmentation fault (core dumped)"}
    found = verdict(texts, {0: Ended(1), 1: Ended(139)})

    assert (found.kind, found.rank) == ("crash", 1)


def test_of_two_exceptions_in_an_unknown_order_one_that_was_logged_before_more_work_is_not_the_cause() -> None:
    logged = f"2026-11-29 10:00:00 WARNING skipped\n{raised('KeyError: 1')}\nstep 4 loss 0.3"
    found = verdict({0: logged, 1: raised("ValueError: bad")})

    assert (found.rank, found.exception, found.certainty) == (1, "ValueError", "likely")


def test_a_rank_that_was_stopped_has_not_left_its_peers_but_may_have_kept_them_waiting() -> None:
    late = "RuntimeError: [../gloo/unbound_buffer.cc:81] Timed out waiting 4000ms for recv operation to complete"
    ends = {0: Ended(1), 1: Ended(signal=15, stopped=True)}
    handled = f"2026-11-29 10:00:00 ERROR failed\n{raised('KeyError: 1')}"

    assert verdict({0: f"{handled}\n{raised(LOST)}", 1: "step 4"}, ends).exception == "KeyError"
    assert verdict({0: f"{handled}\n{raised(late)}", 1: "step 4"}, ends).rank == 1


def test_a_traceback_is_not_certain_beside_a_rank_that_mpirun_saw_killed() -> None:
    said = "mpirun noticed that process rank 1 with PID 0 on node node-1 exited on signal 9 (Killed)."
    known = Known([log(0, raised("KeyError: 1")), log(1, "step 4"), log(None, said, "launcher.log")])
    found = judge(known)

    assert found
    assert found.certainty == "likely"


def test_what_asyncio_writes_of_a_task_ends_nothing() -> None:
    text = f"Task exception was never retrieved\nfuture: <Task finished name='Task-2'>\n{raised('KeyError: 1')}"

    assert verdict({0: text}, {0: Ended(7)}).certainty == "likely"


def test_no_traceback_ends_a_process_with_sigkill() -> None:
    text = raised("FileNotFoundError: [Errno 2] No such file or directory: '/data/3'")

    assert verdict({0: text}, {0: Ended(signal=9)}).kind == "killed"
    assert (
        verdict({0: f"ls: cannot access '/data': No such file or directory\n{text}"}, {0: Ended(137)}).kind == "killed"
    )
    # torch has marked this one: it is what Python's own hook printed at the end.
    marked = "\n".join(f"[rank0]: {line}" for line in text.splitlines())
    assert verdict({0: marked}, {0: Ended(signal=9)}).exception == "FileNotFoundError"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("run.sh: line 1: cd: /mnt/nope: No such file or directory", "missing-file"),
        ("tar: data.tar: Cannot open: No such file or directory", "missing-file"),
        ("mkdir: cannot create directory \u2018/data\u2019: Permission denied", "permission"),
        (
            "Error locating target 'models.Net', set env var HYDRA_FULL_ERROR=1 to see chained exception.",
            "missing-module",
        ),
        ("2026-11-29 10:00:00.123456: F external/xla/cuda_driver.cc:152] Failed setting context", "crash"),
        ("F1129 10:00:00.123456   140 allocator.cc:77] Check failed: size >= 0 (-4 vs. 0)", "crash"),
        ("2026-11-29 10:00:00.1: F xla/pjrt/distributed/client.h:77] another task died", "exit-code"),
    ],
)
def test_what_commands_and_compiled_code_say_before_they_end(line: str, kind: str) -> None:
    assert verdict({0: line}, {0: Ended(1)}).kind == kind
