"""The picture in the README, made from what `make demo` left: first, middle and last frame of some of its videos.

Run as `make picture`. Each line is a video; its name and the prompt come from the sidecar beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
VIDEOS = ROOT / "state" / "local" / "outputs" / "demo"
PICTURE = ROOT / "docs" / "demo.jpg"

SHOWN = ("rocket", "coffee", "galaxies", "astronaut")
FRAME_PX = (256, 144)
GAP_PX, CAPTION_PX = 8, 22


def sidecar_of(video: Path) -> Path:
    """The JSON beside it that says where it came from."""
    return video.with_name(video.name + ".json")


def frames_of(video: Path) -> list[Image.Image]:
    """The first, the middle and the last frame, cut to one shape."""
    with av.open(str(video)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    return [_cut(frames[place]) for place in (0, len(frames) // 2, -1)]


def _cut(image: Image.Image) -> Image.Image:
    width, height = FRAME_PX
    scale = max(width / image.width, height / image.height)
    image = image.resize((round(image.width * scale), round(image.height * scale)))
    left, top = (image.width - width) // 2, (image.height - height) // 4
    return image.crop((left, top, left + width, top + height))


def picture(videos: list[Path]) -> Image.Image:
    """A line of three frames for each video, its name and prompt above."""
    width, height = FRAME_PX
    step = height + CAPTION_PX + GAP_PX
    sheet = Image.new("RGB", (3 * width + 4 * GAP_PX, len(videos) * step + GAP_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for line, video in enumerate(videos):
        top = GAP_PX + line * step
        prompt = json.loads(sidecar_of(video).read_text(encoding="utf-8"))["input"]["prompt"]
        draw.text((GAP_PX, top + 2), f"{video.name}   {prompt}"[:110], fill="black", font=font)
        for column, frame in enumerate(frames_of(video)):
            sheet.paste(frame, (GAP_PX + column * (width + GAP_PX), top + CAPTION_PX))
    return sheet


if __name__ == "__main__":
    videos = [VIDEOS / f"{name}.mp4" for name in SHOWN]
    if not all(video.is_file() for video in videos):
        sys.exit(f"{VIDEOS} has not all of {', '.join(SHOWN)}; run `make demo` first")
    picture(videos).save(PICTURE, quality=85, optimize=True)
    sys.stdout.write(f"{PICTURE.relative_to(ROOT)}\n")
