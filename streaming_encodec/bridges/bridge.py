"""A bridge: listens for telephones, admits them, and makes each a participant of a room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from types import TracebackType
from typing import Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from streaming_encodec.bridges.admission import SIGNATURE_HEADER
from streaming_encodec.bridges.config import BridgeConfig
from streaming_encodec.bridges.connection import PhoneConnection, TcpPhone, WebSocketPhone
from streaming_encodec.bridges.phone_call import PhoneCall, PhoneCallFigures
from streaming_encodec.client.network_thread import NetworkThread
from streaming_encodec.client.settings import CodecSettings, ConnectionSettings
from streaming_encodec.client.threaded import ThreadedVoiceClient
from streaming_encodec.engines.registry import make_live_engine
from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.model.find import find_model
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.listen import ConnectionCaps
from streaming_encodec.relay.metrics import Metrics
from streaming_encodec.relay.pages import is_forwarded
from streaming_encodec.transport.limits import BACKLOG
from streaming_encodec.transport.logs import event, failure
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.voice.sender import SenderSettings

_MOST_MESSAGE_BYTES = 131_072
_ASTERISK = Subprotocol("media")
"""What Asterisk's websocket_client.conf offers."""
_PING_S = 20.0
_TOKEN_S = 60.0
_PLAYOUT = ReceiverSettings(together_frames=2)
"""Packets bring two frames. Between two steps of a call the others push its weights out of the caches, so that two
frames in one step take little longer than one."""


