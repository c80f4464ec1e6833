/** Every call of the API can be made by a method: the SDK against the service's own description. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { VoidVMClient, type WebSocketLike } from "@void-vm/sdk";

import { admin } from "./support.js";

// What has no method, and why.
const UNREACHED: Readonly<Record<string, string>> = {
  "GET /docs": "a page for people",
  "GET /docs/assets/{file}": "a part of that page",
  "GET /ws": "the same as /api/v1/ws",
  "PUT /api/v1/users/{user}": "the same as PATCH, which users.update sends",
  "PUT /api/v1/vms/{vm}/config": "the same as PATCH on the VM, which vms.update sends",
};

const LOGIN = { token: "t", refreshToken: "r", expiresAt: "2020-01-01T00:00:00Z" };
const DATA = {
  ...LOGIN,
  ...{ uploadId: "{upload}", offset: 0, sizeBytes: 1, operationId: null, ticket: "t", id: "{operation}" },
  ...Object.fromEntries(
    ["vms", "disks", "images", "operations", "users", "tokens", "permissions", "roles", "incidents"]
      .concat(["logs", "events"])
      .map((name) => [name, []]),
  ),
  pagination: { page: 1, limit: 1, total: 0, pages: 0 },
  status: "succeeded",
};

test("a method reaches each endpoint, or there is a reason", async () => {
  const reached = new Set<string>();
  const note = (method: string, url: string) => {
    reached.add(`${method} ${decodeURIComponent(new URL(url).pathname)}`);
  };
  const fetch = async (url: string, { method, headers }: RequestInit) => {
    note(method ?? "GET", url);
    // A refused token makes it renew its session.
    const isOld = new Headers(headers).get("authorization") === "Bearer old";
    if (url.endsWith("/auth/me") && isOld) return new Response("{}", { status: 401 });
    if (url.endsWith("/stream")) return new Response("id: 1-1\n\n");
    const isLast = method === "PATCH" && url.includes("/uploads/");
    return Response.json({ data: { ...DATA, ...(isLast && { offset: 1, operationId: "{operation}" }) } });
  };
  class Socket implements WebSocketLike {
    binaryType = "";
    onopen = null;
    onmessage = null;
    onclose = null;
    onerror = null;
    constructor(url: string) {
      note("GET", url);
    }
    send(): void {}
    close(): void {}
  }
  const client = new VoidVMClient({
    baseURL: "http://voidvm/api/v1",
    token: "old",
    refreshToken: "r",
    fetch: fetch as typeof globalThis.fetch,
    WebSocket: Socket,
  });
  await callAll(client);

  const { paths } = (await admin().system.openapi()) as { paths: Record<string, object> };
  const described = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  assert.deepEqual(described.filter((one) => !reached.has(one)).sort(), Object.keys(UNREACHED));
  assert.deepEqual([...reached].filter((one) => !described.includes(one)), []);
});

// Each path parameter is given its own name, so that addresses come out as they are described.
async function callAll(client: VoidVMClient): Promise<void> {
  const { auth, disks, images, operations, system, tokens, users, vms } = client;
  const [vm, image, disk, user, upload] = ["{vm}", "{image}", "{disk}", "{user}", "{upload}"];
  await Promise.all([auth.me(), auth.updateMe({}), auth.login({ username: "a", password: "b" })]);
  await Promise.all([tokens.list(), tokens.create({ name: "a" }), tokens.revoke("{token}")]);
  await Promise.all([users.list(), users.get(user), users.update(user, {}), users.delete(user)]);
  await users.create({ username: "a", password: "b" });
  await Promise.all([users.permissions(), users.roles(), auth.logout()]);
  await Promise.all([vms.list(), vms.create({ name: "a" }), vms.get(vm), vms.update(vm, {})]);
  await Promise.all([vms.delete(vm), vms.start(vm), vms.stop(vm), vms.restart(vm), vms.reset(vm)]);
  await Promise.all([vms.pause(vm), vms.resume(vm), vms.begin(vm, "start"), vms.wait(vm, "ip")]);
  await Promise.all([vms.incidents(vm), vms.metrics(vm), vms.insertIso(vm, image), vms.ejectIso(vm)]);
  await Promise.all([vms.consoleLog(vm), vms.send(vm, "a")]);
  await Promise.all([disks.list(vm), disks.attach(vm, { size: 1 }), disks.expand(vm, disk, 2)]);
  await disks.delete(vm, disk);
  await Promise.all([images.list(), images.catalog(), images.create({ os: "tiny" }), images.get(image)]);
  await Promise.all([images.update(image, {}), images.delete(image), images.deleteUpload(upload)]);
  await images.upload(new Uint8Array(1), { name: "a" });
  await Promise.all([operations.list(), operations.get("{operation}"), operations.cancel("{operation}")]);
  await Promise.all([client.events.list(), client.events().opened]);
  await Promise.all([system.health(), system.info(), system.stats(), system.metrics(), system.logs()]);
  await Promise.all([system.config(), system.setConfig({}), system.openapi()]);
  await system.powerOffGuests();
  await Promise.all([opening(client.vms.console(vm)), opening(client.live())]);
}

/** A socket that never opens has been asked for in a moment. */
async function opening(socket: { close(): Promise<void> }): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 50));
  await socket.close();
}
