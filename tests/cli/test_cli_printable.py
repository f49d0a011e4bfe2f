"""What others wrote never acts on the terminal: it is shown as it is, or spelled out."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from cli_kit import Run
from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.table import Table
from rich.text import Text
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from streaming_encodec.cli.shared import console
from streaming_encodec.cli.shared.printable import PlainConsole, PrintableFormatter, is_foreign, printable
from streaming_encodec.client.network_thread import NetworkThread
from streaming_encodec.transport.addresses import SUBPROTOCOL

EVIL = "a\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp\r\x7f[red]b[/] :smile: [link=http://x]c[/link]\u2028d"
SHOWN = r"a\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp\r\x7f[red]b[/] :smile: [link=http://x]c[/link]\u2028d"


def acts(text: str) -> str:
    """The characters in a terminal's input that it would act upon, line ends apart."""
    return "".join(character for character in text if is_foreign(character) and character != "\n")


Screen = Callable[[], str]


@pytest.fixture
def screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Screen:
    """What was written since it was asked last, 200 columns wide."""
    monkeypatch.setenv("COLUMNS", "200")

    def written() -> str:
        captured = capsys.readouterr()
        return captured.out + captured.err

    return written


@given(st.text())
def test_nothing_that_is_printable_acts_and_what_is_plain_stays(text: str) -> None:
    shown = printable(text)
    assert not acts(shown)
    assert printable(shown) == shown
    if not acts(text):
        assert shown == text
    shown.encode()  # no half of a surrogate pair is left


def test_words_of_all_scripts_stay() -> None:
    for text in ("naïve – 你好 – مرحبا – می‌خواهم – क्‍ष – 👩‍🎤 – [a] 5:30", "two\nlines"):
        assert printable(text) == text


@pytest.mark.parametrize("show", [console.complain, console.note, lambda text: console.name_device("input", text)])
def test_errors_notes_and_devices(show: Callable[[str], None], screen: Screen) -> None:
    show(EVIL)
    shown = screen()
    assert not acts(shown)
    assert r"\x1b[2J\x9b31m\u202egnp" in shown
    assert "[red]b[/] :smile: [link=http://x]c[/link]" in shown


def test_tables_titles_and_texts(screen: Screen) -> None:
    console.print_facts(EVIL, {EVIL: EVIL})
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(Text(EVIL))
    console.out().print(table)
    with Live(Text(EVIL), console=console.err(), auto_refresh=False) as live:
        live.update(EVIL, refresh=True)
    shown = screen()
    assert shown.count("[red]b[/] :smile: [link=http://x]c[/link]") == 7
    assert shown.count(r"\x1b[2J\x9b31m\u202egnp") == 7
    assert not acts(shown)


def test_tables_keep_their_shape(screen: Screen) -> None:
    """What is spelled out is measured as it is shown."""
    console.print_facts("title", {"evil": "\x1b[31mred", "plain": "text"})
    assert len({len(line) for line in screen().splitlines()[1:]}) == 1


def test_styles_of_our_own_are_still_seen() -> None:
    screen = io.StringIO()
    colours = PlainConsole()
    colours.file, colours._color_system = screen, 1  # type: ignore[assignment]
    colours._force_terminal = True
    colours.print(Text.assemble(("error:", "bold red"), " ", EVIL))
    assert screen.getvalue().startswith("\x1b[1;31merror:\x1b[0m ")
    assert "\x1b[2J" not in screen.getvalue()


@given(st.text(max_size=30))
def test_json_is_the_same_value_and_acts_on_nothing(text: str) -> None:
    out, before = io.StringIO(), sys.stdout
    sys.stdout = out
    try:
        console.print_json({"text": text, text: 1})
    finally:
        sys.stdout = before
    assert not acts(out.getvalue())
    out.getvalue().encode()
    assert json.loads(out.getvalue()) == {"text": text} | {text: 1}


def test_logs_of_libraries() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "%s", (EVIL,), None)
    assert PrintableFormatter().format(record) == SHOWN


