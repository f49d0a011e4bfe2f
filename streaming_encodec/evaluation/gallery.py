"""A listening gallery: clips beside their versions by the codec and by Opus, as sound files with two pages of links."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile

from streaming_encodec.audio.files.atomic import not_written, write_by, write_text
from streaming_encodec.errors import FileFormatError, StreamError
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.opus import OPUS_RATES, Opus
from streaming_encodec.evaluation.packet_loss import BURST_MS, bursty_loss
from streaming_encodec.evaluation.received import receive_set
from streaming_encodec.evaluation.streamed import encode_set
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.types import Pcm

TRANSPORT_KBPS = 48.0
"""Bitrate of the gallery's Ogg Opus files: near transparent, and every current browser plays them."""

OPUS_KBPS = (6.0, 9.0)
LOSS = 0.10
_LOSS_KBPS = 6.0


@dataclass(frozen=True)
class Take:
    """A version of a clip: ``key`` ends its file's name, ``title`` heads its column."""

    key: str
    title: str
    sounds: list[Pcm]


def make_gallery(
    model: EncodecModel,
    name: str,
    clips: Sequence[Clip],
    folder: Path,
    out: Path,
    *,
    seed: int = 0,
    burst_ms: float = BURST_MS,
    on_take: Callable[[str], None] | None = None,
) -> Path:
    """Write a sound file for each clip and version into ``out``, a page ``index.html`` there, and ``out.md`` beside it.

    ``clips`` lie in ``folder``; the pages link to them as the originals. Returns the Markdown page.

    Raises:
        FileFormatError: two clips have the same file name, or something can't be written.
        StreamError: Opus doesn't support the model's sample rate.
        MissingExtraError: no libopus.
    """
    stems = [Path(clip.name).stem for clip in clips]
    if len(set(stems)) < len(stems):
        raise FileFormatError("two clips have the same file name; rename one, or list others in manifest.jsonl")
    if model.config.sampling_rate not in OPUS_RATES:
        raise StreamError(f"the gallery compares with Opus, which has no {model.config.sampling_rate} Hz")
    opus = Opus()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(out, error) from error
    originals = {clip.name: _link(folder / clip.name, out) for clip in clips}
    links: list[tuple[str, dict[str, str]]] = [("original", originals)]
    for take in _takes(model, clips, opus, seed, burst_ms):
        files = {clip.name: f"{stem}-{take.key}.ogg" for clip, stem in zip(clips, stems, strict=True)}
        for clip, sound in zip(clips, take.sounds, strict=True):
            write_ogg_opus(out / files[clip.name], sound, clip.sample_rate, TRANSPORT_KBPS)
        links.append((take.title, files))
        if on_take is not None:
            on_take(take.title)
    write_text(out / "index.html", _web_page(name, clips, links))
    page = out.with_suffix(".md")
    command = shlex.join(["streaming-encodec", "evaluate", folder.as_posix(), "--gallery", out.as_posix()])
    write_text(page, _markdown(name, clips, links, out, command, burst_ms))
    return page


def write_ogg_opus(path: Path, samples: Pcm, sample_rate: int, kbps: float) -> None:
    """[T] → an Ogg Opus file at about ``kbps``. Raises FileFormatError if it can't be written."""
    # libsndfile's scale: 0 is 256 kbps a channel, 1 is 6.
    level = 1.0 - (kbps - 6.0) / 250.0
    write_by(
        path,
        lambda temporary: soundfile.write(
            temporary, np.clip(samples, -1.0, 1.0), sample_rate, format="OGG", subtype="OPUS", compression_level=level
        ),
    )


