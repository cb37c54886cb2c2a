"""The producer's side of piecework, and its Python interface.

import piecework_producer

with piecework_producer.run("mypkg.tasks:convert", paths, parallelism=4) as run:
    for outcome in run.results():
        print(outcome.index, outcome.result)
"""

from piecework.records import Status
from piecework.results import Outcome
from piecework.states import State
from piecework_producer.api import run, submit
from piecework_producer.run import Run

__all__ = ["Outcome", "Run", "State", "Status", "run", "submit"]
