"""Draw streaming.svg: what a convolution and a transposed convolution carry from block to block.

Run: python docs/draw_streaming.py
"""

from pathlib import Path

CELL, GAP = 46, 4
PITCH = CELL + GAP
INK, PALE = "#1f2933", "#7b8794"
OLD, NEW, OUT, CARRY = "#cbd2d9", "#9fd3c7", "#f7d59c", "#f2a6a0"


class Canvas:
    """A list of SVG elements."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def cell(self, x: float, y: float, colour: str, text: str = "", dashed: bool = False) -> None:
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        size = f'width="{CELL}" height="{CELL}" rx="4"'
        self.parts.append(f'<rect x="{x}" y="{y}" {size} fill="{colour}" stroke="{INK}"{dash}/>')
        if text:
            self.text(x + CELL / 2, y + CELL / 2 + 5, text, anchor="middle", size=14)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "start",
        size: int = 15,
        colour: str = INK,
        weight: int = 400,
    ) -> None:
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
            f'font-weight="{weight}">{text}</text>'
        )

    def fan(self, x: float, y: float, left: float, right: float, to_y: float, colour: str) -> None:
        """A triangle from a point to a span: what one output sees, or one input paints."""
        self.parts.append(
            f'<polygon points="{x},{y} {left},{to_y} {right},{to_y}" fill="{colour}" fill-opacity="0.28" '
            f'stroke="{PALE}" stroke-width="1"/>'
        )

    def brace(self, left: float, right: float, y: float, text: str, down: bool = True) -> None:
        step = 7 if down else -7
        self.parts.append(
            f'<path d="M{left},{y} v{step} H{right} v{-step}" fill="none" stroke="{INK}" stroke-width="1.4"/>'
        )
        self.text((left + right) / 2, y + (24 if down else -13), text, anchor="middle", size=14)


def conv(canvas: Canvas, x0: float, y0: float) -> None:
    """Kernel 5, stride 2: three samples of history, four new ones, two outputs."""
    canvas.text(x0, y0, "Convolution: remember the last inputs", size=18, weight=700)
    canvas.text(x0, y0 + 24, "kernel 5, stride 2: history = (k − 1) · dilation + 1 − stride = 3", colour=PALE)
    top, bottom = y0 + 84, y0 + 224
    for number, name in enumerate(("a", "b", "c")):
        canvas.cell(x0 + number * PITCH, bottom, OLD, name)
    for number, name in enumerate(("d", "e", "f", "g")):
        canvas.cell(x0 + (3 + number) * PITCH, bottom, NEW, name)
    for number in range(2):
        left = x0 + 2 * number * PITCH
        middle = left + 4 * PITCH + CELL / 2
        canvas.fan(middle, top + CELL, left, left + 5 * PITCH - GAP, bottom, OUT)
        canvas.cell(middle - CELL / 2, top, OUT, f"y{number + 1}")
    canvas.brace(x0, x0 + 3 * PITCH - GAP, bottom + CELL + 6, "history (state)")
    canvas.brace(x0 + 3 * PITCH, x0 + 7 * PITCH - GAP, bottom + CELL + 6, "this block")
    canvas.brace(x0 + 4 * PITCH, x0 + 7 * PITCH - GAP, bottom + CELL + 48, "e f g: history of the next block")
    canvas.text(x0 + 7 * PITCH + 14, top + CELL / 2 + 5, "outputs, final", size=14)
    canvas.text(x0 + 7 * PITCH + 14, bottom + CELL / 2 + 5, "inputs", size=14)


def transposed(canvas: Canvas, x0: float, y0: float) -> None:
    """Kernel 4, stride 2: each input paints four outputs, two of which the next input paints too."""
    canvas.text(x0, y0, "Transposed convolution: remember unfinished outputs", size=18, weight=700)
    canvas.text(x0, y0 + 24, "kernel 4, stride 2: overlap = k − stride = 2, kept without the bias", colour=PALE)
    top, bottom = y0 + 84, y0 + 224
    for number, name in enumerate(("p", "q", "r")):
        left = x0 + 2 * number * PITCH
        middle = left + 2 * PITCH - GAP / 2
        canvas.fan(middle, top + CELL, left, left + 4 * PITCH - GAP, bottom, OLD if number == 0 else NEW)
        canvas.cell(middle - CELL / 2, top, OLD if number == 0 else NEW, name, dashed=number == 0)
    colours = [OUT] * 2 + [OUT] * 4 + [CARRY] * 2
    for number, colour in enumerate(colours):
        canvas.cell(x0 + number * PITCH, bottom, colour, "" if number > 1 else "·", dashed=number < 2)
    canvas.brace(x0, x0 + 2 * PITCH - GAP, bottom + CELL + 6, "out before")
    canvas.brace(x0 + 2 * PITCH, x0 + 6 * PITCH - GAP, bottom + CELL + 6, "final now: add the bias")
    canvas.brace(x0 + 6 * PITCH, x0 + 8 * PITCH - GAP, bottom + CELL + 6, "overlap")
    canvas.text(x0 + 7 * PITCH - GAP / 2, bottom + CELL + 48, "waits in the state", anchor="middle", size=14)
    canvas.text(x0 + 7 * PITCH - GAP / 2, bottom + CELL + 66, "for the next input", anchor="middle", size=14)
    canvas.text(x0 + 8 * PITCH + 10, top + CELL / 2 + 5, "inputs: q, r are this block", size=14)
    canvas.text(x0 + 8 * PITCH + 10, bottom + CELL / 2 + 5, "outputs", size=14)


def picture() -> str:
    canvas = Canvas()
    conv(canvas, 30, 40)
    transposed(canvas, 600, 40)
    body = "\n".join(canvas.parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1220 410" width="1220" height="410" '
        'font-family="system-ui, sans-serif" role="img" aria-label="State of a convolution and '
        'of a transposed convolution between blocks">\n<rect width="1220" height="410" fill="white"/>\n'
        + body
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("streaming.svg").write_text(picture(), encoding="utf-8")
