"""Ends every command: a user's error is one line on stderr and exit code 2, an interruption is exit code 130."""

from __future__ import annotations

import errno
import signal
import sys
from typing import NoReturn

import typer

from homomorph_client.errors import HomomorphError
from homomorph_client.version import install_hint

_EXTRAS = {
    "render": ("render pictures", "train"),
    "align": ("align faces", "align"),
    "train": ("train", "train"),
    "evaluate": ("evaluate runs", "train"),
    "label": ("label pictures", "train"),
    "export": ("export a run", "export"),
    "import": ("import a checkpoint", "export"),
    "serve": ("serve", "serve"),
    **dict.fromkeys(("morph", "edit", "grid", "translate", "ui"), ("compute without a server", "train")),
    "batch": ("work on many machines", "ray"),
    "bench": ("measure", "bench"),
}
"""By command: its purpose, and the extra that it needs. Other commands need none."""


def run_app(app: typer.Typer) -> NoReturn:
    """Run a command line and exit; without arguments, show its help."""
    arguments = sys.argv[1:] or ["--help"]
    # `kill`, service managers, a closed terminal and Ctrl-\ get the same orderly end as Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    try:
        # Left to itself, Typer draws a frame of several lines around an error. A KeyboardInterrupt it catches in any
        # mode, and returns as the code 130.
        code = app(arguments, standalone_mode=False)
        if code == 130:
            raise KeyboardInterrupt
        sys.exit(code)
    except (KeyboardInterrupt, typer.Abort):
        print("homomorph: interrupted", file=sys.stderr)
        sys.exit(130)
    except typer.TyperException as error:
        # Without a message it has shown the help of a command that needs another word, such as `homomorph bench`.
        if message := error.format_message():
            _fail(message)
        sys.exit(2)
    except HomomorphError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(f"the disk is full ({error.filename or error.strerror}): make room, and start again")
        if error.filename is None:  # the error names no file that the user could mend
            raise
        _fail(f"{error.filename} cannot be used: {error.strerror}")
    except ModuleNotFoundError as error:
        purpose, extra = _EXTRAS.get(arguments[0], ("run this", "all"))
        _fail(f"to {purpose}, {install_hint(extra)} ({error.name} is not installed)")


def _fail(message: str) -> NoReturn:
    print(f"homomorph: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
