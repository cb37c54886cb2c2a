"""Two versions of the contract on one server, with runs of the same id: they share RQ's queue, and nothing else."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import cast

from piecework.keys import CONTRACT
from tests.chaos.producer_faults import submitting
from tests.chaos.stage import Stage, with_site
from tests.server_fixture import eventually
from tests.worker_fixture import ROOT

_OTHER = CONTRACT + 1


def two_contracts(stage: Stage) -> None:
    """The run of this version and one of another, with workers of both, some of whom are killed."""
    stage.work = replace(stage.work, chunk=max(stage.work.chunk, stage.work.total // 6))  # each may cost a second
    stage.work.submit(stage.pile)
    other = with_site(CHAOS_CONTRACT=str(_OTHER))
    key, client = f"piecework:{_OTHER}:{stage.pile.run}:run", stage.pile.client

    def command(*arguments: str) -> None:
        environ = {**os.environ, **stage.environ(), **other}
        line = [sys.executable, "-m", "piecework_producer.cli", *arguments, "--redis", stage.server.url]
        subprocess.run(line, cwd=ROOT, env=environ, check=True, capture_output=True, timeout=60)

    stranger = stage.pile.worker(environ=other)  # before there is a run for it
    stage.problems += [f"a worker without a run: {stranger.last_line}"] * (stranger.exit_code() != 78)
    command("submit", *submitting(stage, stage.work.handler))
    strangers = [stage.pile.worker(*stage.work.options, environ=stage.environ() | other) for _ in range(2)]

    def replace_a_stranger(stage: Stage) -> None:
        strangers[0].send(signal.SIGKILL)
        strangers[0] = stage.pile.worker(*stage.work.options, environ=stage.environ() | other)

    stage.play([replace_a_stranger] * stage.faults)
    for each in strangers:
        eventually(lambda: each.process.poll() is not None, 30.0, "the other run ends")  # noqa: B023
    state, done, failed = cast(list[bytes], client.hmget(key, "state", "done", "failed"))
    if state.decode() != stage.work.verdict or int(done) + int(failed) != stage.work.total:
        stage.problems.append(f"the other run is {state!r} with {done!r} done and {failed!r} failed")
    command("delete", stage.pile.run, "--force")
