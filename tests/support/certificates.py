"""Certificates that sign themselves, made by openssl in milliseconds."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def make_certificate(folder: Path, *, name: str = "localhost") -> tuple[Path, Path]:
    """A certificate for `name` and 127.0.0.1, and its key; earlier ones are replaced."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(cert)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def trusting(cert: Path) -> ssl.SSLContext:
    """A client's trust in just this certificate, for the names that are in it."""
    return ssl.create_default_context(cafile=str(cert))
