"""Links, file names, figures and commands of README and docs are what they say."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer

import streaming_encodec
from streaming_encodec.cli.app import COMMANDS, app

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "streaming_encodec"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(PACKAGE / "assets").rglob("*.md")])
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ENDINGS = "py md c json txt toml svg html mjs cff".replace(" ", "|")
_FILE = re.compile(rf"`((?:[\w.-]+/)+[\w.-]+\.(?:{_ENDINGS})|(?:streaming_encodec|tests|docs)/(?:[\w-]+/)*)`")
_MODULE = re.compile(r"\bpython -m (streaming_encodec[\w.]+)")
_COMMAND_LINE = re.compile(r"\bstreaming-encodec ([a-z]+ ?[^`\n|#;&<>]*)")
_FENCE = re.compile(r"^(```\w*)( [^\n]*)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: {link}"
        assert not anchor or anchor in anchors(target), f"{name(page)}: {link}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_every_file_and_module_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file in _FILE.findall(text):
        if "NAME" in file or "bridge" in file:  # what a contributor adds
            continue
        assert any((folder / file).exists() for folder in (ROOT, PACKAGE, page.parent)), f"{name(page)}: {file}"
    for module in _MODULE.findall(text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists(), f"{name(page)}: {module}"


def test_the_reference_is_current_and_holds_every_exported_name() -> None:
    run = [sys.executable, "-c", "import write_api; print(write_api.page(), end='')"]
    made = subprocess.run(run, cwd=ROOT / "docs", capture_output=True, text=True, check=True, timeout=120).stdout
    assert made == (ROOT / "docs/api.md").read_text(encoding="utf-8"), "run: python docs/write_api.py"
    for exported in streaming_encodec.__all__:
        assert exported.startswith("_") or f"\n### {exported}\n" in made, exported


def test_the_readme_links_every_page() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert f"({name(page)})" in readme(), name(page)


@pytest.mark.parametrize("drawn", ["architecture", "streaming"])
def test_pictures_are_what_their_scripts_draw(drawn: str) -> None:
    run = [sys.executable, "-c", f"import draw_{drawn} as script; print(script.picture(), end='')"]
    made = subprocess.run(run, cwd=ROOT / "docs", capture_output=True, text=True, check=True, timeout=120).stdout
    assert made == (ROOT / f"docs/{drawn}.svg").read_text(encoding="utf-8"), f"run: python docs/draw_{drawn}.py"


def test_the_architecture_names_every_room() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for room in PACKAGE.iterdir():
        if (room / "__init__.py").exists():
            assert f"`{room.name}/`" in text, room.name


def test_every_command_is_listed() -> None:
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"`{command.name}" in text, command.name


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_every_command_line_has_a_command_with_these_options(page: Path) -> None:
    root = typer.main.get_command(app)
    for line in _COMMAND_LINE.findall(page.read_text(encoding="utf-8")):
        command, words = root, line.split()
        while hasattr(command, "resolve_command") and words and re.fullmatch(r"[a-z]+", words[0]):
            context = command.make_context("streaming-encodec", [], resilient_parsing=True)
            _, command, _ = command.resolve_command(context, [words.pop(0)])
            assert command is not None, f"{name(page)}: {line}"
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= known | {"--help"}, f"{name(page)}: {line}"


def test_the_readmes_figures_stand_in_the_pages_that_it_names() -> None:
    rows = re.findall(r"^\|.*\*\*(.+?)\*\*.*\[docs/\w+\.md\]\((docs/\w+\.md)\).*$", readme(), re.MULTILINE)
    assert len(rows) == 3
    for figure, page in rows:
        number = figure.removesuffix(" ms")
        assert number in (ROOT / page).read_text(encoding="utf-8"), f"{figure} in {page}"


def test_the_readmes_program_runs(tmp_path: Path) -> None:
    indented = re.search(r"^   ```python\n(.*?)^   ```", readme(), re.MULTILINE | re.DOTALL)
    assert indented
    program = textwrap.dedent(indented[1])
    program = program.replace("facebook/encodec_24khz", "voice-24khz")  # which needs no network
    sound, rate = soundfile.read(PACKAGE / "assets/speech.flac", dtype="float32")
    soundfile.write(tmp_path / "speech.wav", sound[:rate], rate)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)
    heard, heard_rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert heard_rate == rate
    assert len(heard) >= rate
    assert np.abs(heard).max() > 0.05


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")
