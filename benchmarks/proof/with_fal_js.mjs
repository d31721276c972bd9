// The sheet through @fal-ai/client, as its README uses it: `fal.subscribe`, many at once in a p-queue.
//
// Rows that have their video are left out, so the script is started again for what is missing. It runs in the folder of
// the sheet.

import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { fal } from "@fal-ai/client";
import PQueue from "p-queue";

const { PROOF_URL, PROOF_ENDPOINT, PROOF_AT_ONCE } = process.env;

// The address of the queue on this machine. Nothing else of the client is touched.
fal.config({
  requestMiddleware: async (request) => ({
    ...request,
    url: request.url.replace(/^https:\/\/[a-z0-9.]+/, PROOF_URL),
  }),
});

const videoOf = (row) => `videos/${row.id}.mp4`;

// No cell of this sheet holds a comma or a quote.
const [header, ...lines] = readFileSync("proof.csv", "utf8").trim().split(/\r?\n/).map((line) => line.split(","));
const rows = lines
  .map((cells) => Object.fromEntries(header.map((name, index) => [name, cells[index]])))
  .filter((row) => !existsSync(videoOf(row)));
mkdirSync("videos", { recursive: true });

const urls = {};
for (const picture of new Set(rows.map((row) => row.image_url))) {
  urls[picture] = await fal.storage.upload(new File([readFileSync(picture)], picture, { type: "image/jpeg" }));
}

const queue = new PQueue({ concurrency: Number(PROOF_AT_ONCE) });
const errors = [];

// A download costs nothing, so a careful user tries it again.
async function downloaded(url) {
  for (let triesLeft = 2; ; triesLeft--) {
    try {
      const answer = await fetch(url);
      if (!answer.ok) {
        throw new Error(`${answer.status} at the download`);
      }
      return Buffer.from(await answer.arrayBuffer());
    } catch (error) {
      if (triesLeft === 0) {
        throw error;
      }
      await setTimeout(1000);
    }
  }
}

async function make(row) {
  const { data } = await fal.subscribe(PROOF_ENDPOINT, {
    input: {
      prompt: row.prompt,
      image_url: urls[row.image_url],
      resolution: row.resolution,
      duration: row.duration,
    },
  });
  const content = await downloaded(data.video.url);
  const part = videoOf(row).replace(".mp4", ".part");
  writeFileSync(part, content);
  renameSync(part, videoOf(row));
}

for (const row of rows) {
  queue.add(() => make(row)).catch((error) => errors.push([row.id, error]));
}
await queue.onIdle();
for (const [id, error] of errors) {
  console.error(`${id}: ${error}`);
}
process.exit(errors.length > 0 ? 1 : 0);
