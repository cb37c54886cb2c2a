"""Every error that a person may see, sorted by what follows from it.

A message names the run, the item or the setting, and the next step. The exit code that belongs to each class
is in `piecework.states`; a traceback is shown only for what is not a `PieceworkError`.
"""


class PieceworkError(Exception):
    """Base of all errors that piecework raises on purpose."""


class UsageError(PieceworkError):
    """The command line, a setting or an argument is wrong; nothing was changed."""


class BadInput(UsageError):
    """An item of the input cannot be read or stored; the message has its line or index."""


class SpecConflict(UsageError):
    """The run exists with another specification; the message names the field that differs."""


class UnknownRun(PieceworkError):
    """No such run on this server: never opened, deleted, or kept no longer."""


class RunIsOver(PieceworkError):
    """The run has ended in a state that does not allow what was asked."""


class HandlerUnusable(PieceworkError):
    """The handler cannot be imported or called; no worker can ever start."""


class ContractMismatch(PieceworkError):
    """The run was opened by a piecework with another contract version."""


class ServerUnusable(PieceworkError):
    """The Redis server cannot be reached, started or used for a ledger."""


class ServerLost(PieceworkError):
    """The Redis server has been away for longer than the patience; nothing that was recorded is lost."""


class CorruptData(PieceworkError):
    """Bytes read back from Redis are not what piecework wrote there."""
