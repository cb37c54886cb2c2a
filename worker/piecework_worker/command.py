"""`--exec 'CMD {}'`: a command as a handler. Standard output is the result, a non-zero exit the failure.

The command runs in the horse's process group, so that whatever ends the horse ends it too.
"""

import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from piecework.context import current
from piecework.errors import HandlerUnusable
from piecework_worker.item_memory import hint

_STDERR_END = 2000
_OF_MEMORY = re.compile(r"memory|bad_alloc|allocat", re.I)
"""What programs write when they get none."""


class CommandFailed(Exception):
    """The command exited with a code other than 0, or was killed."""


def item_text(item: object) -> str:
    """An item as an argument: a string as it is, anything else as JSON."""
    return item if isinstance(item, str) else msgspec.json.encode(item).decode()


def command(
    template: str, *, shell: bool, stdin: bool, environ: Mapping[str, str], item_memory: str | None = None
) -> Callable[[Any], object]:
    """A handler that runs `template` once for each item, with the item for each `{}` in it.

    Without `{}` the item is the last argument, but with `stdin` it is only on standard input, as JSON. Without
    `shell` the template is split as a shell would and no shell runs. The environment is `environ` without
    piecework's settings (a password may be among them) and with PIECEWORK_RUN, PIECEWORK_INDEX,
    PIECEWORK_ATTEMPT, PIECEWORK_IDEMPOTENCY_KEY and, in a scheduled run, PIECEWORK_SCHEDULED_TIME. The result is
    standard output without its trailing newlines: str, or bytes if it is not UTF-8. `item_memory` is the limit that the
    command inherits, for the message of its failure.
    """
    kept = ("PIECEWORK_SCHEDULED_TIME",)
    inherited = {name: value for name, value in environ.items() if not name.startswith("PIECEWORK_") or name in kept}
    try:
        words = ["/bin/sh", "-c", in_shell(template), "sh", "{}"] if shell else shlex.split(template)
    except ValueError as error:
        raise HandlerUnusable(f"--exec {template!r} cannot be split into words: {error}") from None
    if not template.strip():
        raise HandlerUnusable("--exec is empty; give a command, for example --exec 'gzip -k {}'")
    if "{}" not in template and not stdin:
        if shell:
            words[2] += ' "${1}"'
        else:
            words.append("{}")

    def run(item: Any) -> object:
        text, context = item_text(item), current()
        done = subprocess.run(
            [text if word == "{}" else word.replace("{}", text) for word in words],
            input=msgspec.json.encode(item) if stdin else b"",
            capture_output=True,
            check=False,
            env=inherited
            | {
                "PIECEWORK_RUN": context.run,
                "PIECEWORK_INDEX": str(context.index),
                "PIECEWORK_ATTEMPT": str(context.attempt),
                "PIECEWORK_IDEMPOTENCY_KEY": context.idempotency_key,
            },
        )
        if done.returncode != 0:
            raise CommandFailed(_why(done.returncode, done.stderr, hint(item_memory)))
        try:
            return done.stdout.decode().rstrip("\n")
        except UnicodeDecodeError:
            return done.stdout

    return run


def in_shell(template: str) -> str:
    """The template with `"${1}"` for each `{}`: the shell gets the item as an argument, never as code.

    In quotes, the quotes are closed and opened again around it, so that it is one word, or a part of one,
    wherever it stands.
    """
    done, quote, at = "", "", 0
    while at < len(template):
        char = template[at]
        if template.startswith("{}", at):
            done += {"": '"${1}"', '"': "${1}", "'": "'\"${1}\"'"}[quote]
            at += 2
            continue
        if char == "\\" and quote != "'":
            escaped = "" if template.startswith("{}", at + 1) else template[at : at + 2]
            done, at = done + escaped, at + max(1, len(escaped))
            continue
        if char in "\"'" and quote in ("", char):
            quote = "" if quote else char
        done += char
        at += 1
    return done


def _why(code: int, stderr: bytes, memory_hint: str) -> str:
    ending = stderr[-_STDERR_END:].decode(errors="replace").strip()
    if code < 0:
        try:
            cause = f"killed by {signal.Signals(-code).name}"
        except ValueError:
            cause = f"killed by signal {-code}"
    else:
        cause = f"exit code {code}"
    if code < 0 or _OF_MEMORY.search(ending):
        cause += memory_hint
    return f"{cause}: {ending}" if ending else cause
