"""How a command ends: its exit code, its last words, and nobody listening to them.

0: every required gate passed, or none was asked for. 1: a gate blocks. 2: bad usage or bad input.
70: a fault of drumgate itself (`-v` shows where). 130: interrupted. Neither click's default for its
own errors nor Python's for an uncaught one is let through, since both are 1.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, NoReturn, TextIO

import click

from training.errors import BlockedError, DrumgateError
from training.progress import more_said, quiet_now

for_github: ContextVar[bool] = ContextVar("for_github", default=False)
"""Whether a step of GitHub Actions asked for annotations with `--github`."""

EXIT_OK: Final = 0
EXIT_BLOCKED: Final = 1
EXIT_BAD_INPUT: Final = 2
EXIT_INTERNAL: Final = 70
EXIT_INTERRUPTED: Final = 130

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def say(text: str, *, err: bool = False) -> None:
    """Print text as it is.

    When the reader has gone away (`| head`) the rest is not printed, and the command goes on: its
    files and its exit code are worth as much as before.
    """
    quiet_now()
    try:
        click.echo(text, nl=False, err=err)
    except BrokenPipeError:
        _mute(sys.stderr if err else sys.stdout)


def _mute(stream: TextIO) -> None:
    """Let a stream lead nowhere: else what it still holds would fail when the process ends."""
    with suppress(OSError, ValueError):  # a stream of a test is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn every way in which a command may end into its exit code and its message on stderr."""
    try:
        yield
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except click.ClickException as error:
        quiet_now()
        try:
            error.show()
        except BrokenPipeError:
            _mute(sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except DrumgateError as error:
        _refused(error)
        sys.exit(EXIT_BAD_INPUT)
    except BlockedError as error:
        say(f"{error}\n", err=True)
        sys.exit(EXIT_BLOCKED)
    except (click.Abort, KeyboardInterrupt):
        say("interrupted\n", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except (_ReaderGone, BrokenPipeError):
        # The reader of our output went away (`| head`): nothing is wrong, nobody is listening.
        _mute(sys.stdout)
        sys.exit(EXIT_OK)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            _internal(error)
        _mute(sys.stdout)  # it may be what is full, and would fail again when the process ends
        say(f"cannot write: {error.strerror}; no file was left half written\n", err=True)
        sys.exit(EXIT_BAD_INPUT)
    except Exception as error:
        _internal(error)


def _internal(error: Exception) -> NoReturn:
    """Own up to a fault of ours, with the traceback where the user asked for more."""
    if more_said.get():
        say(traceback.format_exc(), err=True)
    say(
        f"internal error: {type(error).__name__}: {error}\n"
        "This is a fault of drumgate, not of your data; "
        "run again with -v for the traceback and report it.\n",
        err=True,
    )
    sys.exit(EXIT_INTERNAL)


def _refused(error: DrumgateError) -> None:
    """Say on stderr what is wrong with the input and what to do, and to GitHub where it asked."""
    from training.hints import hint

    said = "".join(f"{text}\n" for text in (str(error), hint(error)) if text)
    if not for_github.get():
        say(said, err=True)
        return
    from training.render.github import inert, render_problems, write_problems

    say(inert(said), err=True)
    say(render_problems(error), err=True)
    with suppress(DrumgateError):
        write_problems(error)


class _ReaderGone(Exception):
    """The reader of our output went away; click would make exit code 1 of a BrokenPipeError."""


class ExitCodes(click.Command):
    """A command whose every ending goes through `exit_codes`."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command; in standalone mode (the default) end the process with its exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        with exit_codes():
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            # click hands back the code of an Exit raised inside, such as --help's.
            sys.exit(result if isinstance(result, int) else EXIT_OK)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments, and print the help where they ask for it."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError:
            raise _ReaderGone from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ReaderGone from None
