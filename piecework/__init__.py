"""piecework: runs a finite pile of work items to completion, each recorded exactly once.

This package is the contract that producer and worker share; it imports neither. A handler needs one name of
it, `piecework.current()`.
"""

from piecework.context import Context, current

__all__ = ["Context", "current"]
__version__ = "0.1.0"
