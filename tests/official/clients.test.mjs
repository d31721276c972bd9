// fal's own JavaScript client, unchanged, against `fal-batch serve`: every call of it.
//
// QUEUE is the base URL of a queue at work, STUCK that of one where nothing ever starts, PICTURE a photograph. All tests
// of the suite run at the same time: they mostly wait.

import assert from "node:assert/strict";
import { createHash, createPublicKey, verify } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { suite, test } from "node:test";
import { ApiError, ValidationError, createFalClient } from "@fal-ai/client";

const { QUEUE, STUCK, PICTURE } = process.env;
const ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video";
const UNKNOWN = "019e55e3-1111-7000-8000-000000000001";
const PATIENCE_MS = 60_000;
const STATUSES = ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"];

const photograph = readFileSync(PICTURE);
const file = () => new File([photograph], "street.jpg", { type: "image/jpeg" });
const dataUri = `data:image/jpeg;base64,${photograph.toString("base64")}`;

// fal's addresses, and where they are on this machine. Nothing else of the client is touched.
const local = (url, base) =>
  url.replace(/^https:\/\/fal\.run\//, `${base}/run/`).replace(/^https:\/\/[a-z0-9.]+/, base);
const client = (base, options = {}) =>
  createFalClient({
    credentials: "someone:secret",
    requestMiddleware: async (request) => ({ ...request, url: local(request.url, base) }),
    ...options,
  });

const fal = client(QUEUE);
const stuck = client(STUCK);

// An input whose video is made quickly: small, short, and nothing in it moves.
const input = (fields = {}) => ({
  prompt: "a street",
  image_url: dataUri,
  resolution: "480p",
  duration: "2",
  camera_fixed: true,
  seed: 7,
  ...fields,
});

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

// Looks at what the client was given; the agent tells the tests' own calls from the client's.
async function look(url) {
  const answer = await fetch(url, { headers: { "user-agent": "the tests themselves" } });
  assert.equal(answer.status, 200, url);
  return { type: answer.headers.get("content-type"), bytes: Buffer.from(await answer.arrayBuffer()) };
}

async function isVideo(data) {
  const { type, bytes } = await look(data.video.url);
  assert.deepEqual([type, bytes.length], ["video/mp4", data.video.file_size]);
  assert.equal(bytes.toString("latin1", 4, 8), "ftyp");
}

async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  assert.fail("it was not refused");
}

async function completed(submitted) {
  await fal.queue.subscribeToStatus(ENDPOINT, { requestId: submitted.request_id, pollInterval: 50 });
  return submitted.request_id;
}

// Submits with a webhook; gives what is delivered: its path, headers and raw body.
async function delivered(fields) {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const webhookUrl = `http://127.0.0.1:${server.address().port}/hook?job=1&k=a b`;
  try {
    const { request_id } = await fal.queue.submit(ENDPOINT, { input: input(fields), webhookUrl });
    const [request, response] = await once(server, "request", { signal: AbortSignal.timeout(PATIENCE_MS) });
    const body = Buffer.concat(await request.toArray());
    response.end();
    return { request_id, delivery: { path: request.url, headers: request.headers, body } };
  } finally {
    server.close();
  }
}

