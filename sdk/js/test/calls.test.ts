/** The calls, one after the other, as a program makes them. */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  ApiError,
  ConnectionFailed,
  etagOf,
  List,
  NameTaken,
  OperationFailed,
  OperationNotCancellable,
  PreconditionFailed,
  TimedOut,
  ValidationFailed,
  VmAlreadyRunning,
  VmNotFound,
  VoidVMClient,
  VoidVMError,
  WaitTimeout,
} from "@void-vm/sdk";

import { admin, fresh, SMALL, TOKEN, URL_OF_SERVICE, withVm } from "./support.js";

test("a VM's life, as the first page of the documentation has it", async () => {
  const client = new VoidVMClient({ baseURL: `${URL_OF_SERVICE}/api/v1`, token: TOKEN });
  const before = await client.vms.list();
  const made = await client.vms.create({ name: fresh("life"), ...SMALL });
  assert.equal(made.status, "stopped");
  assert.equal((await client.vms.list()).length, before.length + 1);
  assert.equal((await client.vms.start(made.id)).status, "running");
  assert.equal((await client.vms.pause(made.name)).status, "paused");
  assert.equal((await client.vms.resume(made)).status, "running");
  assert.equal((await client.vms.reset(made)).status, "running");
  assert.equal((await client.vms.restart(made, { mode: "force" })).status, "running");
  assert.equal((await client.vms.metrics(made)).latest?.vmId ?? made.id, made.id);
  assert.equal((await client.vms.stop(made, { force: true })).status, "stopped");
  assert.deepEqual(await client.vms.incidents(made), []);
  await client.vms.delete(made);
  await assert.rejects(client.vms.get(made), VmNotFound);
});

test("an address without the API's path, or with too many slashes, is the same service", async () => {
  for (const baseURL of [URL_OF_SERVICE, `${URL_OF_SERVICE}/`, `${URL_OF_SERVICE}/api/v1/`]) {
    assert.equal((await admin({ baseURL }).auth.me()).username, "admin");
    assert.equal((await admin({ baseURL }).system.health()).status, "ok");
  }
});

test("a dry run makes nothing", async () => {
  const name = fresh("dry");
  assert.equal((await admin().vms.create({ name, ...SMALL }, { dryRun: true })).name, name);
  await assert.rejects(admin().vms.get(name), VmNotFound);
});

test("lists go over all pages, or give one of them", async () => {
  const client = admin();
  const tag = fresh("tag");
  const made = [];
  for (let i = 0; i < 5; i++) {
    made.push(await client.vms.create({ name: fresh("page"), tags: [tag], ...SMALL }));
  }
  const list = client.vms.list({ tag, limit: 2 });
  assert.ok(list instanceof List);
  const page = await list;
  assert.ok(Array.isArray(page));
  assert.deepEqual(page.pagination, { page: 1, limit: 2, total: 5, pages: 3 });
  assert.deepEqual(page.map((vm) => vm.id), made.slice(0, 2).map((vm) => vm.id));
  const all = [];
  for await (const vm of client.vms.list({ tag, limit: 2 })) all.push(vm.id);
  assert.deepEqual(all, made.map((vm) => vm.id));
  const rest = [];
  for await (const vm of client.vms.list({ tag, limit: 2, page: 3 })) rest.push(vm.id);
  assert.deepEqual(rest, [made[4]?.id]);
  await Promise.all(made.map((vm) => client.vms.delete(vm)));
  assert.deepEqual([...(await client.vms.list({ tag }))], []);
});

test("errors are of their code's class, and say all that the service said", async () => {
  const client = admin({ language: "zh" });
  const error = await client.vms.get("none").catch((reason: unknown) => reason);
  assert.ok(error instanceof VmNotFound && error instanceof ApiError && error instanceof VoidVMError);
  assert.deepEqual([error.name, error.code, error.status], ["VmNotFound", "VM_NOT_FOUND", 404]);
  assert.equal(error.message, "没有虚拟机“none”。");
  assert.match(error.requestId, /./);
  const invalid = await client.vms.create({ name: "x/y", cpu: 0 }).catch((reason: unknown) => reason);
  assert.ok(invalid instanceof ValidationFailed);
  assert.deepEqual(invalid.errors.map((one) => one.field).sort(), ["cpu", "name"]);
  await withVm(async (vm) => {
    await assert.rejects(client.vms.create({ name: vm.name }), NameTaken);
    await client.vms.start(vm);
    await assert.rejects(client.vms.start(vm), VmAlreadyRunning);
    await assert.rejects(client.vms.wait(vm, "stopped", { timeout: 0.1 }), WaitTimeout);
    assert.equal((await client.vms.wait(vm, "running")).status, "running");
  });
});

