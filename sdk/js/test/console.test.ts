/** A console over connections that break: no byte is missing, none comes twice. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ConnectionFailed, Forbidden, TimedOut, VmNotFound, VoidVMError, type ConsoleNotice } from "@void-vm/sdk";

import { admin, eventually, given, Proxy, withVm } from "./support.js";

// It prints lines of four letters that count up, and what is typed, without end.
const VM = given("VOIDVM_TEST_VM");

/** Exactly what the console said from one offset to another. */
async function history(from: number, to: number): Promise<Buffer> {
  const { bytes, offset } = await admin().vms.consoleLog(VM, { since: from, limit: to - from });
  assert.equal(offset, from);
  return Buffer.from(bytes);
}

test("what is typed comes back, what is expected is found", async () => {
  const line = admin().vms.console(VM, { since: "end" });
  const state = await line.opened();
  assert.deepEqual([state.vmId, state.mode, state.status], [VM, "write", "running"]);
  assert.equal(line.offset, state.offset);
  await line.write("xyz");
  const { match, before } = await line.expect(/x([^]*)y([^]*)z/);
  assert.match(match[1] ?? "", /^([A-P]{4}\n)*$/);
  assert.match(before, /^([A-P]{0,4}\n)*$/);
  const count = /\n([A-P]{4})\n/g;
  const first = await line.expect(count);
  const second = await line.expect(count);
  assert.ok((second.match[1] ?? "") > (first.match[1] ?? ""), "a global pattern begins anew");
  await line.expect("\n");
  await assert.rejects(line.expect("never said", { timeoutMs: 200 }), TimedOut);
  assert.ok((await line.read()) !== undefined, "what was looked through stays");
  await line.sendBreak();
  await line.close();
  await line.close();
});

test("over any number of connections the bytes are those of the history", async (t) => {
  const proxy = await Proxy.start(t);
  proxy.cutAfterBytes = 900;
  const line = admin({ baseURL: proxy.baseURL }).vms.console(VM, { since: "end" });
  const start = (await line.opened()).offset;
  const seen: Uint8Array[] = [];
  let size = 0;
  for await (const bytes of line) {
    seen.push(bytes);
    size += bytes.length;
    assert.equal(line.offset, start + size);
    if (size > 3500) break;
  }
  assert.ok(proxy.count(`GET /api/v1/vms/${VM}/console?`) > 3);
  assert.deepEqual(Buffer.concat(seen), await history(start, start + size));
  await line.close();
});

test("a reader that does not read is no burden, and misses nothing", async (t) => {
  const proxy = await Proxy.start(t);
  // So little fits in that the guest's line fills it in a moment.
  const line = admin({ baseURL: proxy.baseURL }).vms.console(VM, { unreadBytes: 4000 });
  const start = (await line.opened()).offset;
  const tries = () => proxy.count(`GET /api/v1/vms/${VM}/console?`);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const before = tries();
  await new Promise((resolve) => setTimeout(resolve, 1000));
  assert.equal(tries(), before, "it waits for its reader");
  const seen: Uint8Array[] = [];
  while (tries() === before) seen.push((await line.read())!);
  seen.push((await line.read())!);
  const all = Buffer.concat(seen);
  assert.deepEqual(all, await history(start, start + all.length));
  await line.close();
});

test("typing waits for a connection, and is not repeated when one breaks", async (t) => {
  const proxy = await Proxy.start(t);
  const line = admin({ baseURL: proxy.baseURL }).vms.console(VM, { since: "end" });
  await line.opened();
  proxy.isDown = true;
  proxy.cut();
  await new Promise((resolve) => setTimeout(resolve, 100));
  let isTyped = false;
  const typing = line.write("!").then(() => (isTyped = true));
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(isTyped, false);
  proxy.isDown = false;
  await typing;
  await line.expect("!");
  const lost = line.write("?");
  proxy.cut();
  await assert.rejects(lost, ConnectionFailed);
  await line.write("#");
  const { before } = await line.expect("#");
  assert.ok(before.split("?").length <= 2);
  await line.close();
});

test("a console for reading takes nothing", async () => {
  const notices: ConsoleNotice[] = [];
  const line = admin().vms.console("ticking", { mode: "read", onNotice: (notice) => notices.push(notice) });
  assert.equal((await line.opened()).mode, "read");
  await assert.rejects(line.write("x"), VoidVMError);
  const other = admin().vms.console(VM);
  await other.opened();
  await eventually(() => notices.some((notice) => notice.type === "viewers" && notice.count >= 2));
  assert.ok((line.state?.viewers ?? 0) >= 2);
  await other.close();
  await line.close();
});

test("what is refused is said in words; what is closed ends", async () => {
  await assert.rejects(admin().vms.console("none").opened(), VmNotFound);
  const { token } = await admin().tokens.create({ name: `blind-${process.pid}`, permissions: ["vm:read"] });
  await assert.rejects(admin({ token }).vms.console(VM).read(), Forbidden);
  const closed = admin().vms.console(VM, { since: "end" });
  await closed.opened();
  const reading = (async () => {
    for await (const _ of closed);
  })();
  await closed.close();
  await reading;
  assert.equal(await closed.read(), undefined);
  await assert.rejects(closed.write("x"), /closed/);
  const controller = new AbortController();
  const aborted = admin().vms.console(VM, { signal: controller.signal });
  await aborted.opened();
  controller.abort(new Error("enough"));
  await assert.rejects(aborted.expect("never said"), /enough/);
});

test("a console ends with its VM", async () => {
  await withVm(async (vm) => {
    const line = admin().vms.console(vm);
    await line.opened();
    await admin().vms.delete(vm);
    await assert.rejects(line.expect("never said"), VmNotFound);
  });
});
