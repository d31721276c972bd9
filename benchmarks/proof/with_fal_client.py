"""The sheet through fal-client, as its README uses it: `subscribe`, many at once under a semaphore.

Rows that have their video are left out, so the script is started again for what is missing. It runs in the folder of
the sheet and imports nothing of the project.
"""

from __future__ import annotations

import asyncio
import csv
import os
import sys
from pathlib import Path

import fal_client
import fal_client.client
import httpx

ENDPOINT = os.environ["PROOF_ENDPOINT"]
AT_ONCE = int(os.environ["PROOF_AT_ONCE"])

# The address of the queue on this machine. Nothing else of the client is touched.
for name in ("QUEUE_URL_FORMAT", "RUN_URL_FORMAT"):
    setattr(fal_client.client, name, os.environ["PROOF_URL"] + "/")
for name in ("REST_URL", "CDN_URL"):
    setattr(fal_client.client, name, os.environ["PROOF_URL"])


async def main() -> int:
    lines = Path("proof.csv").read_text(encoding="utf-8").splitlines()
    rows = [row for row in csv.DictReader(lines) if not video_of(row).exists()]
    Path("videos").mkdir(exist_ok=True)
    pictures = {row["image_url"] for row in rows}
    urls = {picture: await fal_client.upload_file_async(Path(picture)) for picture in sorted(pictures)}
    limit = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient() as http:

        async def make(row: dict[str, str]) -> None:
            async with limit:
                result = await fal_client.subscribe_async(
                    ENDPOINT,
                    arguments={
                        "prompt": row["prompt"],
                        "image_url": urls[row["image_url"]],
                        "resolution": row["resolution"],
                        "duration": row["duration"],
                    },
                )
                content = await downloaded(http, result["video"]["url"])
                part = video_of(row).with_suffix(".part")
                part.write_bytes(content)
                part.rename(video_of(row))

        endings = await asyncio.gather(*(make(row) for row in rows), return_exceptions=True)
    errors = {row["id"]: ending for row, ending in zip(rows, endings, strict=True) if ending is not None}
    for row_id, error in errors.items():
        print(f"{row_id}: {error!r}", file=sys.stderr)
    return 1 if errors else 0


async def downloaded(http: httpx.AsyncClient, url: str) -> bytes:
    """The file; a download costs nothing, so a careful user tries it again."""
    for tries_left in (2, 1, 0):
        try:
            answer = await http.get(url)
            answer.raise_for_status()
            return answer.content
        except httpx.HTTPError:
            if not tries_left:
                raise
            await asyncio.sleep(1)
    raise AssertionError


def video_of(row: dict[str, str]) -> Path:
    return Path("videos", f"{row['id']}.mp4")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
