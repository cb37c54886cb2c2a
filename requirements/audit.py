"""`make lint`: whether a known vulnerability is in what `make lock` has pinned; see pip-audit.

Exits 1 for a vulnerability. Where the advisories cannot be had (no network, a mirror of the index without them, too
slow an answer) it says in one line that it has skipped them, and that is no failure. Options are pip-audit's.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parent / "dev.txt"
"""Constrains the others, so that they hold nothing else."""
SECONDS = 15.0
_NETWORK = re.compile(r"connect|timed out|timeout|resolve|HTTP|SSL|proxy|unreachable|network", re.I)


def main(options: Sequence[str], seconds: float = SECONDS) -> int:
    """Audit the lock and print the verdict; returns the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--disable-pip", "--require-hashes"]
        command += ["--progress-spinner", "off", "--timeout", "5", "--format", "json", "--output", str(report)]
        try:
            done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return _skipped(f"no answer within {seconds:g} s")
        if not report.exists():
            said = done.stderr.strip().splitlines() or ["no report"]
            if any(_NETWORK.search(line) for line in said):
                return _skipped(said[-1])
            print(f"pip-audit: {done.stderr}", file=sys.stderr)
            return 1
        return _verdict(json.loads(report.read_text())["dependencies"])


def _verdict(dependencies: list[dict[str, Any]]) -> int:
    audited = [each for each in dependencies if "vulns" in each]
    found = [(each, vulnerability) for each in audited for vulnerability in each["vulns"]]
    for each, vulnerability in found:
        fixed = ", ".join(vulnerability.get("fix_versions") or ()) or "no version"
        print(f"pip-audit: {each['name']} {each['version']}: {vulnerability['id']}, fixed in {fixed}")
    if found:
        return 1
    if not audited:
        return _skipped(f"the index has advisories for none of {len(dependencies)} packages")
    left_out = len(dependencies) - len(audited)
    print(f"pip-audit: no known vulnerability in {len(audited)} packages" + f"; {left_out} not known" * bool(left_out))
    return 0


def _skipped(why: str) -> int:
    print(f"pip-audit: skipped: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