class Bridge:
    """Telephones of one kind in a room, as an asynchronous context manager.

    ```python
    async with Bridge(BridgeConfig("twilio", "support", "ws://127.0.0.1:8765")) as bridge:
        print(bridge.url)
        ...
    ```

    on_digit: called with a call's name and each key that its caller presses. clock: seconds, monotonic.

    Raises:
        CallError: the address cannot be listened on (on entering).
        ConfigError, CheckpointError, StreamError: the model, or its bandwidth.
    """

    def __init__(
        self,
        config: BridgeConfig,
        *,
        on_digit: Callable[[str, str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._on_digit, self._clock = on_digit, clock
        self._model = find_model(config.model)
        self._engine = make_live_engine("auto", self._model)
        # One thread for all is less work than two that hand over to each other for each frame.
        self._pool = ThreadPoolExecutor(config.threads, "streaming-encodec-bridge") if config.threads > 1 else None
        self._caps = ConnectionCaps(
            RelayLimits(
                max_connections=config.limits.max_calls,
                max_connections_per_address=config.limits.max_calls,
            ),
            Metrics(),
            clock,
        )
        self._stopping = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server | Server] = []
        self._network: NetworkThread | None = None
        self.port = 0
        self.calls = 0
        """Calls that are on now."""

    async def __aenter__(self) -> Self:
        config = self.config
        self._network = NetworkThread(asyncio.get_running_loop())
        try:
            sockets = await self._caps.listen(config.host, config.port)
        except OSError as error:
            self._shut()
            raise CallError(
                f"a bridge cannot listen on {config.host or 'every address'}, port {config.port}: "
                f"{error.strerror or error}",
                CallErrorReason.CANNOT_LISTEN,
            ) from error
        self.port = int(sockets[0].getsockname()[1])
        for sock in sockets:
            if config.is_websocket:
                self._servers.append(
                    await serve(
                        self._on_websocket,
                        sock=sock,
                        process_request=self._process_request,
                        select_subprotocol=_select_subprotocol,
                        # Web pages are no telephones, and where nothing else keeps strangers out, this does.
                        origins=[None] if config.admission.is_open else None,
                        ssl=config.tls,
                        compression=None,
                        server_header=None,
                        open_timeout=config.limits.start_s,
                        ping_interval=_PING_S,
                        ping_timeout=_PING_S,
                        close_timeout=1.0,
                        max_size=_MOST_MESSAGE_BYTES,
                        max_queue=16,
                        backlog=BACKLOG,
                        logger=logging.getLogger("streaming_encodec.transport.websockets"),
                    )
                )
            else:
                self._servers.append(await asyncio.start_server(self._on_tcp, sock=sock, limit=16_384, backlog=BACKLOG))
        event("bridge_listening", kind=config.kind, host=config.host, port=self.port, room=config.room)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for server in self._servers:
            server.close()
        if self._calls:
            await asyncio.wait(self._calls)
        for server in self._servers:
            await server.wait_closed()
        self._shut()
        event("bridge_stopped", kind=self.config.kind, port=self.port)

    def _shut(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    @property
    def url(self) -> str:
        """Where telephones connect, as seen from this machine; a secret is left out."""
        host = self.config.host or "127.0.0.1"
        scheme = "tcp" if not self.config.is_websocket else "ws" if self.config.tls is None else "wss"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def stop(self) -> None:
        """End all calls, and tell the telephones."""
        self._stopping.set()

    # -- who may call ---------------------------------------------------------------------------------------

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        peer = connection.remote_address
        address = peer[0] if isinstance(peer, tuple) else "local"
        admission = self.config.admission
        refusal = None
        try:
            allowed = admission.allows_address(address) and admission.allows_request(
                request.headers.get("Host", ""), request.path, request.headers.get(SIGNATURE_HEADER)
            )
        except ValueError:  # a header twice, or an address that is none
            allowed = False
        if not allowed:
            refusal = HTTPStatus.FORBIDDEN, "not allowed"
        elif admission.is_open and not self.config.insecure and is_forwarded(request.headers):
            # It listens to this machine only, and so admits everybody; this caller is somewhere else.
            refusal = HTTPStatus.FORBIDDEN, "behind a proxy this bridge needs a secret or a signature, or insecure=True"
        elif self.calls >= self.config.limits.max_calls or self._stopping.is_set():
            refusal = HTTPStatus.SERVICE_UNAVAILABLE, "too many calls"
        if refusal is None:
            return None
        self._refused(address, refusal[1])
        return connection.respond(refusal[0], refusal[1] + "\n")

    def _refused(self, address: str, reason: str) -> None:
        event("phone_refused", logging.WARNING, cause=reason, reason=reason, address=address)

    async def _on_websocket(self, socket: ServerConnection) -> None:
        peer = socket.remote_address
        await self._serve(WebSocketPhone(socket), peer[0] if isinstance(peer, tuple) else "local")

    async def _on_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ("local",))[0])
        phone = TcpPhone(reader, writer)
        if not self.config.admission.allows_address(address):
            self._refused(address, "not allowed")
            await phone.close("")
        elif self.calls >= self.config.limits.max_calls or self._stopping.is_set():
            self._refused(address, "too many calls")
            await phone.close("")
        else:
            await self._serve(phone, address)

    # -- a call ---------------------------------------------------------------------------------------------

    async def _serve(self, connection: PhoneConnection, address: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        self.calls += 1
        begin_s = self._clock()
        try:
            call = PhoneCall(
                connection,
                self.config.protocol(),
                self._join,
                pool=self._pool,
                limits=self.config.limits,
                stopping=self._stopping,
                on_start=lambda figures: event("phone_call", call=figures.call, room=figures.room, address=address),
                on_digit=self._digit,
                clock=self._clock,
            )
            self._log_end(await call.run(), address, self._clock() - begin_s)
        except Exception:
            failure("phone call")
        finally:
            self.calls -= 1
            self._calls.discard(task)

    def _log_end(self, figures: PhoneCallFigures, address: str, seconds: float) -> None:
        event(
            "phone_ended",
            logging.WARNING if figures.failed else logging.INFO,
            # Strangers that never got as far as a call may connect as often as they like.
            cause=None if figures.room else f"no call: {figures.reason}",
            call=figures.call,
            room=figures.room,
            address=address,
            reason=figures.reason,
            seconds=round(seconds, 1),
            heard_s=round(figures.heard_s, 1),
            sent_s=round(figures.sent_s, 1),
            dropped_s=round(figures.dropped_s, 2),
            skipped_frames=figures.skipped_frames,
            cleared=figures.cleared,
        )

    def _digit(self, call: str, digit: str) -> None:
        event("phone_digit", call=call, digit=digit)
        if self._on_digit is not None:
            self._on_digit(call, digit)

    def _join(self, call: str) -> ThreadedVoiceClient:
        config = self.config
        room = config.room_of(call)
        key, token = config.token_key, config.token
        if key is not None:
            token = lambda: key.sign(room, now_s=time.time(), ttl_s=_TOKEN_S)  # noqa: E731
        return ThreadedVoiceClient(
            config.url,
            token,
            self._model,
            room=room,
            role="both",
            codec=CodecSettings(
                config.bandwidth,
                engine=self._engine,
                packets=SenderSettings(frames_per_packet=config.frames_per_packet),
                dtx=config.dtx,
            ),
            playout=_PLAYOUT,
            connection=ConnectionSettings(config.relay_tls, network=self._network, transport="websocket"),
            clock=self._clock,
        )


def _select_subprotocol(connection: ServerConnection, offered: object) -> Subprotocol | None:
    return _ASTERISK if isinstance(offered, list | tuple) and _ASTERISK in offered else None
