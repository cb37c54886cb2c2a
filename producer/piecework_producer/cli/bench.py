"""`piecework bench`: throughput at several degrees of parallelism, and what it says about scaling."""

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from piecework.errors import UsageError
from piecework.states import ProducerExit
from piecework_producer import quantities as q
from piecework_producer import surroundings
from piecework_producer.benchmark import Benchmark, Degree, Repetition
from piecework_producer.cli import bench_options as b
from piecework_producer.cli import cluster_options as c
from piecework_producer.cli import options as o
from piecework_producer.cli.bench_output import tell
from piecework_producer.cli.bench_places import OnKubernetes, OnThisMachine
from piecework_producer.cli.errors import reporting, say
from piecework_producer.cli.output import check_writable
from piecework_producer.cli.targets import open_session, refuse_embedded
from piecework_producer.measurement import MeasurementFailed, Measurer, Place
from piecework_producer.session import Session
from piecework_producer.settings import ClusterSettings, CommandSettings, RunSettings, read
from piecework_producer.workload import BUILT_IN, Sizes, Workload, built_in, handler_of, refuse_misfits

_PILOT_ITEMS = 1_000_000
_KEEP_SECONDS = 3600
"""Of a run that a killed bench leaves unsealed."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(
        epilog="Examples: piecework bench spin --parallelism 1,2,4,8 --item-seconds 0.05  ·  "
        "piecework bench mypkg.tasks:convert --lines files.txt -p 1,2,4 --json bench.json"
    )(bench)


@reporting
def bench(
    handler: b.HandlerOrName = None,
    range_: o.Range = None,
    lines: o.Lines = None,
    jsonl: o.Jsonl = None,
    exec_: o.Exec = None,
    shell: o.Shell = None,
    stdin: o.Stdin = None,
    batch: o.Batch = None,
    batch_size: o.BatchSize = None,
    concurrency: o.Concurrency = None,
    degrees: b.Degrees = None,
    repetitions: b.Repetitions = 3,
    items: b.Items = None,
    seconds: b.Seconds = None,
    item_seconds: b.ItemSeconds = None,
    digits: b.Digits = None,
    chunk_size: o.ChunkSize = None,
    isolation: o.Isolation = None,
    retries: o.Retries = None,
    item_timeout: o.ItemTimeout = None,
    max_failures: o.MaxFailures = None,
    crash_limit: o.CrashLimit = None,
    lease: o.Lease = None,
    patience: o.Patience = None,
    grace: o.Grace = None,
    keep: b.Keep = None,
    out: b.Out = "bench.html",
    json_: b.Json = None,
    output: o.Output = "table",
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    on: c.On = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
    start_timeout: c.StartTimeout = None,
    image: c.Image = None,
    image_pull_policy: c.ImagePullPolicy = None,
    image_pull_secret: c.ImagePullSecret = None,
    code: c.Code = None,
    env: c.Env = None,
    env_from_secret: c.EnvFromSecret = None,
    request: c.Request = None,
    limit: c.Limit = None,
    node_selector: c.NodeSelector = None,
    toleration: c.Tolerate = None,
    spread: c.Spread = None,
    priority_class: c.PriorityClass = None,
    service_account: c.ServiceAccount = None,
    run_as_user: c.RunAsUser = None,
    redis_secret: c.RedisSecret = None,
    label: c.Label = None,
    annotation: c.Annotate = None,
    backoff_limit: c.BackoffLimit = None,
    active_deadline: c.ActiveDeadline = None,
    ttl: c.Ttl = None,
    queue: c.Queue = None,
    patch: c.Patch = None,
) -> None:
    """Measure throughput at several degrees of parallelism: speed-up, efficiency, and the law that fits them."""
    given = {name.removesuffix("_"): value for name, value in locals().items()}
    o.checked_output(output)
    numbers = parse_degrees(degrees)
    sizes = Sizes(items, seconds, item_seconds, digits)
    given = {**given, "parallelism": numbers[-1], "keep": keep or _KEEP_SECONDS}
    settings = _settings(given, sizes)
    for option, path in (("--out", out), ("--json", json_)):
        if path not in (None, "none"):
            check_writable(option, Path(str(path)))
    try:
        with _place(settings, given, keep is not None) as (session, place):
            measurer = Measurer(session, place, keep is not None, read(ClusterSettings, given).start_timeout, say)
            found = _measured(measurer, settings, sizes, numbers, repetitions)
            facts = _facts(session, place, repetitions)
    except MeasurementFailed as error:
        say(f"error: {error}")
        raise typer.Exit(ProducerExit.RUN_FAILED) from None
    tell(Benchmark(found[0].name, found[0].words, found[1], facts), out, json_, output)


def parse_degrees(text: str | None) -> list[int]:
    """`1,2,4`, ascending and each once; by default the powers of two below the number of cores, and that number."""
    if text is None:
        cores = os.cpu_count() or 1
        return sorted({*(1 << power for power in range(cores.bit_length())), cores})
    try:
        numbers = sorted({int(number) for number in text.split(",")})
    except ValueError:
        numbers = [0]
    if not 1 <= numbers[0] <= numbers[-1] <= 100_000:
        raise UsageError(f"--parallelism {text!r} is not a list of numbers of workers (1 to 100,000), such as 1,2,4")
    return numbers


def _settings(given: Mapping[str, Any], sizes: Sizes) -> RunSettings:
    """Of a run; a user's handler brings its items, a built-in workload makes them."""
    name = given["handler"] or ("noop" if given["exec"] is None else None)
    if name in BUILT_IN:
        refuse_misfits(name, sizes)
        if misfit := next((item for item in ("exec", "range", "lines", "jsonl") if given[item] is not None), None):
            raise UsageError(f"--{misfit} goes with a handler of yours; {name} makes its items itself")
        return read(RunSettings, {**given, "handler": handler_of(name)})
    if name is not None and ":" not in name:
        raise UsageError(f"{name!r} is neither package.module:function nor one of {', '.join(BUILT_IN)}")
    for option in ("items", "seconds", "item_seconds", "digits"):
        if getattr(sizes, option) is not None:
            raise UsageError(f"--{option.replace('_', '-')} goes with {', '.join(BUILT_IN)}")
    settings = read(CommandSettings, given)
    if "-" in (settings.lines, settings.jsonl):
        raise UsageError("a benchmark reads its items once for each run: give a FILE, not standard input")
    return settings


