/** Subscriptions and actions on one socket that breaks now and then. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ResyncRequired, Unauthorized, VmNotFound, VmNotRunning, VoidVMError } from "@void-vm/sdk";

import { admin, fresh, given, Proxy, withVm } from "./support.js";

test("actions are done and answered, refusals are errors", async () => {
  await withVm(async (vm) => {
    const live = admin().live();
    const statuses = live.subscribe("vm-status", { vm });
    const begun = await statuses.opened();
    assert.equal(begun.status, "stopped");
    assert.equal((await live.control(vm, "start")).status, "running");
    assert.equal((await live.control(vm.name, "stop", { force: true })).status, "stopped");
    await assert.rejects(live.control(vm, "pause"), VmNotRunning);
    await assert.rejects(live.control("none", "pause"), VmNotFound);
    await admin().vms.delete(vm);
    const seen = [];
    for await (const { status } of statuses) seen.push(status);
    const { events } = await admin().events.list({ after: begun.lastEventId ?? "" });
    const kept = events.filter((event) => event.vmId === vm.id);
    assert.deepEqual(seen, kept.map(({ event, data }) => (event === "vm.status" ? data["status"] : "deleted")));
    assert.deepEqual([seen[0], seen.at(-1)], ["starting", "deleted"]);
    await live.close();
  });
});

test("over broken connections each event comes once", async (t) => {
  const OVER = fresh("over");
  const proxy = await Proxy.start(t);
  await withVm(async (vm) => {
    const live = admin({ baseURL: proxy.baseURL }).live();
    const events = live.subscribe("events", { vm });
    const { lastEventId } = await events.opened();
    const seen: string[] = [];
    const done = (async () => {
      for await (const event of events) {
        seen.push(event.id);
        if (event.data["name"] === OVER) break;
      }
    })();
    for (let i = 0; i < 5; i++) {
      await admin().vms.update(vm, { description: `number ${i}` });
      proxy.cut();
      // In whatever moment of an ending connection, this is nobody's error.
      for (let tick = 0; tick < 50; tick++) {
        live.subscribe("operations").close();
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    await admin().vms.update(vm, { name: OVER });
    await done;
    const { events: kept } = await admin().events.list({ after: lastEventId ?? "", vm: vm.id });
    assert.deepEqual(seen, kept.map((event) => event.id));
    await live.close();
  });
});

test("measurements come, the newest of them", async () => {
  const live = admin().live();
  const samples = live.subscribe("vm-metrics", { vm: given("VOIDVM_TEST_VM"), interval: 1 });
  for await (const sample of samples) {
    assert.equal(sample.vmId, given("VOIDVM_TEST_VM"));
    break;
  }
  for await (const host of live.subscribe("system-monitor")) {
    assert.ok(host.memory.totalBytes > 0);
    break;
  }
  await live.close();
});

test("what cannot be subscribed to is refused; what is closed ends", async () => {
  const live = admin().live();
  await assert.rejects(live.subscribe("vm-status", { vm: "none" }).opened(), VmNotFound);
  const lost = live.subscribe("events", { after: "00000000-1" });
  await assert.rejects(
    (async () => {
      for await (const _ of lost);
    })(),
    ResyncRequired,
  );
  const all = live.subscribe("vm-status-all");
  assert.throws(() => live.subscribe("vm-status-all"), VoidVMError);
  await all.opened();
  all.close();
  await live.subscribe("vm-status-all").opened();
  await live.close();
  await assert.rejects(live.control("any", "start"), /closed/);
  const wrong = admin({ token: "wrong" }).live();
  await assert.rejects(wrong.subscribe("events").opened(), Unauthorized);
});
