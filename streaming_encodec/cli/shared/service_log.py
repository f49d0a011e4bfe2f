"""The log of a command that runs for long and serves others."""

from __future__ import annotations

import logging
import sys

from streaming_encodec.transport.logs import JsonFormatter, OncePerMinute


def log_json(*, verbose: bool) -> None:
    """Send all logs of this process to stderr as JSON, including those of asyncio and other libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(OncePerMinute())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    logging.getLogger("streaming_encodec.transport").setLevel(logging.INFO)
    # Broken handshakes of strangers are logged only with --verbose.
    for name in ("streaming_encodec.transport.websockets", "quic"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.CRITICAL)
