"""The certificate and key files of an encrypted server."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from homomorph_client.errors import ServerError


@dataclass(frozen=True)
class ServerTls:
    """PEM files of an encrypted server."""

    certificate: Path
    """The server's certificate."""
    key: Path
    """Its private key."""
    client_ca: Path | None = None
    """Authorities that must have signed a client's certificate (mutual TLS); None: clients need no certificate."""

    def __post_init__(self) -> None:
        """Check the files. For a bad file, tritonserver would only report that its address is in use.

        Raises:
            ServerError: a file is missing or not a PEM file of its kind, or the key does not match the certificate.
        """
        for path in (self.certificate, self.key, self.client_ca):
            if path is not None and not path.is_file():
                raise ServerError(f"there is no file {path}: give the server's certificate and key as PEM files")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # tritonserver cannot use an encrypted key. The empty password avoids a prompt at the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (ssl.SSLError, OSError) as error:
            raise ServerError(
                f"{self.certificate} and {self.key} are not a certificate and its private key in PEM format, "
                f"without a password: {_reason(error)}"
            ) from error
        if self.client_ca:
            try:
                context.load_verify_locations(self.client_ca)
            except (ssl.SSLError, OSError) as error:
                raise ServerError(f"{self.client_ca} holds no certificates in PEM format: {_reason(error)}") from error

    def arguments(self) -> list[str]:
        """Return the arguments of tritonserver."""
        words = ["--grpc-use-ssl=true", f"--grpc-server-cert={self.certificate}", f"--grpc-server-key={self.key}"]
        if self.client_ca:
            words += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={self.client_ca}"]
        return words


def _reason(error: OSError) -> str:
    return (getattr(error, "reason", None) or error.strerror or str(error)).replace("_", " ").lower()
