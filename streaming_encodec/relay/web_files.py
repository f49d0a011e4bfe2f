"""The web page and all that it loads, as a relay serves them: by exact path, with strict headers."""

from __future__ import annotations

import gzip
import hashlib
import json
import mmap
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable

from streaming_encodec.errors import ConfigError
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.transport.base import HttpFile
from streaming_encodec.transport.limits import Bucket

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".safetensors": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_PAGE_PARTS = (".css", ".js", ".svg")
_KERNEL = "codec/kernel.wasm"
_MODEL = "voice-24khz"
_MODEL_FILES = ("config.json", "model.safetensors")
_HASH_DIGITS = 16
_MODEL_HASH_DIGITS = 32

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",  # the codec is WebAssembly
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self' https://127.0.0.1:*",  # datagrams of a page at localhost, see web/client/datagrams.js
        "media-src 'self' blob:",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_DOCUMENT_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Permissions-Policy", "microphone=(self), camera=(), geolocation=(), display-capture=()"),
    ("Referrer-Policy", "no-referrer"),  # a room's name is nobody else's business
)
_HEADERS = (("Cross-Origin-Resource-Policy", "same-origin"), ("X-Content-Type-Options", "nosniff"))
_DOCUMENTS = (".html", ".svg", "worker.js")
"""What browsers give rights of its own; all else has those of the document that loads it."""
_WEIGHTS = ".safetensors"
_FOREVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"

_SMALLEST_BYTES = 8192
"""What an answer counts as at least: small ones cost work, too."""
_MANY_ADDRESSES = 1024

BUSY = HttpFile(
    b"too many are loading this page at the moment; try again in a few seconds\n",
    headers=(("Content-Type", "text/plain; charset=utf-8"), ("Retry-After", "3"), ("Cache-Control", "no-store")),
    status=HTTPStatus.SERVICE_UNAVAILABLE,
)


class WebFiles:
    """Files by path. The page itself stands at `/`, and at `/r/ROOM` for every room.

    What the page loads has a hash of its content in its path, so that browsers keep it without asking again. The model
    has a hash of its own: a new page does not make it load again. Each file is compressed once, here.
    """

    def __init__(self, found: Mapping[str, HttpFile], room_page: HttpFile) -> None:
        self._files, self._room_page = found, room_page

    @classmethod
    def bundled(cls, *, tokens: bool) -> WebFiles:
        """The page and the model of this package. tokens: the relay wants them, which the page should know.

        Raises ConfigError where the package was built without what the page needs.
        """
        package = files("streaming_encodec")
        parts = dict(_page_parts(package.joinpath("web")))
        parts[_KERNEL] = _read(package, f"web/{_KERNEL}")
        model = {name: _read(package, f"assets/{_MODEL}/{name}") for name in _MODEL_FILES}
        code = f"web/{_digest(parts)[:_HASH_DIGITS]}/"
        weights = f"model/{_digest(model)[:_MODEL_HASH_DIGITS]}/"
        call = {
            "format": json.loads(_read(package, "web/format.json")),
            "kernel": f"{code}{_KERNEL}",
            "model": {"name": _MODEL, "folder": weights, "bytes": sum(map(len, model.values()))},
            "tokens": tokens,
        }
        found = {f"/{code}{path}": _file(path, content, _FOREVER) for path, content in parts.items()}
        found |= {f"/{weights}{path}": _file(path, content, _FOREVER) for path, content in model.items()}
        found["/call.json"] = _file("call.json", json.dumps(call).encode(), _ASK_AGAIN)
        page = _read(package, "web/index.html")
        found["/"] = _page(page, code)
        return cls(found, _page(page, f"../{code}"))

    def find(self, path: str) -> HttpFile | None:
        """The file at a path; None if there is none."""
        found = self._files.get(path)
        if found is None and path.startswith("/r/") and path.count("/") == 2 and len(path) > len("/r/"):
            return self._room_page
        return found


