"""Whole runs over TLS with a client certificate; and what is said when the certificates are not right."""

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from piecework import tls
from piecework.errors import UsageError
from piecework.server import check, connect, where
from piecework.settings import server_url
from tests.cli_fixture import Ended, Machine
from tests.server_fixture import ServerProcess
from tests.tls_fixture import Certificates, TlsServer
from tests.worker_fixture import WorkerProcess

SECRET = "ses@me"


@dataclass
class Site:
    """A server behind TLS, and the machine that is to use it."""

    server: ServerProcess
    port: int
    certificates: Certificates
    machine: Machine

    def url(self, host: str = "localhost", scheme: str = "rediss") -> str:
        return f"{scheme}://{host}:{self.port}/0"

    def environ(self, directory: Path, url: str = "") -> dict[str, str]:
        return {
            "PIECEWORK_REDIS": url or self.url(),
            "PIECEWORK_REDIS_PASSWORD": SECRET,
            "PIECEWORK_REDIS_TLS_DIR": str(directory),
        }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    certificates = Certificates(tmp_path)
    with (
        ServerProcess("--requirepass", SECRET) as server,
        TlsServer(server.socket, certificates) as proxy,
        Machine(tmp_path) as machine,
    ):
        yield Site(server, proxy.port, certificates, machine)


def test_a_run_over_tls(site: Site) -> None:
    """Producer, workers and their horses; the certificates from the directory, then from the URL."""
    site.machine.environ |= site.environ(site.certificates.ours)
    ended = site.machine.run("run", "tasks:square", "--range", "0:20", "--run", "safe")
    assert ended.code == 0, ended.err
    assert [line["result"] for line in ended.lines] == [n * n for n in range(20)]

    ours = site.certificates.ours
    query = f"ssl_ca_certs={ours}/ca.crt&ssl_certfile={ours}/tls.crt&ssl_keyfile={ours}/tls.key"
    told = site.machine.ask("doctor", PIECEWORK_REDIS=f"{site.url()}?{query}", PIECEWORK_REDIS_PASSWORD=SECRET)
    assert told.code == 0, told.out
    assert f"at rediss://localhost:{site.port}/0" in told.out


def wrong(site: Site) -> Iterator[tuple[str, dict[str, str], str]]:
    """What is wrong, the settings, and what is said to do."""
    certificates = site.certificates
    yield "authority", site.environ(certificates.of_another), "certificate of the authority that signed the server's"
    yield "host name", site.environ(certificates.ours, site.url("127.0.0.1")), "Name the host as its certificate does"
    yield "client certificate", site.environ(certificates.unknown_client), "If it wants a client certificate"
    yield "no client certificate", site.environ(certificates.without_client), "If it wants a client certificate"
    yield "no TLS", {"PIECEWORK_REDIS": site.url(scheme="redis")}, "rediss://"
    unused = site.environ(certificates.ours, site.url(scheme="redis"))
    yield "TLS is not used", unused, "PIECEWORK_REDIS_TLS_DIR is set"
    yield "no files", site.environ(site.machine.home), "has none of ca.crt, tls.crt, tls.key"
    junk = site.machine.home / "junk"
    junk.mkdir()
    (junk / "ca.crt").write_text("junk")
    yield "no certificate in a file", site.environ(junk), "cannot be used (ssl_ca_certs="
    query = f"ssl_ca_certs={certificates.ours}/ca.crt&ssl_certfile={certificates.ours}/tls.crt&ssl_keyfile=/no/file"
    yield "no such file", {"PIECEWORK_REDIS": f"{site.url()}?{query}"}, "No such file"
    of_others = site.environ(certificates.ours, f"{site.url()}?ssl_keyfile={certificates.of_another}/tls.key")
    yield "another's key", of_others, "KEY_VALUES_MISMATCH"


def test_wrong_certificates_are_one_line_with_the_remedy(site: Site) -> None:
    for what, environ, remedy in wrong(site):
        ended = site.machine.ask("status", stdin=b"", **environ)
        assert ended.code == 2, what
        assert remedy in ended.err, (what, ended.err)
        assert_plain(ended, what)


def assert_plain(ended: Ended, what: str) -> None:
    said = ended.out + ended.err
    assert len(said.splitlines()) == 1, (what, said)
    assert not re.search("ses@me|ses%40me", said)


def test_a_worker_leaves_at_once_for_a_certificate_that_is_not_right(site: Site, tmp_path: Path) -> None:
    """And does not wait for its patience: nobody but a person can mend that."""
    cases = {what: (environ, remedy) for what, environ, remedy in wrong(site)}
    started = {}
    for number, what in enumerate(("authority", "no client certificate", "TLS is not used", "no such file")):
        (directory := tmp_path / f"worker-{number}").mkdir()
        arguments = ["refused", "--handler", "os:getpid", "--patience", "600"]
        started[what] = WorkerProcess(arguments, directory, cases[what][0], site.machine.home)
    try:
        for what, worker in started.items():
            assert worker.exit_code() == 78, what
            assert cases[what][1] in worker.last_line
            assert "Traceback" not in worker.log
            assert not re.search("ses@me|ses%40me", worker.log)
    finally:
        for worker in started.values():
            worker.destroy()


def test_what_the_url_names_counts_more(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    url = server_url("rediss://me@h:1/2?ssl_ca_certs=/mine&db=3", "p/w", certificates.ours)
    assert url == (
        f"rediss://me:p%2Fw@h:1/2?ssl_ca_certs=/mine&ssl_certfile={certificates.ours}/tls.crt"
        f"&ssl_keyfile={certificates.ours}/tls.key&db=3"
    )
    assert where(connect(f"rediss://h/2?ssl_ca_certs={certificates.ours}/ca.crt")) == "rediss://h:6379/2"
    with pytest.raises(UsageError, match="none of ca"):
        tls.with_directory("rediss://h", tmp_path)


def test_verification_is_what_happens_if_nothing_is_said(site: Site) -> None:
    pool = connect(site.url()).connection_pool
    options = pool.connection_class(**pool.connection_kwargs)
    assert isinstance(options, redis.SSLConnection)
    assert (options.check_hostname, options.cert_reqs) == (True, ssl.CERT_REQUIRED)
    assert check(connect(server_url(site.url(), SECRET, site.certificates.ours))).version
