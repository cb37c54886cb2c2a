"""`piecework`: every verb that a person uses. See `app`."""

import gc
import sys
from io import TextIOWrapper


def main() -> None:
    """Entry point of the `piecework` command."""
    gc.disable()  # until the verb is imported: see `app`
    try:
        from piecework_producer.cli.app import app
        from piecework_producer.cli.errors import end_on_signals, flush_or_discard

        end_on_signals()
        if isinstance(sys.stdout, TextIOWrapper):  # whatever the locale: an error in a message is no bug
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            app()
        finally:
            flush_or_discard()
            gc.freeze()  # at exit Python would look for garbage among all that was imported, for 0.1 s
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.stderr.write("piecework: error: the command line needs pip install 'piecework[producer]'\n")
        sys.exit(2)
    except KeyboardInterrupt:  # before a verb has begun
        sys.exit(130)
