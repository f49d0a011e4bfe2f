"""A relay's connection to NATS: it is restored when it is lost, and carries nothing old.

nats-py reconnects by itself, but keeps what could not be sent and sends it afterwards. So here each of its clients has
one connection, and is dropped with it. Voice is written to the socket directly, past that client's buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.extras import needs_extra
from streaming_encodec.relay.bus.nats_servers import NatsServers, public
from streaming_encodec.transport.failures import in_words
from streaming_encodec.transport.limits import MAX_VOICE_AGE_S
from streaming_encodec.transport.logs import event

with needs_extra("a cluster of relays", "nats-py", "cluster"):
    import nats.errors
    from nats.aio.client import Client

    from streaming_encodec.relay.bus.nats_transport import NatsTransport

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.js import JetStreamContext

Receiver = Callable[[bytes, str], None]
"""Is given a message and the subject for the answer, empty where none is wanted. Must not block."""

_CONNECT_S = 1.0
_ASK_S = 0.1
"""How often the server is asked for an answer, so that it is known what has reached it."""
_HOLD_S = 0.2
"""While an answer is due for so long, voice waits here, where the oldest is dropped."""
_DEAD_S = 2.0
"""A server that does not answer for so long is given up."""
_RETRY_S = 0.1
_UNSENT_BYTES = 16_384
_WAITING_PACKETS = 2048
_WAITING_MESSAGES = 4096
"""Of one subscription. nats-py reads up to 96 KiB, some 1,600 short packets, before it hands one over, and drops the
newest beyond this limit."""
_CREDENTIALS = (nats.errors.AuthorizationError,)


class NatsConnection:
    """A connection to one of the servers at a time. All of it belongs to one event loop.

    Args:
        name: shown by NATS's monitoring. on_up: called after each connection but the first, subscriptions included.
        clock: seconds, monotonic.
    """

    def __init__(
        self, servers: NatsServers, name: str, *, on_up: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self._servers, self._name, self._on_up, self._clock = servers, name, on_up, clock
        self._urls = deque(servers.urls)
        self._client: Client | None = None
        self._transport: NatsTransport | None = None
        self._receivers: dict[str, Receiver] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._voice: deque[tuple[float, bytes]] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._asked_s: float | None = None
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._violation = ""
        self.round_trip_s = 0.0
        self.connects = 0
        self.dropped = 0
        """Packets that were not sent: there was no connection, or it did not take them in time."""

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return self._client is not None

    # -- life -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect for the first time. Raises CallError with what to do about it."""
        await self._connect_to_any()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Send what was written, and disconnect."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        client = self._client
        if client is not None:
            with contextlib.suppress(Exception):  # it ends, whatever it says of that
                async with asyncio.timeout(_CONNECT_S):
                    await client.drain()
        self._down()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            self._down()
            event("cluster_lost", logging.WARNING)
            while True:
                try:
                    await self._connect_to_any()
                    break
                except CallError as error:
                    event("cluster_unreachable", logging.WARNING, cause=error.reason, reason=str(error))
                await asyncio.sleep(_RETRY_S * (0.5 + random.random()))
            event("cluster_restored", server=public(self._urls[0]))
            self._on_up()

    async def _connect_to_any(self) -> None:
        first: CallError | None = None
        for _ in self._servers.urls:
            try:
                await self._connect(self._urls[0])
                return
            except CallError as error:
                first = first or error
                self._urls.rotate(-1)
        assert first is not None  # there is a URL
        raise first

    async def _connect(self, url: str) -> None:
        must_be_secure = self._servers.tls is not None or url.startswith("tls://")
        client, transport, said = Client(), NatsTransport(must_be_secure), list[Exception]()
        lost = self._lost = asyncio.Event()

        async def failed(error: Exception) -> None:
            said.append(error)
            if "permissions violation" in str(error).lower():
                self._violation = str(error)
            del said[:-4]
            if client is self._client:
                event("cluster_error", logging.WARNING, cause=type(error).__name__, reason=str(error))

        async def closed() -> None:
            lost.set()

        client._transport = transport  # one of our own: see `NatsTransport`
        try:
            async with asyncio.timeout(2 * _CONNECT_S):
                await client.connect(
                    [url],
                    name=self._name,
                    error_cb=failed,
                    closed_cb=closed,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=_CONNECT_S,  # type: ignore[arg-type]  # seconds
                    ping_interval=2,
                    no_echo=True,
                    pending_size=0,
                    tls=self._servers.tls,
                    **self._servers.login(),  # type: ignore[arg-type]  # names of its own
                )
                for subject in self._receivers:
                    await self._subscribe(client, subject)
                await client.flush(1)
        except (OSError, TimeoutError, nats.errors.Error, ValueError, ImportError) as error:
            self._spawn(_abandon(client))
            raise _explain(url, [error, *said[::-1]]) from error
        except BaseException:
            self._spawn(_abandon(client))
            raise
        self._client, self._transport, self._asked_s = client, transport, None
        self.connects += 1
        self._watcher = asyncio.create_task(self._watch(client, lost))

    def _down(self) -> None:
        client, self._client, self._transport = self._client, None, None
        self.dropped += len(self._voice)
        self._voice.clear()
        self._subscriptions.clear()
        if self._watcher is not None:
            self._watcher.cancel()
        if client is not None:
            self._spawn(_abandon(client))

    async def _watch(self, client: Client, lost: asyncio.Event) -> None:
        """Ask the server again and again. A ping's answer says that what was written before it has arrived."""
        while True:
            self._asked_s = self._clock()
            try:
                # Not for longer: nats-py's reader ends at an answer to a question that was given up.
                await client.flush(_DEAD_S)  # type: ignore[arg-type]  # seconds
            except Exception:
                lost.set()
                return
            self.round_trip_s = self._clock() - self._asked_s
            self._asked_s = None
            self._pump()
            await asyncio.sleep(_ASK_S)

    # -- receiving --------------------------------------------------------------------------------------------

    async def subscribe(self, subject: str, receiver: Receiver) -> None:
        """Have a function called with each message on a subject. Returns when the server has confirmed it.

        Without a connection, the subscription is made when there is one again.
        """
        self._receivers[subject] = receiver
        client = self._client
        if client is not None:
            with contextlib.suppress(OSError, TimeoutError, nats.errors.Error):  # `_keep` does it again
                await self._subscribe(client, subject)
                await client.flush(1)

    async def _subscribe(self, client: Client, subject: str) -> None:
        receiver = self._receivers[subject]

        async def receive(message: Msg) -> None:
            if self._receivers.get(subject) is receiver:
                receiver(message.data, message.reply)

        made = await client.subscribe(
            subject, cb=receive, pending_msgs_limit=_WAITING_MESSAGES, pending_bytes_limit=_WAITING_MESSAGES * 2048
        )
        self._subscriptions[subject] = made

    def unsubscribe(self, subject: str) -> None:
        """Receive nothing more on a subject."""
        self._receivers.pop(subject, None)
        made = self._subscriptions.pop(subject, None)
        if made is not None:
            self._spawn(made.unsubscribe())

    def check_permissions(self) -> None:
        """Raise CallError if the server has refused a subject."""
        if self._violation:
            raise CallError(
                f"NATS does not let this relay use the cluster's subjects ({self._violation}): allow it to publish and "
                "to subscribe to se1.>, _INBOX.>, $JS.API.> and $KV.se1-tokens.>",
                CallErrorReason.NOT_ALLOWED,
            )

    # -- sending ----------------------------------------------------------------------------------------------

    def send(self, subject: str, message: bytes) -> None:
        """Send a message now; it is lost where there is no connection."""
        if self._transport is not None:
            self._transport.write(b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(message), message))

    def send_voice(self, subject: str, packet: bytes) -> None:
        """Send a packet now, or as soon as the connection takes it; it is dropped when it is too old by then."""
        if self._transport is None:
            self.dropped += 1
            return
        self._voice.append((self._clock(), b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(packet), packet)))
        if len(self._voice) > _WAITING_PACKETS:
            self._voice.popleft()
            self.dropped += 1
        self._pump()

    def _pump(self) -> None:
        transport, now_s = self._transport, self._clock()
        while self._voice and transport is not None:
            sent_s, frame = self._voice[0]
            if now_s - sent_s > MAX_VOICE_AGE_S:
                self.dropped += 1
            elif transport.unsent_bytes > _UNSENT_BYTES or (
                self._asked_s is not None and now_s - self._asked_s > _HOLD_S
            ):
                if self._retry is None:
                    self._retry = asyncio.get_running_loop().call_later(0.01, self._pump_again)
                return
            else:
                transport.write(frame)
            self._voice.popleft()

    def _pump_again(self) -> None:
        self._retry = None
        self._pump()

    async def request(self, subject: str, message: bytes, limit_s: float) -> bytes | None:
        """Ask the subscribers of a subject; None if no answer comes in time."""
        client = self._client
        if client is None:
            return None
        try:
            return (await client.request(subject, message, timeout=limit_s)).data
        except (OSError, TimeoutError, nats.errors.Error):
            return None

    def jetstream(self) -> JetStreamContext | None:
        """JetStream of the present connection; None where there is none."""
        return None if self._client is None else self._client.jetstream(timeout=_CONNECT_S)

    def _spawn(self, work: Awaitable[Any]) -> None:
        async def run() -> None:
            with contextlib.suppress(OSError, TimeoutError, nats.errors.Error):
                await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _abandon(client: Client) -> None:
    """Close a client of nats-py, however long that takes it."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CONNECT_S):
            await client.close()
    if client._transport is not None:
        client._transport.close()  # type: ignore[no-untyped-call]


def _explain(url: str, errors: list[Exception]) -> CallError:
    """What the errors of an attempt mean; the first that says something counts."""
    where = f"the NATS server at {public(url)}"
    for error in errors:
        text = str(error).lower()
        if isinstance(error, _CREDENTIALS) or "authorization" in text or "authentication" in text:
            why = f"{where} does not accept this relay's credentials: check user and password, or the credentials' file"
            return CallError(why, CallErrorReason.NOT_ALLOWED)
        if isinstance(error, nats.errors.SecureConnWantedError):
            return CallError(f"{where} speaks no TLS: write nats://, or set it up there", CallErrorReason.TLS)
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"{where}: its certificate is not trusted ({error.verify_message}): name its authority"
            return CallError(why, CallErrorReason.UNTRUSTED)
        if isinstance(error, ssl.SSLError):
            return CallError(f"{where}: TLS fails ({error.reason or error})", CallErrorReason.TLS)
        if isinstance(error, ImportError):
            return CallError(
                f'NATS credentials need one more package ({error.name}): pip install "nats-py[nkeys]"',
                CallErrorReason.NOT_ALLOWED,
            )
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            return CallError(f"no NATS server at {public(url)} ({in_words(error)}): is it running?", _UNREACHABLE)
        if isinstance(error, ValueError):
            return CallError(f"NATS credentials can't be used: {error}", CallErrorReason.NOT_ALLOWED)
    if any(isinstance(error, TimeoutError) for error in errors):
        return CallError(f"no NATS server at {public(url)} (no answer): is it running?", _UNREACHABLE)
    return CallError(f"{where} can't be used: {errors[0]}", _UNREACHABLE)


_UNREACHABLE = CallErrorReason.CLUSTER
