"""The links that `serve` and `token --link` print, and what the links lead to."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import segno
from typer import BadParameter
from typer.testing import CliRunner

from streaming_encodec.cli.app import app
from streaming_encodec.cli.shared.web_link import own_link, page_link, qr_code


@pytest.mark.parametrize("tls", [False, True])
def test_serve_prints_the_link_to_its_page(tls: bool) -> None:
    options = ["--tls-self-signed"] if tls else []
    start = "from streaming_encodec.cli.app import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", start, "serve", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        assert re.fullmatch(rf"http{'s' if tls else ''}://localhost:\d+/", link)
        context = ssl._create_unverified_context() if tls else None
        with urllib.request.urlopen(link, timeout=30, context=context) as page:
            assert b"<!doctype html>" in page.read()
    finally:
        process.kill()
        process.communicate()


def test_token_prints_a_link_with_the_token_in_the_fragment(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert run(app, ["token", "--new-key", str(tmp_path / "key")]).exit_code == 0
    made = run(app, ["token", "Tee & Küche", "--key", str(tmp_path / "key"), "--link", "wss://call.example:8765/x/"])
    assert re.fullmatch(
        r"https://call\.example:8765/x/r/Tee%20%26%20K%C3%BCche#token=[\w-]+\.[\w-]+\.[\w-]+\n", made.stdout
    )
    assert run(app, ["token", "a", "--key", str(tmp_path / "key"), "--link", "call.example"]).exit_code == 2


@pytest.mark.parametrize("url", ["", "ftp://a", "https://", "https://a:b", "https://[", "a.example"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadParameter, match="write https://HOST"):
        page_link(url)


def test_the_relays_own_link_names_an_address_that_others_can_reach() -> None:
    assert own_link("127.0.0.1", 1, tls=False) == own_link("::1", 1, tls=False) == "http://localhost:1/"
    assert own_link("fe80::1", 1, tls=True) == "https://[fe80::1]:1/"
    assert "0.0.0.0" not in own_link("0.0.0.0", 1, tls=True)


def test_the_qr_code_has_the_modules_of_the_link() -> None:
    link = "https://192.0.2.7:8765/r/tea"
    size = segno.make(link, error="l", micro=False).symbol_size(border=4)[1]
    lines = qr_code(link).splitlines()
    assert len(lines) == pytest.approx(size / 2, abs=1)
    assert json.dumps(lines).count("\\u258") > 50


def test_options_that_do_not_go_together() -> None:
    result = CliRunner().invoke(app, ["serve", "--tls-self-signed", "--tls-cert", "a", "--tls-key", "b"])
    assert result.exit_code == 2
