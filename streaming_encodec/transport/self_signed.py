"""Certificates that a relay makes for itself.

Browsers take one that no authority has signed if the page names its hash, the key is ECDSA P-256, and it is valid for
less than 14 days (W3C WebTransport, `serverCertificateHashes`). Where the hash comes over a connection that can be
trusted, as the offer of a datagram session does, the certificate can be trusted as much. For trying calls in a local
network people accept one by hand.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from streaming_encodec.transport.tls import server_tls

_VALID_DAYS = 12
_RENEW_DAYS = 2
"""So long before its end it is replaced: no session begins with one that ends soon."""
_EARLY_DAYS = 1
"""It is valid from so long ago: clocks of clients may be slow."""
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """A certificate that vouches for itself, with its key. renew_s: Unix time."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    renew_s: float

    @classmethod
    def make(cls, now_s: float, hosts: Iterable[str] = ()) -> SelfSigned:
        """A fresh one for these names and addresses. now_s: Unix time."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "streaming-encodec relay")])
        now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=_EARLY_DAYS))
            .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
            # Chromium reads no certificate that is without extensions.
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        names = [_general_name(host) for host in dict.fromkeys(hosts)]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return cls(builder.sign(key, SHA256()), key, now_s + (_VALID_DAYS - _RENEW_DAYS) * _DAY_S)

    @property
    def sha256(self) -> str:
        """Of its DER form, 64 hex digits."""
        return sha256_of(self.certificate)

    @property
    def pem(self) -> str:
        """The certificate as text."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def server_tls(self) -> ssl.SSLContext:
        """A server's TLS context with it."""
        with tempfile.TemporaryDirectory() as folder:  # the context reads files only; nobody else may read these
            certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
            certificate.write_text(self.pem)
            key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            return server_tls(certificate, key)


def sha256_of(certificate: x509.Certificate) -> str:
    """The hash by which a certificate is known: 64 hex digits."""
    return certificate.fingerprint(SHA256()).hex()


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
