"""Which words of a rank count: those of threads and libraries, of exceptions that were survived, and the last ones."""

from __future__ import annotations

import pytest
from judging import LOST, in_a_library, raised, verdict

from azml_dist.verdict.known import Ended

NCCL = "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:94, invalid usage, NCCL version 2.27.5"


# --- whose words count


def test_what_a_library_made_of_an_exception_counts_if_only_that_is_known() -> None:
    inner = in_a_library("KeyError: 'qwen3'")
    outer = in_a_library(
        "ValueError: The checkpoint you are trying to load has model type `qwen3` but Transformers does not recognize"
        " this architecture."
    )
    between = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
    found = verdict({0: f"{inner}{between}{outer}"})

    assert (found.kind, found.exception, found.file) == ("missing-module", "ValueError", "train.py")


def test_an_exception_while_another_one_is_handled_elsewhere_is_not_the_cause() -> None:
    """A checkpoint that is saved because the script fails may fail, too."""
    between = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
    saving = in_a_library("OSError: [Errno 28] No space left on device: '/tmp/ck.pt'")
    found = verdict({0: f"{raised('KeyError: 1')}{between}{saving}"})

    assert (found.kind, found.exception) == ("user-code", "KeyError")


def test_a_variable_that_is_not_set_is_named() -> None:
    head, _, _ = raised("").rpartition("\n")
    found = verdict({0: f"{head}\n  File \"<frozen os>\", line 679, in __getitem__\nKeyError: 'DATA_URL'"})

    assert (found.kind, found.certainty) == ("bad-arguments", "likely")
    assert found.hint == "the environment variable `DATA_URL` is not set: add it to `environment_variables`"


def test_the_reason_of_a_layer_is_its_message() -> None:
    error = (
        "ValueError: Exception encountered when calling Sequential.call().\n\n\x1b[1mInput 0 of layer 'dense' is"
        " incompatible with the layer: expected axis -1 to have value 4\x1b[0m\n\nArguments received by it:"
    )
    found = verdict({0: in_a_library(error)})

    assert found.kind == "shape-mismatch"
    assert (found.message or "").startswith("Input 0 of layer 'dense'")


def test_the_reason_of_a_graph_is_above_the_name_of_its_node() -> None:
    """TensorFlow 2.21 names the node below the reason, and may show each frame of the node after an empty line."""
    made = '\n\n  File "train.py", line 3, in <module>\n\n  File "keras/layers/embedding.py", line 196, in call\n'
    error = (
        "tensorflow.python.framework.InvalidArgumentError: Graph execution error:\n\nDetected at node a/G"
        f" defined at (most recent call last):{made}\nindices[0,0] = 7 is not in [0, 3)\n\t [[{{{{node a/G}}}}]] [Op:f]"
    )
    found = verdict({0: in_a_library(error), 1: raised(LOST)})

    assert (found.message, found.kind) == ("indices[0,0] = 7 is not in [0, 3)", "user-code")
    assert (found.hint or "").startswith("the index 7 is not below 3")
    assert (found.file, found.line) == ("train.py", 12)


def test_a_master_that_is_not_there_is_named() -> None:
    error = (
        "torch.distributed.DistNetworkError: The client socket has failed to connect to any network address of (node-0,"
        " 6105). The client socket has failed to connect to node-0:6105 (errno: 110 - Connection timed out)."
    )
    found = verdict({rank: in_a_library(error) for rank in (1, 2, 3)})

    assert (found.kind, found.certainty, found.rank) == ("rendezvous", "likely", None)
    assert (found.hint or "").startswith("no process listened at node-0, port 6105")


def test_a_message_of_tensorflow_is_shown_without_the_names_of_its_functions() -> None:
    error = (
        "DataLossError: {{function_node __wrapped__IteratorGetNext}} corrupted record at 0 [Op:IteratorGetNext] name: "
    )

    assert verdict({0: in_a_library(error)}).message == "corrupted record at 0"


def test_a_warning_of_nccl_before_an_exception_does_not_mean_that_it_was_caught() -> None:
    warned = "node:52 [0] bootstrap.cc:43 NCCL WARN Bootstrap : no socket interface found"
    error = f"{NCCL}\nncclInternalError: Internal check failed.\nLast error:\nBootstrap : no socket interface found"
    found = verdict({0: f"{warned}\n{raised(error)}", 1: raised(LOST)})

    assert (found.kind, found.certainty, found.rank) == ("rendezvous", "certain", 0)
    assert found.hint == "NCCL finds no network interface: check `NCCL_SOCKET_IFNAME`"