@contextmanager
def _place(settings: RunSettings, given: Mapping[str, Any], keep: bool) -> Iterator[tuple[Session, Place]]:
    where = read(ClusterSettings, given)
    if where.on != "kubernetes" and (where.on == "local" or given["image"] is None):
        with open_session(settings, settings.patience) as session:
            yield session, OnThisMachine(keep)
        return
    from piecework_producer.kubernetes_cluster import connect
    from piecework_producer.kubernetes_settings import JobSettings, cluster_options

    job = read(JobSettings, given)
    refuse_embedded(job)
    job.job_options()  # its errors, before anything is made
    with connect(cluster_options(job), say) as cluster, open_session(job, settings.patience) as session:
        yield session, OnKubernetes(cluster, job, keep)


def _measured(
    measurer: Measurer, settings: RunSettings, sizes: Sizes, numbers: list[int], repetitions: int
) -> tuple[Workload, list[Degree]]:
    """All repetitions, the degrees in turn: a machine that drifts drifts for all of them."""
    word = f"bench-{secrets.token_hex(4)}"

    def measure(workload: Workload, workers: int, number: int) -> Repetition:
        named = {"run": f"{word}-n{workers}-r{number}", "parallelism": workers}
        with workload.pile(workers) as pile:
            return measurer.measure(settings.model_copy(update=named), pile, number)

    workload = _workload(settings, sizes, numbers, lambda pilot: measure(pilot, numbers[0], 0))
    say(f"{workload.name} on {measurer.place.words}. {workload.words}")
    found: dict[int, list[Repetition]] = {workers: [] for workers in numbers}
    total = repetitions * len(numbers)
    for number in range(1, repetitions + 1):
        for workers in numbers:
            found[workers].append(repetition := measure(workload, workers, number))
            count = sum(map(len, found.values()))
            took = q.seconds(repetition.profile.span_seconds)
            say(f"{count}/{total} N = {workers}: {q.rate(repetition.rate)} items/s, {took}")
    return workload, [Degree(workers, tuple(found[workers])) for workers in numbers]


def _workload(
    settings: RunSettings, sizes: Sizes, numbers: list[int], measure: Callable[[Workload], Repetition]
) -> Workload:
    names = {handler_of(name): name for name in BUILT_IN}
    if isinstance(settings, CommandSettings):
        what = next(f"--{name} {getattr(settings, name)}" for name in ("range", "lines", "jsonl")
                    if getattr(settings, name) is not None)  # fmt: skip
        return Workload(
            settings.handler_text,
            lambda workers: o.open_pile(settings.range, settings.lines, settings.jsonl),
            f"The items of {what}, the same at each degree.",
        )
    name, rate = names[settings.handler_text], None
    if name == "noop" and sizes.items is None:
        profile = measure(built_in(name, Sizes(items=_PILOT_ITEMS), numbers[-1])).profile
        rate = profile.items / profile.busy_seconds if profile.busy_seconds else float(_PILOT_ITEMS)
    return built_in(name, sizes, numbers[-1], rate)


def _facts(session: Session, place: Place, repetitions: int) -> dict[str, str]:
    from piecework_producer.report_page import at

    return {
        "Command": surroundings.command(sys.argv[1:]),
        "Date": at(time.time()),
        "Workers": place.words,
        "Repetitions": f"{repetitions} of each degree, the degrees in turn",
        "Server": surroundings.server(session),
        "Host of the command": surroundings.host(),
        "Versions": surroundings.versions(),
    }
