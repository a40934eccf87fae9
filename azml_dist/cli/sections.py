"""The commands as `azml-dist --help` lists them, by what they are for, and where each is when it is called."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from azml_dist.cli.output import give_up

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Before it costs anything": {
        "init": ("init", "write a job file for a training script"),
        "plan": ("plan", "what a job means: processes, variables, command"),
        "run": ("jobs", "run a job on this machine"),
        "check": ("checks", "a job against the workspace: compute, quota, price"),
        "doctor": ("checks", "what this machine and the workspace have"),
        "emulator": ("emulator", "a workspace on this machine, to test against"),
    },
    "On Azure ML": {
        "submit": ("jobs", "submit a job, or that of a run again"),
        "probe": ("probes", "what the workspace and the nodes really do, by small jobs"),
        "register": ("register", "an output of a run as a model in the workspace"),
        "export": ("exporting", "a job, or that of a run, as YAML for `az ml`"),
    },
    "A run, here or on Azure ML": {
        "list": ("listing", "the last runs"),
        "status": ("runs", "its state, and each of its processes"),
        "logs": ("runs", "the lines of all ranks, or of one"),
        "wait": ("runs", "wait for its end, and exit with its status"),
        "why": ("runs", "which rank failed first, and why"),
        "rerun": ("again", "repeat it on this machine, from its own code"),
        "diff": ("differing", "what differs between two runs or jobs"),
        "stacks": ("runs", "what every process is doing now"),
        "metrics": ("metrics", "what it logged, several runs side by side"),
        "page": ("page", "all of it as one HTML file"),
        "ui": ("ui", "MLflow or TensorBoard on runs"),
        "download": ("runs", "its outputs, artifacts and logs"),
        "bundle": ("bundles", "a zip that explains its end, without secrets"),
        "cancel": ("runs", "cancel it"),
    },
    "Clean up, set up": {
        "rm": ("clearing", "delete runs on this machine"),
        "prune": ("clearing", "delete old runs on this machine"),
        "schema": ("editors", "the JSON Schema of job files, for your editor"),
        "completion": ("editors", "completion for your shell"),
    },
}
"""By title: the module of each command, and what it is for."""
_MODULE_OF = {name: module for section in SECTIONS.values() for name, (module, _) in section.items()}


class Sectioned(click.Command):
    """A command with many options, whose help lists them in sections."""

    def __init__(self, *args: Any, sections: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections
        """The names of the options of each section; those in none are in the last one."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        options = [one for one in self.get_params(context) if isinstance(one, click.Option)]
        records = {one.name: record for one in options if (record := one.get_help_record(context))}
        width = max(len(names) for names, _ in records.values())
        for title, names in self.sections.items():
            section = [records.pop(name) for name in names.split()]
            if title == [*self.sections][-1]:
                section += records.values()
            with formatter.section(title):  # with texts that begin in the same column in all sections
                formatter.write_dl([(f"{names:{width}}", text) for names, text in section])


class Commands(click.Group):
    """A group that imports a command when it is called, and whose help lists the commands in sections."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_MODULE_OF)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        # For an unknown name click suggests a known one, from the commands that it has.
        for module in [_MODULE_OF[name]] if name in _MODULE_OF else dict.fromkeys(_MODULE_OF.values()):
            for command in import_module(f"azml_dist.cli.{module}").COMMANDS:
                self.add_command(command)
        return super().get_command(context, name)

    def invoke(self, context: click.Context) -> Any:
        """A command whose reader, such as `head`, has seen enough has done its work; click would end it with 1."""
        try:
            return super().invoke(context)
        except BrokenPipeError:
            give_up(sys.stdout.fileno())
            return 0

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, purpose) for name, (_, purpose) in section.items()], col_spacing=3)
