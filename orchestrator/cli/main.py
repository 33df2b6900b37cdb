"""`ft`: the command tree, and the one place that catches errors."""

import io
import os
import signal
import sys
from typing import Annotated, TextIO, cast

import typer

from orchestrator import __version__
from orchestrator.cli import (
    backend,
    cluster,
    fetching,
    inspecting,
    job,
    memory,
    recipe,
    runs,
    stages,
)
from orchestrator.errors import Exit, FtError

# ft has no pydantic plug-ins; looking for some reads the metadata of every installed package
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")

app = typer.Typer(
    rich_markup_mode=None,  # importing what draws the boxes takes longer than all the rest
    name="ft",
    help="Fine-tune language models: one strict recipe, two backends, every token accounted for.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(recipe.app, name="recipe")
app.add_typer(backend.app, name="backend")
app.add_typer(memory.app, name="plan")
app.add_typer(cluster.app, name="cluster")
app.add_typer(runs.app, name="runs")
fetching.register(app)
stages.register(app)
app.command(hidden=True)(job.job)
inspecting.register(app)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"ft {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show tracebacks.", envvar="FT_DEBUG")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["FT_DEBUG"] = "1"


def main() -> None:
    """Entry point of the `ft` script; ends the process with a documented exit code."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # so it is in what a script starts with `&`; `kill -INT` must end a run there too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _open_streams()
    from orchestrator.ui import Lasting

    sys.stderr = cast("TextIO", Lasting(sys.stderr))
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # a pipe that nobody reads, a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _open_streams() -> None:
    """Have all three streams, and none that some text cannot be written to.

    A daemon may start us with streams closed: a lock or a socket would get their numbers, and be
    lost in what we start. An old locale has no letters for what we print.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        outcome = app(args=arguments, prog_name="ft", standalone_mode=False)
        return int(outcome) if isinstance(outcome, int) else int(Exit.OK)
    except FtError as error:
        if os.environ.get("FT_DEBUG") == "1":
            import traceback

            traceback.print_exc()
        _report(error)
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return int(Exit.INTERRUPTED)
    except typer.Exit as leaving:
        return int(leaving.exit_code)
    except BrokenPipeError:
        return int(Exit.OK)
    except OSError as error:
        from orchestrator.files import STORAGE, unwritable

        if error.errno not in STORAGE:
            return _bug(error)
        place, doing = error.filename or "the output", "use" if error.filename else "write"
        _report(unwritable(error, place, doing), written=bool(error.filename))
        return int(Exit.LAUNCH)
    except Exception as error:
        usage = getattr(error, "show", None)
        if callable(usage) and hasattr(error, "exit_code"):  # click's own usage errors
            usage()
            if "--json" in arguments:
                from orchestrator import ui

                ui.emit({"error": {"message": str(error), "exit_code": int(Exit.USAGE)}})
            return int(Exit.USAGE)
        return _bug(error)


def _report(error: FtError, *, written: bool = True) -> None:
    """An expected failure: for people on stderr, and as the JSON document if one was asked for.

    Without `written` there is no stdout to put a document on.
    """
    from orchestrator import ui
    from orchestrator.findings import RecipeError

    findings = error.findings if isinstance(error, RecipeError) else ()
    if ui.screen.json_mode and written:
        ui.emit(
            {
                "error": {
                    "message": error.message,
                    "where": error.where,
                    "hint": error.hint,
                    "detail": error.detail,
                    "exit_code": int(error.exit_code),
                },
                "findings": [finding.as_dict() for finding in findings],
            }
        )
    if findings:
        ui.show_findings(findings)
    else:
        ui.show_error(error)


def _bug(error: Exception) -> int:
    import traceback

    if os.environ.get("FT_DEBUG") == "1":
        traceback.print_exc()
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119
        typer.echo(
            f"error: this is a bug in ft: {type(error).__name__}: {error} ({where})\n"
            "how to fix: run it again with --debug before the command and report what it prints",
            err=True,
        )
    return int(Exit.BUG)


if __name__ == "__main__":
    main()
