"""Tokens that were used, for all relays of a cluster: a key-value bucket of JetStream with a key for each."""

from __future__ import annotations

import base64
import hashlib
import logging
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors

from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.relay.bus.nats_connection import NatsConnection
from streaming_encodec.relay.bus.nats_servers import NatsServers
from streaming_encodec.transport.close_codes import CloseCode, Refused, not_allowed
from streaming_encodec.transport.logs import event

if TYPE_CHECKING:
    from nats.js import JetStreamContext
    from nats.js.kv import KeyValue

BUCKET = "se1-tokens"


class UsedTokens:
    """A token is good once in the whole cluster. ttl_s: for so long at least a used one is remembered."""

    def __init__(self, connection: NatsConnection, servers: NatsServers, ttl_s: float) -> None:
        self._connection, self._servers, self._ttl_s = connection, servers, ttl_s
        self._bucket: tuple[JetStreamContext, KeyValue] | None = None

    async def use(self, token_id: str) -> None:
        """Use a token up. Raises Refused if it was used on any relay, or if that cannot be found out."""
        key = base64.b32encode(hashlib.sha256(token_id.encode()).digest()).decode("ascii").rstrip("=")
        try:
            bucket = await self._open()
            await bucket.create(key, b"")
        except nats.js.errors.KeyWrongLastSequenceError:
            raise not_allowed() from None
        except (OSError, TimeoutError, nats.errors.Error) as error:
            event("tokens_unknown", logging.WARNING, cause=type(error).__name__, reason=str(error))
            raise Refused(CloseCode.TRY_LATER, "used tokens can't be looked up now; try later") from error

    async def check(self) -> None:
        """See that the bucket can be used, and remembers for long enough.

        Raises CallError where there is no JetStream, ConfigError where the bucket forgets too soon.
        """
        try:
            kept_s = (await (await self._open()).status()).ttl
        except (nats.js.errors.ServiceUnavailableError, nats.errors.NoRespondersError) as error:
            raise CallError(
                "tokens are good once in a cluster, and that needs JetStream: start nats-server with -js",
                CallErrorReason.CLUSTER,
            ) from error
        except (OSError, TimeoutError, nats.errors.Error) as error:
            # It may elect a leader just now. Until it answers, tokens are refused.
            event("tokens_unknown", logging.WARNING, reason=str(error))
            return
        if kept_s and kept_s < self._ttl_s - 1.0:
            raise ConfigError(
                f"the bucket {BUCKET} of JetStream forgets after {kept_s:g} s, when tokens may be good still: "
                f"give it a TTL of {self._ttl_s:g} s or more",
                setting="cluster",
            )

    async def _open(self) -> KeyValue:
        stream = self._connection.jetstream()
        if stream is None:
            raise nats.errors.ConnectionClosedError
        if self._bucket is not None and self._bucket[0]._nc is stream._nc:
            return self._bucket[1]
        try:
            bucket = await stream.key_value(BUCKET)
        except nats.js.errors.BucketNotFoundError:
            copies = 3 if len(self._servers.urls) >= 3 else 1
            about = "ids of tokens that were used, hashed"
            bucket = await stream.create_key_value(bucket=BUCKET, description=about, ttl=self._ttl_s, replicas=copies)
        self._bucket = (stream, bucket)
        return bucket
