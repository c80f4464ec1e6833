"""The certificate with which the service speaks TLS."""

from __future__ import annotations

import logging
import ssl

log = logging.getLogger(__name__)


class CertificateUnusable(ValueError):
    """The files cannot be used; the text names the key and says why."""


class Certificate:
    """A certificate chain and its key, read again when they were renewed."""

    def __init__(self, cert: str, key: str) -> None:
        """Read the files. Raises `CertificateUnusable`."""
        self._cert = cert
        self._key = key
        self.context = self._read()

    def renew(self) -> None:
        """New connections get what the files hold now; what cannot be used changes nothing."""
        try:
            self._read()
        except CertificateUnusable as error:
            log.error("the certificate stays as it was: %s", error)  # noqa: TRY400 - says it all
            return
        self.context.load_cert_chain(self._cert, self._key)
        log.info("the certificate was read again")

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # A key with a passphrase would ask the terminal for it.
            context.load_cert_chain(self._cert, self._key, password=_no_passphrase)
        except ssl.SSLError as error:
            raise CertificateUnusable(
                f"tls_cert, tls_key: {self._cert} and {self._key} are no certificate with its "
                f"key: {error.reason or error}"
            ) from error
        except OSError as error:
            name = self._cert if _is_unreadable(self._cert) else self._key
            raise CertificateUnusable(
                f"tls_cert, tls_key: cannot read {name}: {error.strerror}"
            ) from error
        return context


def _no_passphrase() -> str:
    return ""


def _is_unreadable(path: str) -> bool:
    try:
        with open(path, "rb"):  # noqa: PTH123 - only whether it opens
            return False
    except OSError:
        return True


def certificate(cert: str, key: str) -> Certificate | None:
    """The configured certificate; none without. Raises `CertificateUnusable`."""
    if not cert and not key:
        return None
    if not cert or not key:
        missing = "tls_key" if cert else "tls_cert"
        raise CertificateUnusable(f"{missing}: a certificate and its key belong together")
    return Certificate(cert, key)
