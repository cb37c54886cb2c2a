"""Connecting to a Redis or Valkey server, and finding out whether piecework can keep a ledger on it.

Guarantees: no message and no log line made here holds a password; `check` asks with one INFO command (managed
services forbid CONFIG) and changes nothing, so that it may be repeated at will and a crash leaves nothing
behind.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from piecework import tls
from piecework.errors import ServerUnusable, UsageError

OLDEST_REDIS: Final = (6, 2)
# A blackholed server costs (retries + 1) × socket_timeout before anybody is told.
_RETRY: Final = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=2)
_ALLOWED: Final = (
    "allowed are redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://… for TLS, and "
    "unix:///PATH/OF/SOCKET[?db=DB]; a user or password with one of / ? # @ : in it must be percent-encoded"
)
_REACH: Final = "See that it runs, and that host, port and network policy are right (`redis-cli -u URL ping`)."


@dataclass(frozen=True)
class ServerFacts:
    """What INFO tells of a usable server. Memory is in bytes; a `maxmemory` of 0 is no limit."""

    product: Literal["redis", "valkey"]
    version: tuple[int, ...]
    """The product's own: a Valkey 8.1 says that it is compatible with Redis 7.2.4, and this is (8, 1, …)."""
    maxmemory: int
    used_memory: int
    appendonly: bool | None
    """False: a restart of the server may lose what was recorded. None: the server does not tell."""


def masked(url: str) -> str:
    """The URL with its password as `***`; takes malformed URLs too, and then rather hides too much."""
    url = re.sub(r"(?i)([?&][^=&]*pass[^=&]*=)[^&]*", r"\1***", url)
    scheme, separator, rest = url.rpartition("://") if url.count("://") == 1 else ("", "", url)
    if scheme == "unix" and rest.startswith("/"):
        return url
    userinfo, at, host = rest.rpartition("@")
    if at:
        user = userinfo.split(":", 1)[0] if ":" in userinfo else ""
        return f"{scheme}{separator}{user}{':' if ':' in userinfo else ''}***@{host}"
    # No @: `redis://:secret` and `redis://user:secret/0` are a forgotten host, not a port.
    name, colon, port = rest.partition(":")
    if colon and not rest.startswith("[") and not re.fullmatch(r"\d*([/?].*)?", port):
        return f"{scheme}{separator}{name}:***"
    return url


def connect(url: str, *, socket_timeout: float = 5.0) -> redis.Redis:
    """A client for the server at `url`; opens no connection yet, answers are bytes.

    `socket_timeout` is in seconds and holds for connecting and for each answer, so a blocking command must
    ask for less; options in the URL's query win. A lost connection is tried again twice, within about a
    second: patience beyond that is the caller's. Raises UsageError if the URL is not one that can be used.
    """
    try:
        _refuse_what_redis_py_would_ignore(url)
        client = redis.Redis.from_url(
            url,
            socket_timeout=socket_timeout,
            socket_connect_timeout=socket_timeout,
            decode_responses=False,
            retry=_RETRY,
            driver_info=None,  # its version is looked up anew for each client, in 1 ms
        )
        # Unknown options in the query only show when a connection is made; making one does not connect it.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except _BadUrl as reason:
        raise UsageError(f"The Redis URL {masked(url)!r} {reason}: {_ALLOWED}.") from None
    except (ValueError, TypeError, redis.RedisError):
        # The causes quote parts of the URL, and a part may be the password.
        raise UsageError(f"The Redis URL {masked(url)!r} cannot be used: {_ALLOWED}.") from None
    tls.refuse_unusable_files(client.connection_pool.connection_kwargs, where(client))
    return client


class _BadUrl(Exception):
    """What is wrong with the URL, in words that quote nothing of it."""


