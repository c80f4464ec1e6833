/** Calls are repeated where that is safe, and only there. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ApiError, ConnectionFailed, NameTaken, RateLimited, VmBusy, VmNotFound } from "@void-vm/sdk";

import { admin, fresh, Proxy, refusal, SMALL, withVm } from "./support.js";

test("a POST whose answer was lost is done once", async (t) => {
  const proxy = await Proxy.start(t);
  const client = admin({ baseURL: proxy.baseURL });
  const name = fresh("once");
  proxy.lose = 2;
  const vm = await client.vms.create({ name, ...SMALL });
  assert.equal(proxy.count("POST /api/v1/vms"), 3);
  assert.deepEqual((await client.vms.list({ q: name })).map((one) => one.id), [vm.id]);
  // Another call is another request, though its body is the same.
  await assert.rejects(client.vms.create({ name, ...SMALL }), NameTaken);
  await client.vms.delete(vm);
});

test("one key, one effect, over two calls", async () => {
  const client = admin();
  const options = { idempotencyKey: fresh("key") };
  const body = { name: fresh("keyed"), ...SMALL };
  const [first, second] = [await client.vms.create(body, options), await client.vms.create(body, options)];
  assert.equal(first.id, second.id);
  await client.vms.delete(first);
});

test("what may have been done is not done again without a key", async (t) => {
  const proxy = await Proxy.start(t);
  await withVm(async (vm) => {
    const client = admin({ baseURL: proxy.baseURL });
    proxy.lose = 1;
    await assert.rejects(client.vms.update(vm, { description: "new" }), ConnectionFailed);
    assert.equal(proxy.count("PATCH"), 1);
    assert.equal((await client.vms.get(vm)).description, "new");
    proxy.lose = 1;
    await assert.rejects(client.vms.delete(vm), ConnectionFailed);
    assert.equal(proxy.count("DELETE"), 1);
    await assert.rejects(client.vms.get(vm), VmNotFound);
  });
});

test("a GET is asked again until there is an answer, within limits", async (t) => {
  const proxy = await Proxy.start(t);
  const client = admin({ baseURL: proxy.baseURL, retries: 2 });
  proxy.lose = 2;
  assert.equal((await client.auth.me()).username, "admin");
  proxy.lose = 3;
  const error = await client.auth.me().catch((reason: unknown) => reason);
  assert.ok(error instanceof ConnectionFailed);
  assert.match(error.message, /^GET http.*\/auth\/me: /);
  assert.equal(proxy.requests.length, 6);
});

test("who asks too often waits as long as it is told to", async (t) => {
  const proxy = await Proxy.start(t);
  const client = admin({ baseURL: proxy.baseURL });
  proxy.answers.push(refusal(429, "RATE_LIMITED", { retryAfter: "1" }));
  const begun = performance.now();
  await withVm(async (vm) => {
    await client.vms.update(vm, { description: "patient" });
    assert.ok(performance.now() - begun >= 1000);
    assert.equal(proxy.count("PATCH"), 2, "nothing was done: a PATCH is as good as a GET");
  });
  proxy.answers.push(refusal(429, "RATE_LIMITED", { retryAfter: "3600" }));
  const error = await client.auth.me().catch((reason: unknown) => reason);
  assert.ok(error instanceof RateLimited);
  assert.equal(error.retryAfter, 3600);
});

test("a service that is starting or stopping is waited for; a busy VM is the caller's business", async (t) => {
  const proxy = await Proxy.start(t);
  const client = admin({ baseURL: proxy.baseURL });
  proxy.answers.push(refusal(503, "SERVICE_UNAVAILABLE"), refusal(503, "SERVICE_UNAVAILABLE"));
  assert.equal((await client.auth.me()).username, "admin");
  for (const [status, code] of [[409, "VM_BUSY"], [503, "VM_UNRESPONSIVE"], [500, "INTERNAL_ERROR"]] as const) {
    proxy.requests.length = 0;
    proxy.answers.push(refusal(status, code));
    await assert.rejects(client.vms.start("any"), { code, status });
    assert.equal(proxy.requests.length, 1);
  }
  proxy.answers.push(refusal(409, "VM_BUSY"));
  await assert.rejects(client.vms.start("any"), VmBusy);
});

test("an error that nobody here knows is one all the same", async (t) => {
  const proxy = await Proxy.start(t);
  const client = admin({ baseURL: proxy.baseURL });
  for (const code of ["BRAND_NEW", "toString", "__proto__"]) {
    proxy.answers.push(refusal(418, code));
    const error = await client.auth.me().catch((reason: unknown) => reason);
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.constructor, error.code, error.status], [ApiError, code, 418]);
  }
  proxy.answers.push("HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n<html>");
  await assert.rejects(client.auth.me(), { code: "HTTP_404", details: "<html>" });
});
