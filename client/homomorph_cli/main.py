"""The command `homomorph`: one module per subcommand, each importing what it needs only when it runs.

`pip install homomorph` brings the client alone, so a command whose extra is missing says which one to install.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from homomorph_cli import export, morph, render, serve, train
from homomorph_client.errors import HomomorphError

app = typer.Typer(
    name="homomorph",
    help="Turn one picture into another through believable pictures in between, with a slider per attribute.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("render")(render.render)
app.command("train")(train.train)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("morph")(morph.morph)

_EXTRAS = {"render": "train", "train": "train", "export": "export", "serve": "serve"}


def run() -> NoReturn:
    """Run the command line; a user's error is one line on stderr and exit code 2."""
    try:
        app()
    except HomomorphError as error:
        message = " ".join(str(error).split())
        print(f"homomorph: {message}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        command = next((word for word in sys.argv[1:] if word in _EXTRAS), "")
        extra = _EXTRAS.get(command, "all")
        print(f"homomorph: {error.name} is not installed: pip install 'homomorph[{extra}]'", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
