"""The verbs that look after a ledger: audit, repair."""

import json
from typing import Annotated

import typer

from piecework.audit import audit as audited
from piecework.findings import Audit, Finding
from piecework.ledger import Ledger
from piecework.repair import Repaired
from piecework.repair import repair as repaired
from piecework_producer.cli import options as o
from piecework_producer.cli.errors import reporting, say
from piecework_producer.cli.output import table
from piecework_producer.cli.targets import session_for
from piecework_producer.pile import rq_job_template

DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would be done.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(epilog="Example: piecework audit nightly --output json")(audit)
    app.command(epilog="Example: piecework repair nightly --dry-run")(repair)


@reporting
def audit(run: o.RunArgument, output: o.Output = "table", redis: o.Redis = None, state_dir: o.StateDir = None) -> None:
    """Recompute a run from its results, and say whether its ledger is sound; exit code 1 if not."""
    o.checked_output(output)
    with session_for(redis, state_dir) as session:
        found = session.lasting(lambda: audited(Ledger(session.client, run)))
    if output == "json":
        print(json.dumps(_record(found)))
    else:
        print(table(("CHECK", "VERDICT", "DETAIL"), list(_rows(found))))
    _say_verdict(found)
    raise typer.Exit(0 if found.sound else 1)


@reporting
def repair(
    run: o.RunArgument,
    dry_run: DryRun = False,
    output: o.Output = "table",
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
) -> None:
    """Put back what an audit finds wrong with a run, at work or over; exit code 1 if something is left."""
    o.checked_output(output)
    with session_for(redis, state_dir) as session:
        ledger = Ledger(session.client, run)
        if dry_run:
            found = session.lasting(lambda: audited(ledger))
            done = Repaired(tuple(finding for finding in found.findings if finding.steps), found)
        else:
            template = rq_job_template(session.client, run)
            done = session.lasting(lambda: repaired(ledger, template))
    left = tuple(finding for finding in done.left.findings if finding.error and not finding.steps)
    if output == "json":
        parts = {"repaired": _findings(done.mended), "left": _findings(left)}
        print(json.dumps({"run": run, "dry_run": dry_run, **parts}))
    elif done.mended:
        rows = [(str(each.check), each.text, each.remedy) for each in done.mended]
        more = [("…", f"{len(rows) - _MOST_ROWS} more: see --output json", "")] if len(rows) > _MOST_ROWS else []
        print(table(("CHECK", "FOUND", "REPAIR"), rows[:_MOST_ROWS] + more))
    if dry_run:
        say(f"{_number(done.mended)} would be repaired; nothing was changed")
    else:
        say(f"{_number(done.mended)} repaired" if done.mended else "there is nothing to repair")
    for each in left:
        say(f"left: {each.text}: {each.remedy}")
    if not dry_run:
        _say_verdict(done.left)
    raise typer.Exit(1 if left or not (dry_run or done.left.sound) else 0)


def _say_verdict(found: Audit) -> None:
    errors = tuple(finding for finding in found.findings if finding.error)
    if not errors:
        say(f"run {found.run} is sound")
        return
    mends = any(finding.steps for finding in errors)
    remedy = f"piecework repair {found.run}" if mends else errors[0].remedy
    say(f"run {found.run} is not sound, {_number(errors)}: {remedy}")


def _number(findings: tuple[Finding, ...]) -> str:
    return "1 finding" if len(findings) == 1 else f"{len(findings)} findings"


def _rows(found: Audit) -> list[tuple[str, str, str]]:
    """A row for each finding, and one for each check that has none."""
    rows: list[tuple[str, str, str]] = []
    for check, fine in _FINE.items():
        mine = [finding for finding in found.findings if finding.check == check]
        rows += [(check, "FAIL" if each.error else "warn", each.text) for each in mine[:_MOST_ROWS]]
        if len(mine) > _MOST_ROWS:
            rows.append((check, "…", f"{len(mine) - _MOST_ROWS} more: see --output json"))
        if not mine and found.readable:
            rows.append((check, "ok", fine.format(found=found)))
    return rows


_MOST_ROWS = 50
"""For each check."""
_FINE = {
    "run": "{found.state}",
    "total": "{found.total} items = {found.done} done + {found.failed} failed + {found.open} open",
    "entries": "{found.entries} entries of results and failures can be read",
    "indices": "none is missing, none is doubled",
    "chunks": "{found.chunks} are open, and hold what is not recorded",
    "payload": "every item can be read",
    "keys": "all are there, with the lifetimes that they should have",
    "queue": "every chunk that waits is delivered",
    "leases": "none is stale",
}


def _record(found: Audit) -> dict[str, object]:
    return {
        "run": found.run,
        "sound": found.sound,
        "state": found.state,
        "total": found.total,
        "done": found.done,
        "failed": found.failed,
        "open": found.open,
        "entries": found.entries,
        "findings": _findings(found.findings),
    }


def _findings(findings: tuple[Finding, ...]) -> list[dict[str, object]]:
    return [
        {"check": each.check, "error": each.error, "text": each.text, "repair": bool(each.steps), "remedy": each.remedy}
        for each in findings
    ]
