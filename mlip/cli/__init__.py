"""The command `mlip`: one file per command, imported only when that command runs."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from mlip.errors import InputError

COMMANDS: Final = {
    "relax": ("mlip.cli.relax", "relax", "Relax molecules, and crystals with --cell."),
    "md": ("mlip.cli.md", "md", "Simulate at constant energy, temperature, pressure."),
    "vibrations": ("mlip.cli.vibrations", "vibrations", "Frequencies, thermochemistry, phonons."),
    "ts": ("mlip.cli.ts", "ts", "Find and verify transition states."),
    "train": ("mlip.cli.train", "train", "Train a potential as a YAML file says."),
    "evaluate": ("mlip.cli.evaluate", "evaluate", "Measure the errors of a model on data."),
    "data": ("mlip.cli.data", "app", "Inspect, validate, split, convert, generate data sets."),
    "export": ("mlip.cli.export", "export", "Compile a model for LAMMPS."),
    "lammps": ("mlip.cli.lammps", "app", "Build, find and check the pair style of LAMMPS."),
    "info": ("mlip.cli.info", "info", "Show what a model file holds."),
    "doctor": ("mlip.cli.doctor", "doctor", "Versions, devices, kernels, self-test."),
}
"""Name: module, attribute (a function, or a `typer.Typer` with subcommands), one line of help."""

EXIT_INPUT: Final = 2
EXIT_NOT_CONVERGED: Final = 3
EXIT_INTERRUPTED: Final = 130

_CAUGHT: Final = (InputError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def _load(name: str) -> Any:
    """The command `name` as a typer command or group; imports its module."""
    module, attribute, _ = COMMANDS[name]
    try:
        target = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "mlip":
            raise
        raise InputError(
            f'`mlip {name}` needs the package "{error.name}", not installed: pip install "polyad[all]"'
        ) from None
    if isinstance(target, typer.Typer):
        command = typer.main.get_command(target)
    else:
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name)(target)
        command = typer.main.get_command(single)
    command.name = name
    return command


class LazyGroup(TyperGroup):
    """Lists the commands from `COMMANDS`, imports the one that runs, and turns what the user caused into one
    line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that only knows its line of help: this is what `mlip --help` prints."""
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name][2], rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command, with a suggestion where there is none of that name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(COMMANDS)}"
            raise InputError(f'there is no command "{name}": {hint}')
        found, command, rest = super().resolve_command(ctx, args)
        return found, _load(name) if name in COMMANDS else command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; the one place where errors of the user end."""
        try:
            return super().invoke(ctx)
        except _CAUGHT as error:
            print(f"error: {describe(error)}", file=sys.stderr)
            raise typer.Exit(EXIT_INPUT) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None


def describe(error: Exception) -> str:
    """One line for an error of the user: files by name and reason, everything else by its message."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or type(error).__name__).lower()}"
    return " ".join(str(error).split())


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import mlip

        print(f"mlip {mlip.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Machine-learned interatomic potentials: relax, train, evaluate."""


def _show_warning(message: Warning | str, category: type[Warning], *where: object) -> None:
    """One line on stderr, without the place in our code that it came from."""
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def main() -> None:
    """Entry point of the command `mlip`."""
    import warnings

    warnings.showwarning = _show_warning  # type: ignore[assignment]
    app(prog_name="mlip")
