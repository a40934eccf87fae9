"""`ui`: MLflow's page for the runs of a folder, or TensorBoard for some of them."""

from __future__ import annotations

import signal
import sys
import tempfile
import webbrowser
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from azml_dist.cli.base import DONE, example, json_option, root_option, run_names
from azml_dist.cli.output import say, tell, tell_json
from azml_dist.errors import DistError, NotFound

if TYPE_CHECKING:
    from azml_dist.runs.run import Run

_DEEPEST = 10
"""How deep in the folders of a run on Azure ML event files are looked for."""


@click.command(epilog=example("azml-dist ui --tensorboard quickstart-3f2a91 quickstart-77aa01"))
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=run_names)
@click.option("--tensorboard", is_flag=True, help="Open TensorBoard on the event files of these runs.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port of the page; by default, a free one.")
@click.option("--browser/--no-browser", default=None, help="Open a browser; by default, only at a terminal.")
@click.option("--python", type=click.Path(), help="The Python that has MLflow or TensorBoard, if not this one.")
@root_option
@json_option
def ui(
    names: tuple[str, ...],
    tensorboard: bool,
    port: int | None,
    browser: bool | None,
    python: str | None,
    root: str | None,
    as_json: bool,
) -> int:
    """Open MLflow's own page on the local runs, or TensorBoard on runs here and on Azure ML, until Ctrl-C.

    The page is on this machine only. The event files of a run on Azure ML are downloaded first.
    """
    from azml_dist.local.roots import default_root
    from azml_dist.local.served import free_port, mlflow_of, tensorboard_of

    if names and not tensorboard:
        raise DistError("MLflow's page shows all runs of a folder", hint="leave out the names, or add `--tensorboard`")
    if tensorboard and not names:
        raise DistError("TensorBoard needs the names of runs", hint="`azml-dist ui --tensorboard NAME...`")
    with ExitStack() as stack:
        stack.enter_context(_ended_by_signals())
        port = port or free_port()
        if tensorboard:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="azml-dist-ui-")))
            folders = {Path(name).name: _events(name, root, scratch) for name in names}
            (scratch / "runs").mkdir()
            served = tensorboard_of(folders, scratch / "runs", port, python)
        else:
            served = mlflow_of(Path(root) if root else default_root(), port, python)
        stack.enter_context(closing(served))
        served.wait_until_ready()
        try:
            if as_json:
                tell_json({"url": served.url, "page": "tensorboard" if tensorboard else "mlflow"})
            else:
                tell(served.url)
                say("press Ctrl-C to end it")
            if sys.stdout.isatty() if browser is None else browser:
                webbrowser.open(served.url)
            served.wait()
        except KeyboardInterrupt:  # how one ends it
            say("")
    return DONE


COMMANDS = (ui,)


class _ended_by_signals:  # noqa: N801 (a context manager)
    """A signal that would end this process ends the page first; an ignored one stays ignored, as `nohup` intends."""

    def __enter__(self) -> None:
        known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
        heard = [signum for signum in known if signal.getsignal(signum) != signal.SIG_IGN]
        self._before = {signum: signal.signal(signum, _interrupt) for signum in heard}

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _events(name: str, root: str | None, scratch: Path) -> Path:
    """The folder with the event files of a run. A run that is still running may get some later."""
    from azml_dist.cli.runs import find_run
    from azml_dist.local.served import EVENTS, event_folder

    run: Run = find_run(name, root)
    folder: Path | None = getattr(run, "folder", None)
    if folder is None:
        folder = scratch / "downloaded" / run.name
        say(f"downloading the event files of {run.name}")
        for depth in range(1, _DEEPEST):
            with suppress(NotFound):  # none that deep
                run.fetch(folder, only=["/".join(["*"] * depth + [f"*{EVENTS}*"])], so_far=True)
        folder.mkdir(parents=True, exist_ok=True)
    found = event_folder(folder)
    if found is None:
        say(f"note: run {run.name} has no event files of TensorBoard{'' if run.status.is_final else ' yet'}")
    return found or folder
