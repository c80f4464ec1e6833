"""The command line: `voidvm serve` runs the service, everything else talks to one.

Exit statuses are those of `voidvm.cli.failures.Exit`. Errors are one line on stderr and often a
hint; a traceback is shown only with `VOIDVM_DEBUG=1`. What is heavy to import is imported by the
command that needs it, so that shell completion stays quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated

import typer
from typer.exceptions import TyperException

from voidvm import __version__
from voidvm.cli.commands import Commands
from voidvm.cli.failures import MEANINGS, CliError, Exit, exit_of_http, hint_of, say_error
from voidvm.errors import LocalFailure, ValidationFailed, VoidVMError

app = typer.Typer(
    name="voidvm",
    cls=Commands,
    help="Virtual machines on one Linux host: run the service, and talk to it.",
    epilog="Exit status: " + "; ".join(f"{status:d} {MEANINGS[status]}" for status in Exit) + ".",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"voidvm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's); the exit status for the shell."""
    if not os.environ.get("VOIDVM_DEBUG"):
        sys.excepthook = _report_bug
    # httpx has a command line of its own, which takes click and rich: a seventh of each of ours.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # so it is not found
    try:
        return _run(arguments)
    except typer.Abort:
        say_error("given up")
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Who read our output has seen enough. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say_error(f"{where}{error.strerror or error}")
    return Exit.FAILED


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result = app(args=arguments, prog_name="voidvm", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        return _report_usage(error)
    except CliError as error:
        say_error(error.message, error.hint)
        return error.exit_status
    except LocalFailure as error:
        say_error(str(error), error.hint)
        return Exit.FAILED
    except VoidVMError as error:
        # Of input that is wrong the details say all.
        text = error.details if isinstance(error, ValidationFailed) else str(error)
        say_error(text or str(error), hint_of(error.code, error.hint))
        return exit_of_http(error.status)
    return result if isinstance(result, int) else Exit.OK


def _report_usage(error: TyperException) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(error.format_message() + "\n")
    else:
        path = context.command_path if context is not None else "voidvm"
        say_error(error.format_message(), f"{path} --help")
    return Exit.USAGE


def _report_bug(
    kind: type[BaseException], error: BaseException, _traceback: TracebackType | None
) -> None:
    say_error(
        f"unexpected: {kind.__name__}: {error}",
        "this is a bug in VoidVM; VOIDVM_DEBUG=1 shows where",
    )
