"""TLS to the server: where certificates come from, and what an error of the handshake means.

The server's certificate and its name are verified unless the URL says otherwise (redis-py's default). Files are read
anew for each connection, so that a certificate that is renewed in place is taken up without a restart.
"""

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from piecework.errors import UsageError

FILES: Final = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "tls.crt", "ssl_keyfile": "tls.key"}
"""Options of a rediss:// URL, and the files of a directory that stand for them: the keys of a Kubernetes TLS Secret."""
_UNTRUSTED: Final = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|_ALERT_|WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|\[X509|\\x15\\x03"
)


CLIENT_CERTIFICATE: Final = (
    "If it wants a client certificate, give one of an authority that it knows: ?ssl_certfile=/PATH/OF/tls.crt&"
    "ssl_keyfile=/PATH/OF/tls.key in the rediss:// URL, or tls.crt and tls.key in PIECEWORK_REDIS_TLS_DIR."
)


def with_directory(url: str, directory: Path | None) -> str:
    """The URL with the certificates that are in `directory`; what the URL itself names counts more.

    Raises `UsageError` if there is none, or if the URL is without TLS: to use no certificate where some are given would
    be to send the password in clear.
    """
    if directory is None:
        return url
    found = {option: str(directory / name) for option, name in FILES.items() if (directory / name).is_file()}
    if not found:
        raise UsageError(
            f"PIECEWORK_REDIS_TLS_DIR {directory} has none of {', '.join(FILES.values())}: name the directory with the "
            "authority's certificate (ca.crt), and for a client certificate with tls.crt and tls.key"
        )
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        raise UsageError(
            f"PIECEWORK_REDIS_TLS_DIR is set, and the server's URL begins with {parts.scheme}://, without TLS: use "
            "rediss://, or unset it"
        )
    return urlunsplit(parts._replace(query=urlencode(found | dict(parse_qsl(parts.query)), safe="/")))


def refuse_unusable_files(options: Mapping[str, Any], here: str) -> None:
    """Raise `UsageError` for files that redis-py could not use: they would look like a server that is away."""
    authority, certificate, key = (options.get(name) for name in FILES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if authority:
            context.load_verify_locations(authority)
        if certificate or key:
            # Without a password, OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(certificate or key or "", key, password=options.get("ssl_password") or "")
    except OSError as error:
        names = ", ".join(f"{name}={options[name]}" for name in FILES if options.get(name))
        raise UsageError(
            f"The certificates for {here} cannot be used ({names}): {error.strerror or error}. They have to be PEM "
            "files that can be read here, and the key has to be that of the certificate and not encrypted."
        ) from None


def is_untrusted(said: str) -> bool:
    """Whether an error says that one side does not take the other's certificate, or that only one speaks TLS."""
    return _UNTRUSTED.search(said) is not None


def remedy(said: str) -> str:
    """What to do about an error of TLS."""
    if re.search(r"not valid for|hostname", said, re.I):
        return "Name the host as its certificate does."
    if re.search(r"has expired|not yet valid", said):
        return "Renew the server's certificate, or set this machine's clock."
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            "Give the certificate of the authority that signed the server's: ?ssl_ca_certs=/PATH/OF/ca.crt in the "
            "rediss:// URL, or ca.crt in the directory PIECEWORK_REDIS_TLS_DIR."
        )
    if "_ALERT_" in said:  # the server's words about this side
        return CLIENT_CERTIFICATE
    if "x15" in said:
        return "It speaks TLS: use rediss://."
    return "If it is without TLS, use redis://."
