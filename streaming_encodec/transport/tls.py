"""TLS contexts of relays and of their clients."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from streaming_encodec.errors import ConfigError
from streaming_encodec.text_files import decode_text


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's TLS context, 1.2 or newer. Raises ConfigError where the files will not do."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # which costs the server more work than the client
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"TLS certificate {certificate} with key {key}: {error}", setting="tls") from error
    return context


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """A certificate that vouches for itself, and its key, both in PEM. fingerprint: its SHA-256, 64 hex digits."""

    certificate: bytes
    key: bytes
    fingerprint: str

    def server_tls(self) -> ssl.SSLContext:
        """A server's context with it."""
        with tempfile.TemporaryDirectory() as folder:  # the context reads files only; nobody else may read these
            certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
            certificate.write_bytes(self.certificate)
            key.write_bytes(self.key)
            return server_tls(certificate, key)


_SELF_SIGNED_DAYS = 13
"""Browsers take a self-signed certificate by its hash for WebTransport if it is valid for less than 14 days."""


def self_signed(hosts: Iterable[str], now: datetime.datetime) -> SelfSigned:
    """Make a certificate for these names and addresses, with a key of its own (ECDSA, P-256)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    def general_name(host: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            return x509.DNSName(host)

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "streaming-encodec, self-signed")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=_SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([general_name(host) for host in dict.fromkeys(hosts)]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    return SelfSigned(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate.fingerprint(hashes.SHA256()).hex(),
    )


def client_tls(authority: Path) -> ssl.SSLContext:
    """A client's TLS context that trusts the certificates in this PEM file besides those of the system.

    Raises ConfigError for a file that has none.
    """
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cadata=decode_text(authority.read_bytes()))
    except OSError as error:  # an ssl.SSLError is one too
        why = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"certificate {authority}: cannot be read: {why}") from error
    except (ValueError, TypeError) as error:  # no text, or no ASCII
        raise ConfigError(f"certificate {authority}: cannot be read: it is no PEM file") from error
    return context
