"""`piecework report RUN`: where the time of a run went, as a table and as a page for others."""

import json
from pathlib import Path
from typing import Annotated

import typer

from piecework_producer import quantities as q
from piecework_producer import surroundings
from piecework_producer.cli import options as o
from piecework_producer.cli.errors import reporting, say
from piecework_producer.cli.output import table, write_file
from piecework_producer.cli.targets import session_for
from piecework_producer.run import Run
from piecework_producer.run_profile import RunProfile, profile_of

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Where the page goes. Default: RUN.html.", show_default=False),
]
_HEADER = ("NAME", "STATUS", "ITEMS", "FAILED", "WORKERS", "DURATION", "RATE", "P50", "P99", "TAIL", "QUEUE")


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(epilog="Example: piecework report nightly --out nightly.html")(report)


@reporting
def report(
    run: o.RunArgument,
    out: Out = None,
    output: o.Output = "table",
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
) -> None:
    """Write a page about a run: throughput, timeline of the workers, item times, tail and queue share."""
    from piecework_producer.report_page import at, report_page

    o.checked_output(output)
    with session_for(redis, state_dir) as session:
        profile = profile_of(Run(session, run).ledger)
        facts = {
            "Server": surroundings.server(session),
            "Report made": f"{at(session.client.time()[0])} on {surroundings.host()}",
            "Versions": surroundings.versions(),
        }
    path = out or Path(f"{run}.html")
    write_file("--out", path, report_page(profile, facts))
    if not profile.status.state.over:
        say(f"run {run} is not over ({profile.status.state}): the page shows how far it had got")
    if output == "json":
        print(json.dumps({**profile.to_json(), "page": str(path)}))
    else:
        print(table(_HEADER, [_row(profile)]))
    say(f"written to {path}")


def _row(profile: RunProfile) -> tuple[str, ...]:
    times, status = profile.item_times, profile.status
    return (
        status.run,
        str(status.state),
        f"{profile.items}/{status.total}",
        str(status.failed),
        str(len(profile.workers)),
        q.seconds(profile.span_seconds),
        q.rate(profile.items_per_second, "/s"),
        q.seconds(times.percentile(50)),
        q.seconds(times.percentile(99)),
        q.share(profile.tail_share),
        q.share(profile.queue_share),
    )