test("a name is a segment of the path, whatever is in it", async () => {
  const name = `名字-${fresh("box")}`;
  await admin().vms.create({ name, ...SMALL });
  assert.equal((await admin().vms.get(name)).name, name);
  await admin().vms.delete(name);
  for (const odd of ["../users", "a?b=c#d", "a/b%2Fc", " ", "%2e%2e"]) {
    await assert.rejects(admin().vms.get(odd), VmNotFound, odd);
  }
  for (const none of ["", ".", ".."]) {
    await assert.rejects(admin().vms.get(none), /is no id and no name/);
  }
});

test("a change can be made only if nobody else made one", async () => {
  await withVm(async ({ id }) => {
    const vm = await admin().vms.get(id);
    assert.match(etagOf(vm) ?? "", /./);
    const changed = await admin().vms.update(vm, { description: "one" }, { ifMatch: vm });
    const stale = admin().vms.update(vm, { description: "two" }, { ifMatch: vm });
    await assert.rejects(stale, PreconditionFailed);
    await admin().vms.update(vm, { description: "two" }, { ifMatch: etagOf(changed) });
    const [listed] = await admin().vms.list({ q: vm.name });
    await assert.rejects(admin().vms.delete(id, { ifMatch: listed }), /no ETag/);
  });
});

test("an action goes on as an operation, which is waited for with progress", async () => {
  await withVm(async (vm) => {
    await admin().vms.start(vm);
    const operation = await admin().vms.begin(vm, "stop", { force: true });
    assert.equal(operation.type, "stop-vm");
    const told: string[] = [];
    const ended = await operation.wait({ progress: ({ status }) => told.push(status) });
    assert.equal(ended.status, "succeeded");
    assert.equal(told.at(-1), "succeeded");
    await assert.rejects(ended.cancel(), OperationNotCancellable);
    const failed = await (await admin().vms.begin(vm, "pause")).wait().catch((reason: unknown) => reason);
    assert.ok(failed instanceof OperationFailed);
    assert.equal((failed.cause as ApiError).code, "VM_NOT_RUNNING");
    const listed = await admin().operations.list({ vm: vm.id, limit: 1 });
    assert.equal(listed[0]?.id, failed.operation.id);
    assert.equal((await listed[0]?.wait().catch((reason: unknown) => reason)) instanceof Error, true);
  });
});

test("what takes too long, or is not wanted any more, ends", async () => {
  await withVm(async (vm) => {
    const late = admin().request(
      "wait_for_vm",
      { path: { vm: vm.id }, query: { for: "running", timeout: 30 } },
      { timeoutMs: 100 },
    );
    await assert.rejects(late, TimedOut);
    const controller = new AbortController();
    const reason = new Error("changed my mind");
    const waiting = admin().vms.wait(vm, "running", { signal: controller.signal });
    setTimeout(() => controller.abort(reason), 50);
    await assert.rejects(waiting, (error) => error === reason);
    const before = AbortSignal.abort(reason);
    await assert.rejects(async () => admin().vms.list({}, { signal: before }), (error) => error === reason);
  });
  const nobody = admin({ baseURL: "http://127.0.0.1:9/api/v1", retries: 0 });
  await assert.rejects(async () => nobody.vms.list(), ConnectionFailed);
});

test("users, tokens and what they may", async () => {
  const client = admin();
  const username = fresh("user");
  const user = await client.users.create({ username, password: "correct horse" });
  const hers = new VoidVMClient({ baseURL: URL_OF_SERVICE, username, password: "correct horse" });
  assert.equal((await hers.auth.me()).id, user.id);
  const made = await hers.tokens.create({ name: "ci", permissions: ["vm:read"] });
  const ci = admin({ token: made.token });
  assert.deepEqual([...(await ci.vms.list())], []);
  await assert.rejects(ci.vms.create({ name: "x" }), /vm:create/);
  await hers.tokens.revoke(made);
  await assert.rejects(async () => ci.vms.list(), { code: "UNAUTHORIZED" });
  assert.equal((await hers.auth.updateMe({ email: "ada@example.com" })).email, "ada@example.com");
  assert.equal((await client.users.update(user, { status: "disabled" })).status, "disabled");
  await client.users.delete(user);
  assert.ok((await client.users.roles()).some((role) => role.name === "user"));
});

test("the service and its host", async () => {
  const { system } = admin();
  assert.match((await system.info()).version, /\d/);
  assert.match(await system.metrics(), /^# HELP/m);
  const config = await system.config();
  const { requestsPerMinute } = config.config.limits;
  await system.setConfig({ limits: { loginAttempts: 7 } }, { ifMatch: config });
  assert.equal((await system.config()).config.limits.requestsPerMinute, requestsPerMinute);
  const [entry] = await system.logs({ limit: 1 });
  assert.equal(entry?.username, "admin");
  assert.equal((await system.openapi())["openapi"], "3.1.0");
  assert.equal((await system.stats()).latest === undefined, false);
});