suite("@fal-ai/client", { concurrency: true, timeout: PATIENCE_MS }, () => {
  // --- subscribe ---

  test("subscribe polls, tells each update with its logs, and returns the output", async () => {
    const updates = [];
    const { data, requestId } = await fal.subscribe(ENDPOINT, {
      input: input(),
      logs: true,
      pollInterval: 50,
      onQueueUpdate: (update) => updates.push(update),
    });
    await isVideo(data);
    assert.equal(data.seed, 7);
    assert.equal(updates.at(-1).status, "COMPLETED");
    assert.equal(updates.at(-1).request_id, requestId);
    assert.deepEqual(Object.keys(updates.at(-1).logs[0]).sort(), ["level", "message", "source", "timestamp"]);
    const order = updates.map((update) => STATUSES.indexOf(update.status));
    assert.deepEqual(order, order.toSorted());
  });

  test("subscribe without logs gets none", async () => {
    const updates = [];
    const onQueueUpdate = (update) => updates.push(update);
    await fal.subscribe(ENDPOINT, { input: input(), pollInterval: 50, onQueueUpdate });
    assert.ok(updates.every((update) => !update.logs));
  });

  test("subscribe by streaming is told every line of the logs once", async () => {
    const updates = [];
    const { data, requestId } = await fal.subscribe(ENDPOINT, {
      input: input(),
      mode: "streaming",
      logs: true,
      onQueueUpdate: (update) => updates.push(structuredClone(update)),
    });
    await isVideo(data);
    assert.equal(updates.at(-1).status, "COMPLETED");
    const whole = await fal.queue.status(ENDPOINT, { requestId, logs: true });
    assert.ok(whole.logs.length > 0);
    assert.deepEqual(updates.at(-1).logs, whole.logs);
  });

  test("a status stream goes from the queue to the end and closes", async () => {
    const { request_id } = await fal.queue.submit(ENDPOINT, { input: input() });
    const stream = await fal.queue.streamStatus(ENDPOINT, { requestId: request_id, logs: true });
    const seen = [];
    for await (const update of stream) {
      seen.push(update);
      assert.equal(update.request_id, request_id);
      assert.ok(update.response_url.endsWith(request_id));
    }
    assert.equal((await stream.done()).status, "COMPLETED");
    assert.deepEqual(seen.at(-1).status, "COMPLETED");
    assert.ok(seen.at(-1).metrics.inference_time > 0);
  });

  test("a status stream of a finished request says so at once", async () => {
    const requestId = await completed(await fal.queue.submit(ENDPOINT, { input: input() }));
    const stream = await fal.queue.streamStatus(ENDPOINT, { requestId });
    assert.equal((await stream.done()).status, "COMPLETED");
  });

  test("a status stream of an unknown request is an ApiError 404", async () => {
    const stream = await fal.queue.streamStatus(ENDPOINT, { requestId: UNKNOWN });
    const error = await refusal(stream.done());
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.status, error.body], [404, { status: "NOT_FOUND" }]);
  });

  // --- the queue, call by call ---

  test("queue.submit answers with the id and the place in the queue", async () => {
    const answer = await stuck.queue.submit(ENDPOINT, { input: input() });
    assert.equal(answer.status, "IN_QUEUE");
    assert.equal(typeof answer.queue_position, "number");
    for (const name of ["response_url", "status_url", "cancel_url"]) {
      assert.ok(answer[name].includes(`/fal-ai/bytedance/requests/${answer.request_id}`), name);
    }
  });

  test("queue.submit takes every option of the client", async () => {
    const answer = await fal.queue.submit(ENDPOINT, {
      input: input({ seed: 21 }),
      priority: "low",
      hint: "here",
      startTimeout: 600,
      headers: { "X-Fal-No-Retry": "1", "X-Fal-Store-IO": "0" },
      storageSettings: { expiresIn: "1d", initialAcl: { default: "allow", rules: [] } },
    });
    const requestId = await completed(answer);
    assert.equal((await fal.queue.result(ENDPOINT, { requestId })).data.seed, 21);
  });

  test("queue.submit with webhookUrl delivers the output, signed", async () => {
    const { request_id, delivery } = await delivered({ seed: 22 });
    assert.equal(delivery.path, "/hook?job=1&k=a%20b");
    const body = JSON.parse(delivery.body);
    assert.deepEqual([body.request_id, body.status], [request_id, "OK"]);
    assert.equal(body.gateway_request_id, request_id);
    assert.deepEqual(body.payload, (await fal.queue.result(ENDPOINT, { requestId: request_id })).data);

    const header = (name) => delivery.headers[`x-fal-webhook-${name}`];
    const signed = [header("request-id"), header("user-id"), header("timestamp"), sha256(delivery.body)].join("\n");
    const { bytes } = await look(`${QUEUE}/.well-known/jwks.json`);
    const isGood = (jwk) =>
      verify(null, Buffer.from(signed), createPublicKey({ key: jwk, format: "jwk" }), Buffer.from(header("signature"), "hex"));
    assert.ok(JSON.parse(bytes).keys.some(isGood));
    assert.ok(Math.abs(Date.now() / 1000 - Number(header("timestamp"))) < 300);
  });

  test("a webhook of a refused input says ERROR and why", async () => {
    const { delivery } = await delivered({ duration: "13" });
    const body = JSON.parse(delivery.body);
    assert.deepEqual([body.status, body.error], ["ERROR", "Invalid status code: 422"]);
    assert.deepEqual(body.payload.detail[0].loc, ["body", "duration"]);
  });

  test("queue.status with and without logs", async () => {
    const requestId = await completed(await fal.queue.submit(ENDPOINT, { input: input() }));
    assert.ok((await fal.queue.status(ENDPOINT, { requestId, logs: true })).logs.length > 0);
    assert.equal((await fal.queue.status(ENDPOINT, { requestId })).logs, null);
  });

  test("queue.result gives the output and the request's id", async () => {
    const requestId = await completed(await fal.queue.submit(ENDPOINT, { input: input() }));
    const result = await fal.queue.result(ENDPOINT, { requestId });
    assert.equal(result.requestId, requestId);
    await isVideo(result.data);
  });

  test("queue.result too early is an ApiError 400", async () => {
    const { request_id } = await stuck.queue.submit(ENDPOINT, { input: input() });
    const error = await refusal(stuck.queue.result(ENDPOINT, { requestId: request_id }));
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.status, error.body], [400, { detail: "Request is still in progress" }]);
    assert.equal(error.requestId, request_id);
  });

  test("queue.cancel ends a waiting request in an ApiError 499", async () => {
    const { request_id } = await stuck.queue.submit(ENDPOINT, { input: input() });
    await stuck.queue.cancel(ENDPOINT, { requestId: request_id });
    assert.equal((await stuck.queue.status(ENDPOINT, { requestId: request_id })).status, "COMPLETED");
    const error = await refusal(stuck.queue.result(ENDPOINT, { requestId: request_id }));
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.status, error.body.error_type], [499, "client_cancelled"]);
  });

  test("queue.cancel of what is finished, or unknown, is an ApiError", async () => {
    const requestId = await completed(await fal.queue.submit(ENDPOINT, { input: input() }));
    const late = await refusal(fal.queue.cancel(ENDPOINT, { requestId }));
    assert.deepEqual([late.status, late.body], [400, { status: "ALREADY_COMPLETED" }]);
    const unknown = await refusal(fal.queue.cancel(ENDPOINT, { requestId: UNKNOWN }));
    assert.deepEqual([unknown.status, unknown.body], [404, { status: "NOT_FOUND" }]);
  });

  test("a client that gives up cancels", async () => {
    let requestId;
    const onEnqueue = (id) => (requestId = id);
    await refusal(stuck.subscribe(ENDPOINT, { input: input(), timeout: 50, pollInterval: 20, onEnqueue }));
    const status = await stuck.queue.subscribeToStatus(ENDPOINT, { requestId, pollInterval: 20 });
    assert.equal(status.error_type, "client_cancelled");
  });

  test("a request that did not start in time is a user's timeout, which the client does not repeat", async () => {
    const error = await refusal(stuck.subscribe(ENDPOINT, { input: input(), startTimeout: 1.01, pollInterval: 50 }));
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.status, error.timeoutType, error.isUserTimeout], [504, "user", true]);
  });

  test("run answers with the output", async () => {
    const { data, requestId } = await fal.run(ENDPOINT, { input: input({ seed: 23 }) });
    assert.equal(data.seed, 23);
    assert.deepEqual((await fal.queue.result(ENDPOINT, { requestId })).data, data);
  });

  // --- errors ---

  test("a refused input is a ValidationError with the details of its fields", async () => {
    let id;
    const onEnqueue = (requestId) => (id = requestId);
    const error = await refusal(
      fal.subscribe(ENDPOINT, { input: input({ duration: "13" }), pollInterval: 50, onEnqueue }),
    );
    assert.ok(error instanceof ValidationError);
    assert.deepEqual([error.status, error.requestId], [422, id]);
    assert.deepEqual(error.body.detail, error.fieldErrors);
    const [detail] = error.getFieldErrors("duration");
    assert.deepEqual([detail.loc, detail.type, detail.input], [["body", "duration"], "one_of", "13"]);
  });

  test("a submit without a key is an ApiError 401", async () => {
    const error = await refusal(client(QUEUE, { credentials: "" }).queue.submit(ENDPOINT, { input: input() }));
    assert.ok(error instanceof ApiError);
    assert.equal(error.status, 401);
    assert.equal(
      error.body.detail,
      'Cannot access application "fal-ai/bytedance". Authentication is required to access this application.',
    );
  });

  // --- files ---

  test("storage.upload of a small file", async () => {
    const url = await fal.storage.upload(file(), { lifecycle: { expiresIn: "1d" } });
    const { type, bytes } = await look(url);
    assert.deepEqual([type, sha256(bytes)], ["image/jpeg", sha256(photograph)]);
    assert.ok(url.endsWith("street.jpg"));
  });

  test("storage.upload of a file above 90 MiB, in parts", async () => {
    const large = Buffer.alloc(95 * 1024 * 1024, photograph);
    const url = await fal.storage.upload(new File([large], "large.bin", { type: "application/x-large" }));
    const { type, bytes } = await look(url);
    assert.deepEqual([type, sha256(bytes)], ["application/x-large", sha256(large)]);
  });

  test("a Blob inside the input is uploaded by itself", async () => {
    const image_url = new Blob([photograph], { type: "image/jpeg" });
    const { data } = await fal.subscribe(ENDPOINT, { input: input({ image_url }), pollInterval: 50 });
    const same = await fal.subscribe(ENDPOINT, { input: input(), pollInterval: 50 });
    assert.deepEqual((await look(data.video.url)).bytes, (await look(same.data.video.url)).bytes);
  });

  test("a data URI is a picture too", async () => {
    await isVideo((await fal.subscribe(ENDPOINT, { input: input({ image_url: dataUri }), pollInterval: 50 })).data);
  });

  // --- other ways to the queue ---

  test("through proxyUrl: upload, subscribe by polling and by streaming, run", async () => {
    const proxied = createFalClient({
      credentials: "someone:secret",
      proxyUrl: { url: `${QUEUE}/api/fal/proxy`, when: "always" },
    });
    const image_url = await proxied.storage.upload(file());
    assert.ok(image_url.startsWith(QUEUE));
    for (const options of [{ pollInterval: 50 }, { mode: "streaming" }]) {
      const { data, requestId } = await proxied.subscribe(ENDPOINT, { input: input({ image_url }), ...options });
      assert.ok(requestId);
      await isVideo(data);
    }
    await isVideo((await proxied.run(ENDPOINT, { input: input({ image_url }) })).data);
    const { request_id } = await proxied.queue.submit(ENDPOINT, { input: input() });
    await refusal(proxied.queue.cancel(ENDPOINT, { requestId: UNKNOWN }));
    await completed({ request_id });
  });

  test("through a fetch of one's own, raw uploads and all", async () => {
    const targets = [];
    const own = createFalClient({
      credentials: "someone:secret",
      fetch: (url, options) => {
        targets.push(url);
        return fetch(local(url, QUEUE), options);
      },
    });
    const { data } = await own.subscribe(ENDPOINT, { input: input({ image_url: file() }), pollInterval: 50 });
    await isVideo(data);
    assert.ok(targets.some((url) => url.startsWith(`${QUEUE}/upload/`)));
  });
});
