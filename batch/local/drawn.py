"""A made picture, for endpoints that start from words alone: soft colours, and the prompt written on it.

Imports Pillow, so it is imported late; of the project nothing.
"""

from __future__ import annotations

import random

from PIL import Image, ImageDraw, ImageFont

__all__ = ["drawn"]

TEXT_SHARE = 0.6  # of the width and height: what stays in view of every camera move
FONT_SHARE, FONT_MIN = 1 / 9, 12
LINE_HEIGHT = 1.25
CHARACTERS_MAX = 600


def drawn(prompt: str, seed: int, width: int, height: int) -> Image.Image:
    """The picture in RGB. Prompt and seed choose its colours."""
    chance = random.Random(f"{seed} {prompt}")
    hue = chance.randrange(256)
    corners = Image.new("HSV", (4, 3))
    # Neighbouring hues, neither bright nor pale: white letters are read anywhere on them.
    corners.putdata(
        [
            ((hue + chance.randrange(-28, 29)) % 256, chance.randrange(90, 170), chance.randrange(50, 170))
            for _ in range(12)
        ]
    )
    image = corners.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    if text := " ".join(prompt.split())[:CHARACTERS_MAX]:
        _write(image, text)
    return image


def _write(image: Image.Image, text: str) -> None:
    width, height = image.width * TEXT_SHARE, image.height * TEXT_SHARE
    size = max(FONT_MIN, min(image.width, image.height) * FONT_SHARE)
    lines = _lines(text, _font(size), width)
    while size > FONT_MIN and (len(lines) * size * LINE_HEIGHT > height or _widest(lines, _font(size)) > width):
        size = max(FONT_MIN, size * 0.85)
        lines = _lines(text, _font(size), width)
    fitting = max(1, int(height / (size * LINE_HEIGHT)))
    if len(lines) > fitting:
        lines = [*lines[: fitting - 1], lines[fitting - 1] + " …"]
    pen, font = ImageDraw.Draw(image), _font(size)
    top = (image.height - len(lines) * size * LINE_HEIGHT) / 2
    for number, line in enumerate(lines):
        middle = (image.width / 2, top + (number + 0.5) * size * LINE_HEIGHT)
        pen.text(middle, line, "white", font, "mm", stroke_width=max(1, round(size / 16)), stroke_fill="#202020")


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(round(size))


def _widest(lines: list[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> float:
    return max(font.getlength(line) for line in lines)


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """The text broken into lines at its spaces; a word longer than a line, or text without spaces, anywhere."""
    lines: list[str] = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
