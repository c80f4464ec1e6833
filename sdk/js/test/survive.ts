/** Listens until a line comes in, whatever happens to the service, and says what it has heard. */

import { once } from "node:events";

import { admin, given } from "./support.js";

const client = admin();
const vm = given("VOIDVM_TEST_VM");
const line = client.vms.console(vm, { since: "end" });
const events = client.events({ vm });
const live = client.live();
const statuses = live.subscribe("events", { vm });

const { offset } = await line.opened();
await events.opened;
const { lastEventId } = await statuses.opened();

const output: Uint8Array[] = [];
const told: string[] = [];
const pushed: string[] = [];
const listening = Promise.all([
  (async () => {
    for await (const bytes of line) output.push(bytes);
  })(),
  (async () => {
    for await (const event of events) told.push(event.id);
  })(),
  (async () => {
    for await (const event of statuses) pushed.push(event.id);
  })(),
]);
console.log("listening");

await once(process.stdin, "data");
// All has happened by now, but not all was heard of.
const end = (line.offset ?? 0) + 200;
while ((line.offset ?? 0) < end) await new Promise((resolve) => setTimeout(resolve, 20));
const { lastId } = await client.events.list({ vm, limit: 1 });
while (told.at(-1) !== lastId || pushed.at(-1) !== lastId) {
  await new Promise((resolve) => setTimeout(resolve, 20));
}
await line.close();
await live.close();
events.close();
await listening;
const text = Buffer.concat(output).toString("latin1");
console.log(JSON.stringify({ offset, output: text, after: lastEventId, told, pushed }));
