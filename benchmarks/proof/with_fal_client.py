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
    with open("proof.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not video_of(row).exists()]
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
                answer = await http.get(result["video"]["url"])
                answer.raise_for_status()
                part = video_of(row).with_suffix(".part")
                part.write_bytes(answer.content)
                part.rename(video_of(row))

        endings = await asyncio.gather(*(make(row) for row in rows), return_exceptions=True)
    errors = {row["id"]: ending for row, ending in zip(rows, endings, strict=True) if ending is not None}
    for row_id, error in errors.items():
        print(f"{row_id}: {error!r}", file=sys.stderr)
    return 1 if errors else 0


def video_of(row: dict[str, str]) -> Path:
    return Path("videos", f"{row['id']}.mp4")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
