"""The command `homomorph`: one module per subcommand; each imports its packages only when it runs.

Without extras pip installs what the client needs, so a command whose extra is missing says which one to install.
"""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from homomorph_cli import (
    align,
    batch,
    bench,
    edit,
    evaluate,
    export,
    grid,
    import_run,
    label,
    morph,
    render,
    serve,
    train,
    translate,
    ui,
)
from homomorph_cli.one_line_errors import run_app
from homomorph_client.version import __version__

app = typer.Typer(
    name="homomorph",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Turn one picture into another through believable pictures in between, with a slider per attribute."""
    if version:
        typer.echo(f"homomorph {__version__}")
        raise typer.Exit


for command in (
    *(render.render, align.align, label.label, train.train, evaluate.evaluate, export.export, serve.serve),
    *(morph.morph, edit.edit, grid.grid, translate.translate, batch.batch, ui.ui),
):
    app.command()(command)
app.add_typer(import_run.app, name="import")
app.add_typer(bench.app, name="bench")


def run() -> NoReturn:
    """Run the command line; a user's error is one line on stderr and exit code 2."""
    run_app(app)
