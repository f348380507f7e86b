"""Certificates made for a test: an authority of its own, and what it signs (or does not)."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


class Authority:
    """`ca` is its certificate. Files are in `folder`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.name = name
        self.ca = folder / f"{name}.pem"
        self._openssl("req", "-x509", *_KEY, "-keyout", f"{name}.key", "-out", self.ca.name, "-days", "2",
                      "-subj", f"/CN={name}")  # fmt: skip

    def issue(self, name: str, days: int = 2) -> tuple[Path, Path]:
        """A certificate for this machine's names, and its key. Negative days: it expired so long ago."""
        names = self.folder / "names.ext"
        names.write_text(_NAMES + "\n")
        self._openssl("req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", self.ca.name, "-CAkey", f"{self.name}.key",
                      "-CAcreateserial", "-out", f"{name}.pem", "-days", str(days), "-extfile", names.name)  # fmt: skip
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """A client that trusts this authority, with a certificate to show if asked."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)
