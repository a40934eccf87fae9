"""The module that a watched run loads before the user's code, in every Python that the command of a rank starts.

Copied as `sitecustomize.py` into a folder that is first on `PYTHONPATH`. It takes that folder out of `os.environ` and
`sys.path`, imports the `sitecustomize` that Python would have found without it, and arranges two things that cost
nothing until they are used: a signal on which faulthandler writes the stacks of all threads into a file, and, once
torch has a process group, a socket that answers with torch's Flight Recorder. Uses only built-in modules, since
every start of Python pays for it. If something cannot be set up, the program starts nevertheless.
"""

import atexit
import faulthandler
import os
import sys

SIGNAL = 16 if sys.platform == "darwin" else 23
"""SIGURG: ignored by default, so it does not harm a process that does not handle it."""
DEBUG = "AZML_DIST_DEBUG_PORT"
"""The port where the first Python of a rank waits for a debugger."""
PDB = "AZML_DIST_PDB_TERMINAL"
"""The terminal where the first rank that fails opens pdb."""
LAUNCHERS = frozenset(["torchrun", "accelerate", "deepspeed", "torch.distributed.run", "torch.distributed.launch"])
LAUNCHERS |= {"accelerate.commands.launch", "deepspeed.launcher.runner", "deepspeed.launcher.launch"}
"""Programs that start ranks themselves: their children are watched too."""
_C10D = "torch.distributed.distributed_c10d"
_FIRST_FD = 120
"""A descriptor far from the program's own, which begin at 3."""

_place = ""
_fd = -1


def begin(folder: str) -> None:
    """Remove all visible traces of this module, and set up what answers."""
    global _place
    _place = os.path.dirname(folder)
    is_launcher = _is_launcher(getattr(sys, "orig_argv", [])[1:])
    _leave(folder, keep=is_launcher)
    if not is_launcher and DEBUG in os.environ:
        _wait_for_debugger(int(os.environ.pop(DEBUG)))
    if not is_launcher and PDB in os.environ:
        _look_after_death(os.environ.pop(PDB))
    try:
        _arrange_stacks()
        atexit.register(_remove, os.getpid())
        os.register_at_fork(after_in_child=_arrange_again)
        sys.meta_path.insert(0, _Torch)
    except Exception:
        pass


def _wait_for_debugger(port: int) -> None:
    quiet = "PYDEVD_DISABLE_FILE_VALIDATION"  # else it warns of frozen modules, which are Python's own
    given = os.environ.get(quiet)
    os.environ[quiet] = given or "1"
    try:
        import debugpy  # noqa: T100 (asked for by `--debug-rank`)

        debugpy.listen(("127.0.0.1", port))  # noqa: T100
    except Exception as error:  # the program runs without it
        sys.stderr.write(f"no debugger can attach: {error}\n")
        return
    finally:
        if given is None:
            del os.environ[quiet]
    debugpy.wait_for_client()  # noqa: T100


def _look_after_death(terminal: str) -> None:
    """Let an exception that nothing catches open pdb at the terminal: in the first rank, while later ones wait."""
    usual = sys.excepthook

    def hook(kind, error, trace):  # type: ignore[no-untyped-def]
        if issubclass(kind, Exception) and trace:
            try:
                _post_mortem(terminal, error, trace)
            except Exception as other:  # the program ends as it would have
                sys.stderr.write(f"no post-mortem: {other}\n")
        usual(kind, error, trace)

    sys.excepthook = hook


def _post_mortem(terminal: str, error: BaseException, trace: object) -> None:
    import pdb  # noqa: T100 (asked for by `--pdb`)
    import time
    import traceback

    mark, done = os.path.join(_place, "pdb"), os.path.join(_place, "pdb.done")
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        while os.path.isdir(_place) and not os.path.exists(done):
            time.sleep(0.1)
        return
    try:
        with open(terminal) as stdin, open(terminal, "w") as stdout:
            traceback.print_exception(type(error), error, error.__traceback__, file=stdout)
            rank = os.environ.get("RANK") or os.environ.get("OMPI_COMM_WORLD_RANK") or "0"
            stdout.write(f"rank {rank} failed first, and the others wait: `q` or `c` lets the run end\n")
            debugger = pdb.Pdb(stdin=stdin, stdout=stdout)
            debugger.reset()
            debugger.interaction(None, trace)  # type: ignore[arg-type]
    finally:
        open(done, "w").close()


def _leave(folder: str, *, keep: bool) -> None:
    """Remove the folder from all places, as if it had never been there."""
    value = os.environ.get("PYTHONPATH", "")
    parts = value.split(os.pathsep)
    expanded_to_nothing = parts[-1:] == [folder] and len(parts) > 1 and parts[0] != folder
    for index in [i for i, path in enumerate(sys.path) if path == folder][::-1]:
        # `PYTHONPATH=src:$PYTHONPATH` would have ended in a separator, which means the working directory.
        if expanded_to_nothing and os.getcwd() not in sys.path:
            sys.path[index] = os.getcwd()
        else:
            del sys.path[index]
    sys.path_importer_cache.pop(folder, None)
    if keep:
        return
    rest = os.pathsep.join([part for part in parts if part != folder])
    if rest:
        os.environ["PYTHONPATH"] = rest + os.pathsep * expanded_to_nothing
    elif parts == [folder, folder]:  # how an empty variable is written
        os.environ["PYTHONPATH"] = ""
    else:
        os.environ.pop("PYTHONPATH", None)


