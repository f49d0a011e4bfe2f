"""TLS contexts of relays and of their clients."""

from __future__ import annotations

import ssl
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
