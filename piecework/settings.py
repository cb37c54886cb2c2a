"""What the settings of both sides have in common."""

from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from piecework import tls


def with_password(url: str, password: str | None) -> str:
    """A Redis URL with a password that was given apart from it (a Kubernetes Secret, say). Never show the
    result.
    """
    if password is None:
        return url
    parts = urlsplit(url)
    user = parts.username or ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))


def server_url(url: str, password: str | None, tls_dir: Path | None) -> str:
    """A Redis URL with the password and the certificates that were given apart from it. Never show the result.

    Raises `UsageError`.
    """
    return with_password(tls.with_directory(url, tls_dir), password)