def _is_launcher(words: "list[str]") -> bool:
    for number, word in enumerate(words):
        if word == "-m":
            return words[number + 1 : number + 2] != [] and words[number + 1] in LAUNCHERS
        if not word.startswith("-"):
            return os.path.basename(word) in LAUNCHERS
    return False


# --- stacks


def _arrange_stacks() -> None:
    """Let the signal write the stacks of all threads into a file named after this process."""
    global _fd
    opened = os.open(os.path.join(_place, str(os.getpid())), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        _fd = os.dup2(opened, _free(_FIRST_FD), inheritable=False)
        os.close(opened)
    except OSError:  # the limit of open files is lower
        _fd = opened
    # Readers compare this with the process's descriptors: the program may have closed it and opened another file.
    os.write(_fd, b"fd %d\n" % _fd)
    faulthandler.register(SIGNAL, file=_fd, all_threads=True, chain=False)


def _free(number: int) -> int:
    """The first descriptor from this one on that is not open."""
    while True:
        try:
            os.fstat(number)
        except OSError:
            return number
        number += 1


def _arrange_again() -> None:
    """After a fork, give the child its own file."""
    try:
        os.close(_fd)
        _arrange_stacks()
    except Exception:
        pass


def _remove(pid: int) -> None:
    if pid == os.getpid():
        try:  # noqa: SIM105 (contextlib is one more import)
            os.unlink(os.path.join(_place, str(pid)))
        except OSError:
            pass


# --- torch's collectives


class _Torch:
    """Waits in the import system for the module with torch's process groups, and then removes itself."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != _C10D:
            return None
        sys.meta_path.remove(_Torch)
        import importlib.util

        spec = importlib.util.find_spec(name)
        if spec and (loader := spec.loader):
            execute = loader.exec_module

            def exec_module(module):  # type: ignore[no-untyped-def]
                del loader.exec_module
                execute(module)
                if type(getattr(module, "_pg_group_ranks", None)) is dict:
                    module._pg_group_ranks = _Groups(module)

            loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class _Groups(dict):  # type: ignore[type-arg]
    """torch's own table of process groups, in which the first one starts the thread that answers.

    Not before: a program without process groups gets no thread.
    """

    def __init__(self, module) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self._module, self._pid = module, 0

    def __setitem__(self, group, ranks) -> None:  # type: ignore[no-untyped-def]
        super().__setitem__(group, ranks)
        if self._pid != os.getpid():
            self._pid = os.getpid()
            try:
                import _thread

                _thread.start_new_thread(_answer, (self._module, self._pid))
            except Exception:
                pass


def _answer(module, pid) -> None:  # type: ignore[no-untyped-def]
    """Answer each connection with the groups of this process and the recorder's dump."""
    try:
        import _signal  # type: ignore[import-not-found]
        import _socket

        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        listener.bind(os.path.join(_place, f"{pid}.s"))
        listener.listen(8)
    except Exception:
        return
    while True:
        try:
            connection = _socket.socket(fileno=listener._accept()[0])  # type: ignore[attr-defined]
        except Exception:
            return
        try:
            connection.settimeout(10)
            connection.sendall(_trace(module, connection.recv(1)))
        except Exception:
            pass
        finally:
            connection.close()


def _trace(module, how) -> bytes:  # type: ignore[no-untyped-def]
    """The groups, in a line of JSON, and a dump: `s` for numbers, `j` for JSON, `p` for a pickle with lines of code."""
    import json

    import torch._C._distributed_c10d as recorder

    world = module._world
    groups = {}
    for group, ranks in list(dict.items(world.pg_group_ranks)):
        if name := world.pg_names.get(group):  # torch also lists groups without this rank, under one number
            groups[name] = [getattr(group, "group_desc", ""), [int(rank) for rank in ranks]]
    header = json.dumps({"pid": os.getpid(), "rank": int(module.get_rank()), "groups": groups}).encode()
    dump = b""
    if how == b"p" and hasattr(recorder, "_dump_fr_trace"):
        dump = recorder._dump_fr_trace()
    elif hasattr(recorder, "_dump_fr_trace_json"):
        dump = recorder._dump_fr_trace_json(how != b"s")
    elif hasattr(recorder, "_dump_nccl_trace"):  # as torch called it before
        dump = recorder._dump_nccl_trace()
    return header + b"\n" + (dump.encode() if isinstance(dump, str) else dump)


if __name__ == "sitecustomize":
    begin(os.path.dirname(os.path.abspath(__file__)))
    del sys.modules["sitecustomize"]
    import sitecustomize  # type: ignore[import-not-found] # noqa: F401 (the one that is shadowed; none is what Python passes over)