def _takes(model: EncodecModel, clips: Sequence[Clip], opus: Opus, seed: int, burst_ms: float) -> Iterator[Take]:
    config = model.config
    lossy = min(config.target_bandwidths, key=lambda kbps: abs(kbps - _LOSS_KBPS))
    holed: list[Take] = []
    for kbps in config.target_bandwidths:
        coded = encode_set(model, clips, kbps)
        yield Take(f"{kbps:g}kbps", f"{kbps:g} kbps", coded.decode(model))
        if kbps == lossy:
            seeds = np.random.SeedSequence(seed).generate_state(len(clips))
            lost = [
                bursty_loss(frames, config.frame_ms, LOSS, int(own), burst_ms)
                for frames, own in zip(coded.frames, seeds, strict=True)
            ]
            title = f"{kbps:g} kbps, {LOSS:.0%} lost".replace("%", " %")
            holed.append(Take(f"{kbps:g}kbps-{100 * LOSS:g}lost", title, receive_set(model, coded, lost)))
    yield from holed
    for kbps in OPUS_KBPS:
        sounds = [opus.decode(opus.encode(clip.samples, clip.sample_rate, kbps)) for clip in clips]
        yield Take(f"opus-{kbps:g}kbps", f"Opus {kbps:g} kbps", sounds)


def _link(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()


def _about(clip: Clip) -> str:
    return clip.speaker or Path(clip.name).stem


def _credit(clip: Clip) -> str:
    return ", ".join(part for part in (clip.source, clip.licence) if part) or "no source given"


_MARKDOWN = """\
# Listen to {name}

{count} voices through the codec and through Opus. Each link is a short sound file.
For a page with play buttons, open [{folder}/index.html]({folder_link}/index.html) of a checkout in a browser.

{table}

- All of the codec's files went through the streaming path. Lost packets hold one frame each, in bursts of
  {burst_ms:g} ms on average; the receiver of a call conceals them, without redundancy.
- Opus is libopus in voice mode, complexity 10, variable rate.
- The files are Ogg Opus at {transport_kbps:g} kbps: near transparent, and far above the rates that are compared.
  Every current browser plays them (Safari since version 18.4). Levels are unchanged.
- Use headphones. For a blind comparison: `streaming-encodec evaluate FOLDER --listen pairs.html`.

The voices:

{credits}

To make this page again after a change of the weights:

```
{command}
```
"""


def _markdown(
    name: str,
    clips: Sequence[Clip],
    links: Sequence[tuple[str, dict[str, str]]],
    out: Path,
    command: str,
    burst_ms: float,
) -> str:
    heads = ["voice", *(title for title, _ in links)]
    rows = [
        [_about(clip), *(f"[▶]({quote(f'{out.name}/{files[clip.name]}')})" for _, files in links)] for clip in clips
    ]
    return _MARKDOWN.format(
        name=name,
        count=len(clips),
        folder=out.name,
        folder_link=quote(out.name),
        table="\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)),
        burst_ms=burst_ms,
        transport_kbps=TRANSPORT_KBPS,
        credits="\n".join(f"- {_about(clip)}: {_credit(clip)}" for clip in clips),
        command=command,
    )


_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 500; padding-right: 1rem; white-space: nowrap; }
td { width: 99%; }
audio { width: 100%; height: 2.5rem; }
small { opacity: .75; }
"""


_WEB_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Listen to {name}</title>
<style>{style}</style>
<h1>Listen to {name}</h1>
<p>Voices at a few kbps beside Opus, carried here as Ogg Opus at {transport_kbps:g} kbps.</p>
{voices}
<script>
// Starting one stops the others.
const all = [...document.querySelectorAll("audio")];
for (const one of all) one.addEventListener("play", () => all.forEach(other => other === one || other.pause()));
</script>
</html>
"""

_VOICE = """\
<h2>{about}</h2>
<p><small>{credit}</small></p>
<table>
{rows}
</table>"""

_ROW = (
    '<tr><th scope="row">{title}</th>'
    '<td><audio controls preload="none" src="{link}" aria-label="{about}, {title}"></audio></td></tr>'
)


def _web_page(name: str, clips: Sequence[Clip], links: Sequence[tuple[str, dict[str, str]]]) -> str:
    voices = []
    for clip in clips:
        about = escape(_about(clip))
        rows = [_ROW.format(title=escape(t), link=quote(files[clip.name]), about=about) for t, files in links]
        voices.append(_VOICE.format(about=about, credit=escape(_credit(clip)), rows="\n".join(rows)))
    return _WEB_PAGE.format(name=escape(name), style=_STYLE, transport_kbps=TRANSPORT_KBPS, voices="\n".join(voices))