# -- by the ways that foreign text takes


@pytest.fixture
def closing_relay() -> Iterator[str]:
    """A relay that closes each connection with a reason of its own."""
    loop = NetworkThread()
    ready = threading.Event()
    stop: Any = None
    url: list[str] = []

    async def close(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.close(4999, "gone\x1b[2J\x9b[red]x[/]")

    async def begin() -> Any:
        server = await serve(close, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)])
        url.append(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        ready.set()
        return server

    stop = loop.run(begin())
    yield url[0]
    loop.loop.call_soon_threadsafe(stop.close)
    loop.close()


def test_a_relays_reason(run: Run, closing_relay: str, mono_model: Path, speech: Path, tmp_path: Path) -> None:
    for arguments in (("send", speech), ("listen", tmp_path / "a.wav")):
        result = run(*arguments, "--url", closing_relay, "-m", mono_model)
        assert result.code == 1
        assert r"gone\x1b[2J\x9b[red]x[/]" in result.err
        assert not acts(result.err + result.out)


def test_a_model_name_in_an_ecdc_file(run: Run, mono_model: Path, speech: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.ecdc"
    assert run("encode", speech, good, "-m", mono_model).code == 0
    data = good.read_bytes()
    name = mono_model.name.encode()
    assert data.count(name) == 1
    head, length = data.index(b"{") - 4, int.from_bytes(data[data.index(b"{") - 4 : data.index(b"{")], "big")
    evil = json.dumps("x\x1b]0;owned\x07\x9b[red]y[/]").encode()[1:-1]
    bad = tmp_path / "bad.ecdc"
    grown = (length + len(evil) - len(name)).to_bytes(4, "big")
    bad.write_bytes(data[:head] + grown + data[head + 4 :].replace(name, evil))
    for arguments in (("info", bad), ("info", bad, "--json"), ("decode", bad, tmp_path / "a.wav")):
        result = run(*arguments)
        assert r"owned" in result.out + result.err
        assert not acts(result.out + result.err)


def test_file_names(run: Run, mono_model: Path, speech: Path, tmp_path: Path) -> None:
    """From a folder of somebody else's, by the shell's `*`."""
    name = "\x1b[2J[red]x\u202e.wav"
    for arguments in (
        ("encode", tmp_path / name, tmp_path / "a.ecdc", "-m", mono_model),
        ("info", tmp_path / name),
        ("stream", tmp_path / name, tmp_path / "a.wav", "-m", tmp_path / name),
        ("send", tmp_path / name),
        ("listen", tmp_path / "\x1b.nonsense"),
        ("talk", "r", "--clip", tmp_path / name, "--record", tmp_path / "a.wav"),
        ("serve", "--key", tmp_path / name),
        ("send", speech, "-m", mono_model, "--token", f"@{tmp_path / name}"),
        ("\x1b[2Jnonsense",),
        ("send", "a.wav", "--\x1b[2J"),
        ("--\x1b[2J",),
    ):
        result = run(*arguments)
        assert result.code in (1, 2), arguments
        assert r"\x1b" in result.err
        assert not acts(result.err + result.out), arguments
    soundfile.write(tmp_path / name, np.zeros(4800), 24_000)
    for options in ((), ("--json",)):
        result = run("info", tmp_path / name, *options)
        assert result.code == 0
        assert not acts(result.err + result.out)


def test_fields_of_a_configuration(run: Run, mono_model: Path, speech: Path, tmp_path: Path) -> None:
    fields = json.loads((mono_model / "config.json").read_text())
    for name, value in (
        ("pad_mode", EVIL),
        ("norm_type", EVIL),
        ("model_type", EVIL),
        (EVIL, 1),
        ("audio_channels", EVIL),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(fields | {name: value}))
        for arguments in (("info", folder), ("encode", speech, tmp_path / "a.ecdc", "-m", folder)):
            result = run(*arguments)
            assert not acts(result.err + result.out)
