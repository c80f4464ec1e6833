/** Events over connections that break: each once, in order. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ResyncRequired, Unauthorized, VmNotFound, type Event } from "@void-vm/sdk";

import { admin, fresh, Proxy, SMALL, withVm } from "./support.js";

test("what happens is told, from the moment the stream is open", async () => {
  const client = admin();
  const stream = client.events();
  await stream.opened;
  const vm = await client.vms.create({ name: fresh("told"), ...SMALL });
  await client.vms.delete(vm);
  const seen: string[] = [];
  for await (const event of stream) {
    if (event.vmId === vm.id) seen.push(event.event);
    if (event.event === "vm.deleted" && event.vmId === vm.id) break;
  }
  assert.deepEqual(seen, ["vm.created", "vm.status", "vm.deleted"]);
  const { events } = await client.events.list({ after: stream.lastId });
  assert.ok(events.every((event) => event.vmId !== vm.id));
});

test("over many connections each event comes once, in order", async (t) => {
  await withVm(async (vm) => {
    const proxy = await Proxy.start(t);
    proxy.cutAfterBytes = 1500;
    const { lastId } = await admin().events.list({ limit: 1 });
    const stream = admin({ baseURL: proxy.baseURL }).events({ after: lastId, vm });
    const seen: Event[] = [];
    const done = (async () => {
      for await (const event of stream) {
        seen.push(event);
        if (event.data["name"] === "last") return;
      }
    })();
    for (let i = 0; i < 12; i++) await admin().vms.update(vm, { description: `number ${i}` });
    await admin().vms.update(vm, { name: fresh("renamed") });
    await admin().vms.update(vm, { name: "last" });
    await done;
    const kept = (await admin().events.list({ after: lastId, vm: vm.id, limit: 200 })).events;
    assert.deepEqual(seen.map((event) => event.id), kept.map((event) => event.id));
    assert.ok(proxy.count("GET /api/v1/events/stream") > 2);
  });
});

test("what is kept no more is said, and where to begin anew", async () => {
  const client = admin();
  const error = await drain(client.events({ after: "00000000-1" }));
  assert.ok(error instanceof ResyncRequired);
  const { lastId } = await client.events.list({ limit: 1 });
  assert.equal(error.details, lastId);
});

test("a stream that cannot be is refused, one that is closed ends, one that is aborted says why", async () => {
  assert.ok((await drain(admin().events({ vm: "none" }))) instanceof VmNotFound);
  assert.ok((await drain(admin({ token: "wrong" }).events())) instanceof Unauthorized);
  const closed = admin().events();
  await closed.opened;
  setTimeout(() => closed.close(), 20);
  assert.equal(await drain(closed), undefined);
  const controller = new AbortController();
  const aborted = admin().events({ signal: controller.signal });
  setTimeout(() => controller.abort(new Error("enough")), 20);
  assert.match(String(await drain(aborted)), /enough/);
});

/** Listen until it ends; why it did. */
async function drain(stream: AsyncIterable<Event>): Promise<unknown> {
  try {
    for await (const _ of stream);
    return undefined;
  } catch (error) {
    return error;
  }
}