class Readers:
    """What readers of files may take: connections, in all and of one address, and bytes a second. Callers come first.

    group: of an address, see `address_group`.
    """

    def __init__(self, limits: RelayLimits, clock: Callable[[], float]) -> None:
        self._most = max(1, limits.max_connections // 4)
        self._most_of_address = max(1, limits.max_connections_per_address // 2)
        self._rate, self._clock = limits.file_bytes_per_s, clock
        self._all = Bucket(4 * self._rate, 8 * self._rate, clock())
        self._addresses: dict[str, Bucket] = {}
        self._open: Counter[str] = Counter()

    def is_full(self, group: str) -> bool:
        """Whether no further reader is served."""
        return self._open.total() >= self._most or self._open[group] >= self._most_of_address

    @contextmanager
    def reading(self, group: str) -> Iterator[Callable[[int], bool]]:
        """While an answer is sent. Yields a function that says whether so many bytes may leave now."""
        if group not in self._addresses:
            if len(self._addresses) >= _MANY_ADDRESSES:
                self._forget()
            self._addresses[group] = Bucket(self._rate, 8 * self._rate, self._clock())
        self._open[group] += 1
        try:
            yield partial(self._take, self._addresses[group])
        finally:
            self._open[group] -= 1
            if not self._open[group]:
                del self._open[group]

    def _take(self, address: Bucket, size: int) -> bool:
        now_s = self._clock()
        size = max(size, _SMALLEST_BYTES)
        return address.take(size, now_s) and self._all.take(size, now_s)

    def _forget(self) -> None:
        now_s = self._clock()
        self._addresses = {
            group: bucket for group, bucket in self._addresses.items() if self._open[group] or not bucket.is_full(now_s)
        }


def _page_parts(folder: Traversable, path: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name != "node_modules":
                yield from _page_parts(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(_PAGE_PARTS):
            yield f"{path}{entry.name}", entry.read_bytes()


def _read(package: Traversable, path: str) -> bytes:
    try:
        return package.joinpath(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"this installation has no {path.rpartition('/')[2]}, which the web page needs ({error.strerror}): "
            "install the package again where it can be compiled, or serve without the page",
            setting="web",
        ) from error


def _digest(parts: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path in sorted(parts):
        digest.update(f"{path}\0{len(parts[path])}\0".encode())
        digest.update(parts[path])
    return digest.hexdigest()


def _file(path: str, content: bytes, caching: str) -> HttpFile:
    kind = _TYPES[path[path.rindex(".") :]]
    tag = hashlib.sha256(content).hexdigest()[:_HASH_DIGITS]
    headers: tuple[tuple[str, str], ...] = (("Content-Type", kind), ("Cache-Control", caching), *_HEADERS)
    if path.endswith(_DOCUMENTS):
        headers = (*headers, *_DOCUMENT_HEADERS)
    headers = (*headers, ("Vary", "Accept-Encoding"))
    if path.endswith(_WEIGHTS):
        body, packed = _aside(content), _aside(_gzip_weights(content))
    else:
        body, packed = content, gzip.compress(content, mtime=0)
    gzipped = HttpFile(packed, (*headers, ("Content-Encoding", "gzip")), etag=f'"{tag}-gzip"')
    return HttpFile(body, headers, etag=f'"{tag}"', gzipped=gzipped)


def _aside(content: bytes) -> bytes | memoryview:
    """The same bytes, in a file without a name where one can be written: in memory only while somebody loads them.

    Not the package's own file: who installs another one over it would change what is being sent.
    """
    try:
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            return memoryview(mmap.mmap(file.fileno(), len(content), access=mmap.ACCESS_READ))
    except OSError:
        return content


def _gzip_weights(content: bytes) -> bytes:
    """Compress numbers, in which nothing comes twice: without looking for that, in 0.1 s, as small as `gzip -9`."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS + 16, memLevel=9, strategy=zlib.Z_HUFFMAN_ONLY)
    return packer.compress(content) + packer.flush()


def _page(content: bytes, code: str) -> HttpFile:
    """The page, with the folder from which it loads its parts."""
    return _file("index.html", content.replace(b'<base href="./">', f'<base href="{code}">'.encode()), _ASK_AGAIN)
