"""The classes of scenarios, by name, and how one of them is played from a seed."""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos import network_faults as network
from tests.chaos import queue_faults as queue
from tests.chaos import server_faults as server
from tests.chaos import worker_faults as workers
from tests.chaos.contracts import two_contracts
from tests.chaos.oracle import Examined
from tests.chaos.producer_faults import launchers_that_die, producers_that_die
from tests.chaos.stage import Stage, with_site

Play = Callable[[Stage], None]


def drawing(*faults: Play) -> Play:
    """A run with workers, to which some of these faults happen."""

    def play(stage: Stage) -> None:
        stage.work.submit(stage.pile)
        stage.play([stage.rng.choice(faults) for _ in range(stage.faults)])

    return play


def dying_at_calls(stage: Stage) -> None:
    """Workers die at the calls that they send."""
    stage.work.submit(stage.pile)
    workers.arm_fault_points(stage)
    stage.play([])


def with_silence(stage: Stage) -> None:
    """A server that does not answer, at times for longer than all attempts of a call take."""
    stage.work = replace(stage.work, url_options="?socket_timeout=1")
    drawing(server.pause_server)(stage)


def with_stragglers(stage: Stage) -> None:
    """Two workers at one item, and what is at it is killed, stopped, or told to go."""
    stage.work = stage.work.speculating(stage.rng)
    drawing(*_WORKERS)(stage)


def everything(stage: Stage) -> None:
    """Whatever may happen to one run without its launcher."""
    if stage.rng.random() < 0.5:
        stage.work = stage.work.speculating(stage.rng)
    faults = (*_WORKERS, *_NETWORK, *_QUEUE, server.kill_server, server.lose_the_last_second, server.fill_its_memory)
    drawing(*faults)(stage)


def with_wrong_clocks(stage: Stage) -> None:
    """Workers on machines whose clocks are wrong, and are set while they work."""
    stage.work.submit(stage.pile)
    stage.environs.append(lambda: with_site(CHAOS_CLOCK=str(stage.clock)))
    faults = (network.jump_clock, workers.kill_worker)
    stage.play([network.jump_clock, *(stage.rng.choice(faults) for _ in range(stage.faults))])


_WORKERS: tuple[Play, ...] = (
    workers.kill_worker,
    workers.kill_horse,
    workers.stop_worker_for_longer_than_its_lease,
    workers.sigterm_storm,
)
_NETWORK: tuple[Play, ...] = (network.slow_down, network.cut_replies, network.partition, network.reset_connections)
_QUEUE: tuple[Play, ...] = (queue.deliver_twice, queue.reorder, queue.foreign_jobs, queue.delete_the_queue)

SCENARIOS: dict[str, Play] = {
    "worker killed": drawing(workers.kill_worker, workers.kill_all_workers),
    "horse killed": drawing(workers.kill_horse),
    "killed at a call": dying_at_calls,
    "stopped longer than the lease": drawing(
        workers.stop_worker_for_longer_than_its_lease, workers.stop_all_for_longer_than_their_leases
    ),
    "SIGTERM storm": drawing(workers.sigterm_storm),
    "server killed": drawing(server.kill_server),
    "server silent": with_silence,
    "server loses its last second": drawing(server.lose_the_last_second),
    "replica promoted": drawing(server.promote_a_replica),
    "memory full": drawing(server.fill_its_memory),
    "disk full": drawing(server.fill_its_disk),
    "slow network": drawing(network.slow_down),
    "connections cut": drawing(network.cut_replies, network.reset_connections),
    "partition": drawing(network.partition),
    "clocks jump": with_wrong_clocks,
    "jobs twice, reordered": drawing(queue.deliver_twice, queue.reorder),
    "foreign jobs": drawing(queue.foreign_jobs),
    "queue deleted": drawing(queue.delete_the_queue),
    "producers killed, two at once": producers_that_die,
    "launcher killed": launchers_that_die,
    "two contracts": two_contracts,
    "stragglers copied": with_stragglers,
    "everything": everything,
}


@dataclass(frozen=True)
class Played:
    """One scenario, as it went."""

    name: str
    seed: int
    seconds: float
    faults: int = 0
    died_at: tuple[str, ...] = ()
    """At which calls processes died."""
    examined: Examined = field(default_factory=Examined)
    trouble: str = ""
    """A traceback, if it did not come to its end."""
    directory: Path | None = None
    """Where its logs are, if something is wrong."""

    @property
    def sound(self) -> bool:
        return not self.trouble and not self.examined.problems


def play(name: str, seed: int, *, small: bool = False) -> Played:
    """Play the scenario of a class and a seed. What workers wrote is kept if something is wrong."""
    directory, begun = Path(tempfile.mkdtemp(prefix="chaos-")), time.monotonic()
    faults, examined, trouble = 0, Examined(), ""
    died_at: tuple[str, ...] = ()
    try:
        with Stage(f"{name} {seed}", directory, small=small) as stage:
            try:
                SCENARIOS[name](stage)
                examined = stage.examine()
            except AssertionError:
                trouble = "".join(f"{line}\n" for line in stage.why())
                raise
            finally:
                died_at = tuple(stage.died_at)
                faults = stage.happened + len(died_at)
    except Exception:
        trouble += traceback.format_exc()
    played = Played(name, seed, time.monotonic() - begun, faults, died_at, examined, trouble, directory)
    if played.sound:
        shutil.rmtree(directory, ignore_errors=True)
    return played
