"""`piecework`: every verb that a person uses. See `app`."""

import sys


def main() -> None:
    """Entry point of the `piecework` command."""
    try:
        from piecework_producer.cli.app import app
        from piecework_producer.cli.errors import end_on_signals
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.stderr.write("piecework: error: the command line needs pip install 'piecework[producer]'\n")
        sys.exit(2)
    end_on_signals()
    app()