def test_an_exception_after_which_others_worked_on_has_ended_nobody() -> None:
    error = "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"
    caught = f"ERROR cannot read the cache\n{in_a_library(error)}"
    texts = {rank: f"{caught}\nstep 1 loss 2\n{raised(LOST) if rank != 2 else ''}" for rank in range(4)}
    found = verdict(texts)
    alone = verdict({**texts, 2: caught})

    assert (found.kind, found.certainty, found.rank) == ("killed", "likely", 2)
    assert (alone.exception, alone.rank) == ("JSONDecodeError", 2)


# --- threads

DIED = "Exception in thread prefetch:\n" + raised("KeyError: 'labels'", "data.py", 31)
LATE = "RuntimeError: [unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete"


@pytest.mark.parametrize("error", ["_queue.Empty", "TimeoutError", "threading.BrokenBarrierError"])
def test_a_thread_that_waited_in_vain_for_one_that_failed_is_not_the_cause(error: str) -> None:
    found = verdict({0: raised(LOST), 1: f"{DIED}\n{raised(error, line=50)}"})

    assert (found.exception, found.file, found.line, found.certainty) == ("KeyError", "data.py", 31, "likely")


def test_an_exception_after_that_of_a_thread_may_be_of_its_own() -> None:
    found = verdict({0: raised(LOST), 1: f"{DIED}\n{raised('ZeroDivisionError: division by zero', line=50)}"})

    assert (found.exception, found.line) == ("ZeroDivisionError", 50)


def test_where_all_ranks_lose_a_thread_the_one_that_then_keeps_others_waiting_is_named() -> None:
    found = verdict({rank: DIED if rank == 1 else f"{DIED}\n{raised(LATE)}" for rank in range(4)})

    assert (found.exception, found.rank, found.ranks, found.certainty) == ("KeyError", 1, [0, 1, 2, 3], "likely")
    assert found.hint == "the others then waited for rank 1 in a collective"


def test_a_thread_that_failed_is_told_of_a_rank_that_is_late() -> None:
    steps = "".join(f"step {number}\n" for number in range(9))
    found = verdict({rank: f"{DIED}\n{steps}{raised(LATE) if rank else ''}" for rank in range(3)})

    assert (found.kind, found.certainty, found.rank) == ("collective-timeout", "likely", 0)
    assert (found.hint or "").endswith("for which it may have waited: KeyError: 'labels' (data.py:31)")
    assert found.evidence[0].text == "KeyError: 'labels'"


# --- ends without a traceback


def test_a_last_line_with_which_a_script_may_have_ended_itself_is_told() -> None:
    found = verdict({0: raised(LOST), 1: "step 1\nconfig error: lr must be positive", 2: raised(LOST)})
    silent = verdict({0: raised(LOST), 1: "step 1", 2: raised(LOST)})

    assert (found.kind, found.certainty, found.rank) == ("exit-code", "likely", 1)
    assert "`config error: lr must be positive`" in (found.hint or "")
    assert (silent.kind, silent.rank) == ("killed", 1)


SUMMARY = (
    f"{in_a_library('torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ')}\n=====\ntrain.py FAILED"
)


@pytest.mark.parametrize(
    "last", ["epoch 3 error: 0.31", "val error 0.2", "WARNING: missing values", "step 4 failed: 0", SUMMARY]
)
def test_a_last_line_about_the_work_is_not_that_of_a_script_that_ended_itself(last: str) -> None:
    assert verdict({0: raised(LOST), 1: last, 2: raised(LOST)}).kind == "killed"


def test_a_rank_that_aborts_mpi_is_named() -> None:
    text = "no shard 7\nMPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD\n  Errorcode: 3\n"
    found = verdict({0: text})

    assert (found.kind, found.rank, found.message) == ("exit-code", 2, "exit code 3")
    assert (found.hint or "").startswith("it called `MPI_Abort`")


def test_an_actor_of_ray_that_died_is_no_rank() -> None:
    error = (
        "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.\n\tclass_name: T\n"
        "\tactor_id: ab\n\tpid: 812\n\tnamespace: x\n\tip: 10.0.0.5\nThe actor is dead."
    )
    found = verdict({0: raised(error), 1: "step 1"}, {0: Ended(1)})

    assert (found.certainty, found.rank, found.ranks) == ("unknown", None, [])
    assert "process 812 on 10.0.0.5" in (found.hint or "")
