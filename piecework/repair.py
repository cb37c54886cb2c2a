"""Puts back what an audit has found wrong with a run, as far as the ledger itself can tell; also while it is at work.

Audit, then do all steps in one script, if the run has not changed since; else audit again, which reads only what is
new. Very many steps are done in several scripts, so that none keeps the server busy for long. A repair that dies at
any line leaves a run that is nearer to a sound one, and may be repeated.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from piecework import codec
from piecework.audit import Auditor
from piecework.errors import RunIsOver
from piecework.findings import Audit, Finding, Step
from piecework.ledger import Ledger
from piecework.recorded import read_entry
from piecework.records import pack_failures, to_failure
from piecework.spans import Span, format_spans

_ROUNDS = 100
_MOST_STEPS = 5000
"""Of one script: some 50 ms."""
_MOST_BYTES = 32 << 20


@dataclass(frozen=True)
class Repaired:
    """What was repaired, and what was found afterwards."""

    mended: tuple[Finding, ...]
    left: Audit


def repair(ledger: Ledger, template: Mapping[str, str | bytes | int | float]) -> Repaired:
    """Repair a run; `template` is the RQ job that delivers its chunks. Safe to repeat.

    Raises `UnknownRun` if nothing of the run is there, `RunIsOver` if it changes faster than it can be repaired.
    """
    auditor = Auditor(ledger)
    mended: dict[str, Finding] = {}
    for _ in range(_ROUNDS):
        found = auditor.audit()
        if not any(finding.steps for finding in found.findings):
            return Repaired(tuple(mended.values()), found)
        version = auditor.version
        for steps, findings in _parts(ledger, found, template):
            if not (version := ledger.repair(version, steps)):
                break
            mended |= {finding.text: finding for finding in findings}
    raise RunIsOver(
        f"run {ledger.run} changes faster than it can be repaired: first pause it (piecework pause {ledger.run})"
    )


def _parts(
    ledger: Ledger, found: Audit, template: Mapping[str, str | bytes | int | float]
) -> Iterator[tuple[list[Step], list[Finding]]]:
    """The steps, as many at once as one script may do, with the findings that are mended then."""
    steps: list[Step] = []
    findings: list[Finding] = []
    size = 0
    for finding in found.findings:
        for step in finding.steps:
            if len(steps) >= _MOST_STEPS or size >= _MOST_BYTES:
                yield steps, findings
                steps, findings, size = [], [], 0
            steps.append(_filled_in(ledger, step, template))
            size += sum(len(part) for part in steps[-1] if isinstance(part, bytes))
        if finding.steps:
            findings.append(finding)
    if steps:
        yield steps, findings


def _filled_in(ledger: Ledger, step: Step, template: Mapping[str, str | bytes | int | float]) -> Step:
    """The step with the bytes that it needs and an audit does not keep."""
    if step[0] == "template":
        return (
            "template",
            *(str(part) if isinstance(part, float) else part for pair in template.items() for part in pair),
        )
    if step[0] != "replace":
        return step
    stream, entry, *numbers = cast(tuple[Any, ...], step[1:])
    client: Any = ledger.client
    found = client.xrange(getattr(ledger.keys, stream), entry, entry)
    if not found:  # removed since; the script will find that the run has changed
        return ("remove", stream, entry)
    fields = found[0][1]
    _, outcomes = read_entry(stream, fields)
    kept: list[Any] = []
    spans: list[Span] = []
    for place, first, count in zip(*[iter(numbers)] * 3, strict=True):
        kept += outcomes[place : place + count]
        spans.append((first, count))
    packed = pack_failures([to_failure(each, entry) for each in kept]) if stream == "failures" else codec.pack(kept)
    return ("replace", stream, entry, format_spans(spans), packed, fields.get(b"m", b""))
