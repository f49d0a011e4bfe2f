"""The relay's certificate for datagram sessions: made by itself, and known to clients by its hash.

Browsers take one that no authority has signed if the page names its hash, the key is ECDSA P-256, and it is valid for
14 days at most (W3C WebTransport, `serverCertificateHashes`). The hash comes with the offer over the client's
connection, so whoever can trust that connection can trust this certificate.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

VALID_DAYS = 10
RENEW_DAYS = 2
"""So long before its end it is replaced: no session begins with one that ends soon."""
_EARLY_DAYS = 1
"""It is valid from so long ago: clocks of clients may be slow."""
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key. sha256: of its DER form, 64 hex digits. renew_s: Unix time."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    sha256: str
    renew_s: float

    @classmethod
    def make(cls, now_s: float) -> Certificate:
        """A fresh one. now_s: Unix time."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "streaming-encodec relay")])
        now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=_EARLY_DAYS))
            .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
            # Chromium reads no certificate that is without extensions.
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(key, SHA256())
        )
        return cls(made, key, sha256_of(made), now_s + (VALID_DAYS - RENEW_DAYS) * _DAY_S)


def sha256_of(certificate: x509.Certificate) -> str:
    """The hash by which a certificate is known: 64 hex digits."""
    return certificate.fingerprint(SHA256()).hex()
