"""Draw architecture.svg: the rooms that sound passes from a microphone to a speaker, and the thread each runs in.

Run: python docs/draw_architecture.py
"""

from pathlib import Path

WIDTH, HEIGHT, BOX_WIDTH, BOX_HEIGHT, PITCH, LEFT = 1330, 350, 116, 78, 144, 38
INK, PALE = "#1f2933", "#52606d"
THREADS = (
    ("PortAudio process", 0, 1, "#e4e7eb"),
    ("thread of the live loop", 1, 6, "#d7efe9"),
    ("thread of the event loop", 6, 8, "#fbe9c8"),
    ("relay", 8, 9, "#f8d6d3"),
)
SENDING = (
    ("audio/", "microphone's", "ring buffer"),
    ("live/", "loop", ""),
    ("call/", "outgoing: VAD,", "rate control"),
    ("streaming/", "encode, in", "engines/"),
    ("voice/", "sender: packets,", "redundancy"),
    ("wire/", "serialize", ""),
    ("client/", "link", ""),
    ("transport/", "queue of 0.4 s", ""),
)
RECEIVING = (
    ("audio/", "speaker's", "ring buffer"),
    ("live/", "loop, feedback", "suppressor"),
    ("call/", "incoming, mixer", ""),
    ("streaming/", "decode, in", "engines/"),
    ("voice/", "receiver: jitter", "buffer, playout"),
    ("wire/", "parse", ""),
    ("client/", "link", ""),
    ("transport/", "", ""),
)


def text(x: float, y: float, words: str, size: int = 13, colour: str = INK, weight: int = 400) -> str:
    style = f'font-size="{size}" text-anchor="middle" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x}" y="{y}" {style}>{words}</text>'


def box(column: int, y: float, lines: tuple[str, str, str], height: float = BOX_HEIGHT) -> list[str]:
    x = LEFT + column * PITCH
    room, *details = lines
    parts = [f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{height}" rx="5" fill="white" stroke="{INK}"/>']
    middle, top = x + BOX_WIDTH / 2, y + (height - BOX_HEIGHT) / 2
    parts.append(text(middle, top + 25, room, size=15, weight=700))
    return parts + [text(middle, top + 45 + 17 * number, line, colour=PALE) for number, line in enumerate(details)]


def arrow(column: int, y: float, forward: bool) -> str:
    """Between this column and the next; forward is to the right."""
    left, right = LEFT + column * PITCH + BOX_WIDTH + 3, LEFT + (column + 1) * PITCH - 3
    begin, end, barb = (left, right, -7) if forward else (right, left, 7)
    path = f"M{begin},{y} H{end} m{barb},-5 L{end},{y} l{barb},5"
    return f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.6"/>'


def picture() -> str:
    upper, lower = 106, 210
    parts = [text(LEFT + BOX_WIDTH / 2, 84, "microphone", 15), text(LEFT + BOX_WIDTH / 2, 314, "speaker", 15)]
    bands = []
    for name, first, last, colour in THREADS:
        x, width = LEFT + first * PITCH - 12, (last - first) * PITCH - 4
        bands.append(f'<rect x="{x}" y="20" width="{width}" height="310" rx="8" fill="{colour}"/>')
        bands.append(text(x + width / 2, 46, name, size=14, weight=700))
    for y, rooms, forward in ((upper, SENDING, True), (lower, RECEIVING, False)):
        for column, lines in enumerate(rooms):
            parts += box(column, y, lines)
            parts.append(arrow(column, y + BOX_HEIGHT / 2, forward))
    parts += box(8, upper, ("relay/", "rooms; fan-out", "over bus/"), lower + BOX_HEIGHT - upper)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" role="img" aria-label="The way of sound from microphone to speaker">'
    )
    body = [head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *bands, *parts, "</svg>"]
    return "\n".join(body) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("architecture.svg").write_text(picture(), encoding="utf-8")
