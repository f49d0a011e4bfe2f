"""Calls over TLS: certificates that the system trusts, one's own, and those that nobody trusts."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from call_kit import RATE, VoiceClient, say, sound, tiny_model
from cli.test_cli_call_commands import command, run
from relay_kit import running, until
from tls_kit import Authority, plain_server, relay_in_thread, wait_until

from streaming_encodec.client.settings import ConnectionSettings
from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.transport.tls import client_tls

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a second of sound."""
    made = tmp_path_factory.mktemp("tls")
    tiny_model().save_pretrained(made / "model")
    soundfile.write(made / "in.wav", sound(1.0), RATE)
    return made


@pytest.fixture(scope="module")
def model() -> EncodecModel:
    return tiny_model()


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder / "authority")


@pytest.fixture(autouse=True)
def _no_own_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


class Commands:
    """Programs that run at the same time."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        self._running: dict[str, subprocess.Popen[str]] = {}

    def start(self, *arguments: object) -> None:
        self._running[str(arguments[0])] = subprocess.Popen(
            command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environment
        )

    def result(self, name: str) -> tuple[int, str, str]:
        out, err = self._running[name].communicate(timeout=240)
        return self._running[name].returncode, out, err

    def close(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture(params=["the system's", "--ca"])
def trust(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[Commands, tuple[object, ...]]]:
    """Programs that trust the authority, and the options that make them do so."""
    system = request.param == "the system's"
    commands = Commands({"SSL_CERT_FILE": str(authority.file)} if system else {})
    try:
        yield commands, () if system else ("--ca", authority.file)
    finally:
        commands.close()


def test_every_command_that_takes_an_address_calls_over_tls(
    folder: Path, authority: Authority, trust: tuple[Commands, tuple[object, ...]], tmp_path: Path
) -> None:
    commands, options = trust
    with relay_in_thread(tls=authority.issue(HOST)) as relay:
        assert relay.url.startswith("wss://")
        call = ("--url", relay.url, *options, "--model", folder / "model", "--json")
        commands.start("doctor", "--engine", "fused", *call)
        commands.start("listen", tmp_path / "heard.wav", "--room", "r", *call)
        wait_until(lambda: relay._rooms.participants == 1, "listen joined")
        clip = ("--clip", folder / "in.wav", "--record", tmp_path / "talk.wav", "--engine", "fused")
        commands.start("talk", "r", *clip, *call)
        wait_until(lambda: relay._rooms.participants >= 2, "talk joined")
        commands.start("send", folder / "in.wav", "--room", "r", *call)
        results = {name: commands.result(name) for name in ("send", "talk", "listen", "doctor")}
    for name in ("send", "talk", "listen"):
        code, out, err = results[name]
        assert code == 0, (name, err)
        assert json.loads(out)["connects"] == 1
    assert json.loads(results["send"][1])["packets_sent"] > 30
    assert json.loads(results["listen"][1])["speakers"] >= 1
    findings = {finding["subject"]: finding for finding in json.loads(results["doctor"][1])["findings"]}
    assert findings["relay"]["verdict"] in ("ok", "poor"), findings["relay"]


@pytest.mark.parametrize("given", [False, True])
async def test_a_client_calls_over_tls(
    model: EncodecModel, authority: Authority, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    """With a context, and with the certificates that the system trusts."""
    if not given:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    tls = client_tls(authority.file) if given else None
    async with (
        running(tls=authority.issue(HOST)) as relay,
        VoiceClient(relay.url, None, model, room="r", role="subscribe", connection=ConnectionSettings(tls)) as ear,
        VoiceClient(relay.url, None, model, room="r", role="publish", connection=ConnectionSettings(tls)) as mouth,
    ):
        await say(mouth, sound(0.2))
        await until(lambda: ear.statistics.packets_arrived > 5, "it was heard")


@pytest.mark.parametrize(
    ("hosts", "days", "says"),
    [
        ((HOST,), (-1, 1), "not trusted by this system"),
        (("relay.example",), (-1, 1), "for another host"),
        ((HOST,), (-3, -1), "not valid now"),
    ],
)
def test_a_certificate_that_will_not_do_is_one_clear_error(
    folder: Path,
    authority: Authority,
    hosts: tuple[str, ...],
    days: tuple[int, int],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if says != "not trusted by this system":
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with relay_in_thread(tls=authority.issue(*hosts, valid_days=days)) as relay:
        for arguments in (("send", folder / "in.wav"), ("listen", tmp_path / "out.wav")):
            code, out, err = run(*arguments, "--url", relay.url, "--model", folder / "model")
            assert (code, out) == (1, "")
            assert [line for line in err.splitlines() if line.startswith("error: ")] == err.splitlines()[-1:]
            assert says in err
            assert ("--ca" in err) == ("not trusted" in says)


def test_a_certificate_without_tls_is_wrong_usage(folder: Path, authority: Authority, tmp_path: Path) -> None:
    url = "ws://127.0.0.1:1"
    clip = ("--clip", folder / "in.wav", "--record", tmp_path / "b.wav", "--engine", "fused")
    for arguments in (
        ("send", folder / "in.wav"),
        ("listen", tmp_path / "a.wav"),
        ("talk", "r", *clip),
        ("doctor",),
    ):
        code, _, err = run(*arguments, "--url", url, "--ca", authority.file, "--model", folder / "model")
        assert code == 2, arguments
        assert "has no TLS" in " ".join(err.replace("│", "").split())
    assert run("doctor", "--ca", authority.file)[0] == 2
    assert os.listdir(tmp_path) == []


async def test_a_context_without_tls_is_told(model: EncodecModel, authority: Authority) -> None:
    with pytest.raises(ConfigError, match="has no TLS"):
        VoiceClient("ws://127.0.0.1:1", None, model, connection=ConnectionSettings(client_tls(authority.file)))


async def test_tls_where_none_is_spoken_and_none_where_it_is(model: EncodecModel, authority: Authority) -> None:
    async with running() as plain, running(tls=authority.issue(HOST)) as secure:
        with pytest.raises(CallError, match=rf"no TLS is spoken there: write ws://127.0.0.1:{plain.port}") as told:
            async with VoiceClient(f"wss://127.0.0.1:{plain.port}", None, model):
                pass
        assert told.value.reason is CallErrorReason.NOT_A_RELAY
        with pytest.raises(CallError, match=rf"TLS is spoken there: write wss://127.0.0.1:{secure.port}"):
            async with VoiceClient(f"ws://127.0.0.1:{secure.port}", None, model):
                pass


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 64])
async def test_what_speaks_neither_is_no_relay(model: EncodecModel, answer: bytes) -> None:
    with plain_server(answer) as port:
        for scheme in ("ws", "wss"):
            with pytest.raises(CallError, match=rf"no .*{scheme}://127.0.0.1:{port}|is no relay|no secure") as told:
                async with VoiceClient(f"{scheme}://127.0.0.1:{port}", None, model):
                    pass
            assert "is spoken there" not in str(told.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_certificate_file_of_any_editor(authority: Authority, tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.file.read_text(encoding="ascii").encode(encoding))
    assert client_tls(file).cert_store_stats()["x509"] >= 1


@pytest.mark.parametrize(
    "contents", [b"", b"hello", "héllo".encode(), b"\xff\xfe\x00", codecs.BOM_UTF8 + b"\xff", bytes(range(256))]
)
def test_a_certificate_file_that_is_none_is_told(tmp_path: Path, contents: bytes) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(contents)
    with pytest.raises(ConfigError, match=r"ca\.pem: cannot be read: it .* PEM"):
        client_tls(file)
    with pytest.raises(ConfigError, match="No such file"):
        client_tls(tmp_path / "none.pem")
