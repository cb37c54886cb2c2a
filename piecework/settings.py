"""What the settings of both sides have in common."""

from urllib.parse import quote, urlsplit, urlunsplit


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