def _refuse_what_redis_py_would_ignore(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix") or "://" not in url:
        raise _BadUrl("has no scheme that is known")
    if "decode_responses" in parts.query:
        raise _BadUrl("has decode_responses, which piecework sets itself")
    if parts.scheme == "unix":
        if parts.hostname or len(parts.path) < 2:
            raise _BadUrl("has no absolute path of a socket (three slashes)")
    elif not re.fullmatch(r"(/\d*)?", parts.path):
        raise _BadUrl("has a database that is not a number")
    elif parts.port == 0:
        raise _BadUrl("has port 0")


def where(client: redis.Redis) -> str:
    """The server that this client talks to, as a URL without user and password."""
    options = cast(Mapping[str, object], client.connection_pool.connection_kwargs)
    if "path" in options:
        return f"unix://{options['path']}"
    scheme = "rediss" if issubclass(client.connection_pool.connection_class, redis.SSLConnection) else "redis"
    return f"{scheme}://{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db') or 0}"


def check(client: redis.Redis) -> ServerFacts:
    """Ask the server once whether a ledger can be kept on it.

    Raises ServerUnusable, with what is wrong, where, and what to do, if it cannot be reached or is not fit.
    Safe to repeat; a server that is loading its data is refused too, and is worth asking again.
    """
    here = where(client)
    try:
        info = cast(Mapping[str, object], client.info())
    except redis.RedisError as error:
        raise explained(error, here) from error
    except OSError as error:
        raise ServerUnusable(f"The server at {here} cannot be reached: {error}. {_REACH}") from error

    mode = _text(info, "redis_mode") or _text(info, "server_mode")
    if mode in ("cluster", "sentinel"):
        raise ServerUnusable(
            f"The server at {here} runs in {mode} mode, which piecework cannot use: the keys of a run belong "
            "together on one server. Give the URL of a standalone primary."
        )
    product: Literal["redis", "valkey"] = "redis"
    if _text(info, "server_name") == "valkey" or "valkey_version" in info:
        product = "valkey"
    compatible = _version(_text(info, "redis_version"))
    version = _version(_text(info, "valkey_version")) if product == "valkey" else compatible
    if compatible and compatible < OLDEST_REDIS:
        raise ServerUnusable(
            f"The server at {here} is Redis {_text(info, 'redis_version')}; piecework needs Redis 6.2 or "
            "Valkey 7.2, or newer. Upgrade it, or give the URL of another one."
        )
    if _number(info, "loading"):
        raise ServerUnusable(f"The server at {here} is still loading its data. Try again when it has done so.")
    if _text(info, "role") in ("slave", "replica"):
        raise ServerUnusable(
            f"The server at {here} is a replica of {_text(info, 'master_host')}:{_text(info, 'master_port')} "
            "and takes no writes. Give the URL of its primary."
        )
    policy = _text(info, "maxmemory_policy")
    if policy not in ("", "noeviction"):
        raise ServerUnusable(
            f"The server at {here} has the maxmemory-policy {policy!r}: under pressure it would throw away "
            "records of what is done. Set it to 'noeviction' (`CONFIG SET maxmemory-policy noeviction` and "
            "in its configuration file, or the parameter group of a managed service), or give the URL of "
            "another server."
        )
    facts = ServerFacts(
        product=product,
        version=version,
        maxmemory=_number(info, "maxmemory"),
        used_memory=_number(info, "used_memory"),
        appendonly=bool(_number(info, "aof_enabled")) if "aof_enabled" in info else None,
    )
    if 0 < facts.maxmemory <= facts.used_memory:
        raise ServerUnusable(
            f"The server at {here} is full: it uses {facts.used_memory:,} of {facts.maxmemory:,} bytes "
            "(maxmemory). Raise maxmemory, or delete runs that are no longer needed (`piecework delete RUN`)."
        )
    return facts


def explained(error: redis.RedisError, here: str) -> ServerUnusable:
    """The error of a first call to the server at `here`, as what is wrong and what to do."""
    said = str(error)
    if isinstance(error, redis.BusyLoadingError):
        problem, remedy = "is still loading its data", "Try again when it has done so."
    elif "NOPERM" in said or isinstance(error, redis.exceptions.NoPermissionError):
        problem, remedy = (
            f"does not let this user ask INFO ({said})",
            "Grant it `+info`, and what else a run needs.",
        )
    elif re.search(r"NOAUTH|WRONGPASS|invalid username-password|invalid password|authenticat", said, re.I):
        problem = f"refuses the user or password, or asks for one that was not given ({said})"
        remedy = "Put them into the URL: redis://[USER]:PASSWORD@HOST:PORT."
    elif tls.is_untrusted(said) or re.search(r"\[SSL\b", said):
        problem, remedy = f"cannot be spoken to over TLS ({said})", tls.remedy(said)
    elif re.search(r"unknown command.*HELLO|NOPROTO", said, re.I):
        problem, remedy = (
            f"is too old ({said})",
            "piecework needs Redis 6.2 or Valkey 7.2, or newer.",
        )
    elif re.search(r"closed by server|reset by peer|EOF occurred in violation", said, re.I):
        problem = f"hangs up at once ({said})"
        # Its alert may be lost with the connection.
        secure = tls.CLIENT_CERTIFICATE if here.startswith("rediss:") else "If it wants TLS, use rediss://."
        remedy = f"{secure} Otherwise see its log."
    elif isinstance(error, redis.TimeoutError):
        problem, remedy = f"does not answer in time ({said})", _REACH
        if here.startswith("rediss:"):
            remedy = "If it is without TLS, use redis://. " + _REACH
    elif isinstance(error, redis.ConnectionError):
        problem, remedy = f"cannot be reached ({said})", _REACH
    else:
        problem, remedy = (
            f"does not answer as a Redis server does ({said})",
            "Is it one? See its log.",
        )
    return ServerUnusable(f"The server at {here} {problem.replace(chr(10), ' ')}. {remedy}")


def _text(info: Mapping[str, object], field: str) -> str:
    value = info.get(field, "")
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _number(info: Mapping[str, object], field: str) -> int:
    digits = re.match(r"-?\d+", _text(info, field))
    return int(digits[0]) if digits else 0


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
