/** Images in pieces, over connections that break. */

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";

import { ChecksumMismatch, OperationFailed, UploadNotFound } from "@void-vm/sdk";

import { admin, fresh, Proxy } from "./support.js";

// A raw disk: what is in it does not matter, but that all of it arrives.
const disk = Buffer.concat([randomBytes(510), Buffer.from("55aa", "hex"), randomBytes(1024 ** 2)]);
const checksum = `sha256:${createHash("sha256").update(disk).digest("hex")}`;
const bytes = new Uint8Array(disk);

test("a file arrives whole, though each connection breaks", async (t) => {
  const proxy = await Proxy.start(t);
  const client = admin({ baseURL: proxy.baseURL });
  const name = fresh("broken");
  const told: number[] = [];
  const operation = client.images.upload(new Blob([bytes]), { name, checksum }, {
    pieceBytes: 128 * 1024,
    progress: (sent, total) => {
      assert.equal(total, disk.length);
      told.push(sent);
      // Every third answer is lost: what was sent then must not be sent twice.
      if (told.length % 3 === 0) proxy.lose = 1;
    },
  });
  const ended = await (await operation).wait();
  assert.equal(ended.status, "succeeded");
  assert.equal(told.at(-1), disk.length);
  assert.deepEqual(told, [...told].sort((a, b) => a - b));
  assert.equal((await client.images.get(name)).virtualSizeBytes, Math.ceil(disk.length / 512) * 512);
  await client.images.delete(name);
});

test("an upload that was given up is gone on with by another", async () => {
  const client = admin();
  const name = fresh("resumed");
  const upload = await client.images.beginUpload({ name, sizeBytes: bytes.length, checksum });
  const controller = new AbortController();
  const first = client.images.resumeUpload(bytes, upload, {
    signal: controller.signal,
    pieceBytes: 256 * 1024,
    progress: (sent) => sent > 0 && controller.abort(new Error("later")),
  });
  await assert.rejects(first, /later/);
  const { offset } = await client.images.getUpload(upload.uploadId);
  assert.ok(offset > 0 && offset < bytes.length);
  await assert.rejects(client.images.resumeUpload(bytes.subarray(1), upload), /bytes/);
  await (await client.images.resumeUpload(bytes, upload.uploadId)).wait();
  assert.ok((await client.images.list()).some((image) => image.name === name));
  await client.images.delete(name);
});

test("what went wrong with an image is the operation's cause", async () => {
  const client = admin();
  const wrong = `sha256:${"0".repeat(64)}`;
  const operation = await client.images.upload(bytes, { name: fresh("wrong"), checksum: wrong });
  const error = await operation.wait().catch((reason: unknown) => reason);
  assert.ok(error instanceof OperationFailed);
  assert.ok(error.cause instanceof ChecksumMismatch);
  const upload = await client.images.beginUpload({ name: fresh("given-up"), sizeBytes: 10 });
  await client.images.deleteUpload(upload);
  await assert.rejects(client.images.getUpload(upload), UploadNotFound);
});
