"""The picture of the gallery in the README, made from what `make demo` left, in a browser as a person sees it.

Run as `make picture`. The pointer rests on a video, which plays, and three are picked.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser_support import chromium, opened_page

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "gallery.jpg"
SIZE_PX = (1280, 800)


def taken(page_file: Path) -> Image.Image:
    """The page with picks, a video playing under the pointer."""
    with tempfile.TemporaryDirectory() as folder, opened_page(Path(folder) / "browser") as page:
        page.look(*SIZE_PX, prefers_color_scheme="dark")
        page.open(page_file)
        page.key("Home", "1", "j", "j", "3", "ArrowDown", "2", "ArrowUp", "ArrowRight")
        page.js("scrollTo(0, 0)")
        page.hover(".card:nth-child(4) .media")
        page.wait("document.querySelector('video')?.currentTime > 1")
        page.wait("[...document.querySelectorAll('.card img')].slice(0, 8).every((one) => one.naturalWidth > 0)")
        shot = Path(folder) / "shot.png"
        page.picture(shot)
        return Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")


if __name__ == "__main__":
    if chromium() is None:
        sys.exit(
            f"{PICTURE.relative_to(ROOT)} is not made again: there is no Chromium here (Debian: apt install chromium)"
        )
    command = [sys.executable, "-m", "batch", "gallery", "manifests/demo.yaml", "--local"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    taken(ROOT / said.partition(": ")[0]).save(PICTURE, quality=82, optimize=True, progressive=True)
    sys.stdout.write(f"{PICTURE.relative_to(ROOT)}\n")
