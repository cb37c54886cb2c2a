"""What happens to the server: killed, paused, full, without its last writes, replaced by a replica that lacks some."""

import contextlib
import resource
import shutil
import time
from collections.abc import Iterable

from tests.chaos.stage import Stage
from tests.server_fixture import eventually, free_port

_LOST_SECONDS = 1.0


def kill_server(stage: Stage) -> None:
    """SIGKILL, and back on the same data: at once, or after a while."""
    stage.server.kill()
    stage.after(stage.rng.choice([0.0, stage.rng.uniform(0.1, 2.0)]), stage.server.restart)


def pause_server(stage: Stage) -> None:
    """Silence: connections are taken, nothing is answered."""
    server = stage.server
    server.pause()
    stage.after(stage.rng.choice([0.3, 2.0, 5.0]), server.resume)


def lose_the_last_second(stage: Stage) -> None:
    """A power cut: the server comes back without what it has acknowledged in the last second."""
    stage.forgets = True
    log, copy = stage.server.directory / "appendonlydir", stage.server.directory / "copy"
    shutil.copytree(log, copy)
    before, since = stage.recorded, time.monotonic()
    eventually(lambda: stage.recorded != before or time.monotonic() - since > _LOST_SECONDS)
    stage.server.kill()
    shutil.rmtree(log)
    copy.rename(log)
    stage.server.restart()


def promote_a_replica(stage: Stage) -> None:
    """The primary goes on alone for a while, then dies: what it acknowledged meanwhile is not on the new one."""
    port = free_port()
    replica = stage.new_server(port, "--replicaof", f"127.0.0.1 {stage.port}")
    client = replica.client()
    eventually(lambda: client.info("replication").get("master_link_status") == "up")
    stage.forgets = True
    before, since = stage.recorded, time.monotonic()
    client.replicaof("NO", "ONE")
    eventually(lambda: stage.recorded != before or time.monotonic() - since > _LOST_SECONDS)
    stage.server.kill()
    stage.move_to(replica, port)


def fill_its_memory(stage: Stage) -> None:
    """`OOM command not allowed` for a while."""
    server = stage.server
    server.client().config_set("maxmemory", 1)
    stage.after(stage.rng.uniform(0.3, 2.0), lambda: server.client().config_set("maxmemory", 0))


def fill_its_disk(stage: Stage) -> None:
    """No byte more fits into its append-only file, for a while; nor into what workers write."""
    pids = [stage.server.pid]
    if stage.rng.random() < 0.5:
        pids += [each.pid for each in stage.crew.running]
    files = sorted((stage.server.directory / "appendonlydir").glob("*.incr.aof"))
    size = files[-1].stat().st_size + stage.rng.randrange(500) if files else 0
    _limit_files(pids, size)
    stage.after(stage.rng.uniform(0.5, 2.5), lambda: _limit_files(pids, resource.RLIM_INFINITY))


def _limit_files(pids: Iterable[int], size: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
