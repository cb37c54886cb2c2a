"""piecework from a program: submit, drain with workers on this machine, read the results.

    python from_python.py

The workers import this file by its name, so what only the program is to do stands under
`if __name__ == "__main__"`.
"""

from pathlib import Path

import piecework_producer


def words(path: str) -> int:
    """The handler: how many words a file has."""
    return len(Path(path).read_text(encoding="utf-8").split())


def main() -> None:
    """Count the words of the Python files beside this one."""
    paths = sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
    with piecework_producer.run(words, paths, parallelism=2, retries=1) as run:
        for outcome in run.results():
            name = Path(outcome.item).name
            print(f"{name}: {outcome.result if outcome.error is None else outcome.error.message}")
        status = run.status()
        print(f"{status.done} of {status.total} done, {status.failed} failed: {status.state}")
        run.delete()


if __name__ == "__main__":
    main()
