/** Signing in, and sessions that renew themselves. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { InvalidCredentials, SessionEnded, Unauthorized, VoidVMClient } from "@void-vm/sdk";

import { ADMIN, fresh, Proxy, URL_OF_SERVICE } from "./support.js";

const baseURL = `${URL_OF_SERVICE}/api/v1`;

test("a name and a password suffice; one sign-in serves all calls", async (t) => {
  const proxy = await Proxy.start(t);
  const client = new VoidVMClient({ baseURL: proxy.baseURL, ...ADMIN });
  assert.equal(client.auth.tokens, undefined);
  await Promise.all(Array.from({ length: 8 }, () => client.auth.me()));
  assert.equal(proxy.count("POST /api/v1/auth/login"), 1);
});

test("who signs in keeps a session that others can go on with", async () => {
  const first = new VoidVMClient({ baseURL });
  await assert.rejects(first.auth.me(), Unauthorized);
  const login = await first.auth.login(ADMIN);
  assert.equal(login.user.username, "admin");
  assert.equal((await first.auth.me()).username, "admin");
  const second = new VoidVMClient({ baseURL, ...first.auth.tokens });
  assert.equal((await second.auth.me()).username, "admin");
  await second.auth.logout();
  assert.equal(second.auth.tokens, undefined);
  await assert.rejects(first.auth.me(), SessionEnded);
});

test("a wrong password is said to be wrong, once", async (t) => {
  const proxy = await Proxy.start(t);
  const username = fresh("nobody");
  const client = new VoidVMClient({ baseURL: proxy.baseURL, username, password: "x" });
  await assert.rejects(client.auth.me(), InvalidCredentials);
  assert.equal(proxy.count("POST /api/v1/auth/login"), 1);
});

test("a token that is refused is renewed once, however many calls notice", async (t) => {
  const { refreshToken = "" } = await signedIn();
  const proxy = await Proxy.start(t);
  const told: unknown[] = [];
  const options = { token: "old", refreshToken, onSession: (tokens: unknown) => told.push(tokens) };
  const client = new VoidVMClient({ baseURL: proxy.baseURL, ...options });
  const names = await Promise.all(Array.from({ length: 20 }, () => client.auth.me()));
  assert.deepEqual([...new Set(names.map((me) => me.username))], ["admin"]);
  assert.equal(proxy.count("POST /api/v1/auth/refresh"), 1);
  assert.deepEqual(told, [client.auth.tokens]);
  assert.notEqual(client.auth.tokens?.refreshToken, refreshToken);
});

test("a refresh whose answer is lost does not end the session", async (t) => {
  const { refreshToken = "" } = await signedIn();
  const proxy = await Proxy.start(t);
  [proxy.lose, proxy.loseOf] = [1, "/auth/refresh"];
  const client = new VoidVMClient({ baseURL: proxy.baseURL, token: "old", refreshToken });
  assert.equal((await client.auth.me()).username, "admin");
  assert.equal(proxy.count("POST /api/v1/auth/refresh"), 2);
});

test("who gives up does not end the renewal that others wait for", async () => {
  const { refreshToken = "" } = await signedIn();
  const client = new VoidVMClient({ baseURL, token: "old", refreshToken });
  const controller = new AbortController();
  const impatient = client.auth.me({ signal: controller.signal });
  const patient = client.auth.me();
  controller.abort(new Error("no time"));
  await assert.rejects(impatient, /no time/);
  assert.equal((await patient).username, "admin");
});

test("without a password an ended session stays ended; with one there is a new one", async () => {
  const tokens = await signedIn();
  const other = new VoidVMClient({ baseURL, ...tokens });
  await other.auth.logout();
  await assert.rejects(new VoidVMClient({ baseURL, ...tokens }).auth.me(), SessionEnded);
  const client = new VoidVMClient({ baseURL, ...tokens, ...ADMIN });
  assert.equal((await client.auth.me()).username, "admin");
});

test("a token is renewed before it runs out", async () => {
  let renewals = 0;
  const answer = (token: string, lifeMs: number) => {
    const expiresAt = new Date(Date.now() + lifeMs).toISOString();
    return Response.json({ data: { token, refreshToken: `r-${token}`, expiresAt } });
  };
  const fetch = async (url: string, init: RequestInit) => {
    if (url.endsWith("/login")) return answer("first", 500);
    if (url.endsWith("/refresh")) return answer(`next-${++renewals}`, 3_600_000);
    return Response.json({ data: { username: new Headers(init.headers).get("authorization") } });
  };
  const client = new VoidVMClient({ ...ADMIN, fetch: fetch as typeof globalThis.fetch });
  assert.equal((await client.auth.me()).username, "Bearer first");
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal((await client.auth.me()).username, "Bearer next-1");
  assert.equal((await client.auth.me()).username, "Bearer next-1");
});

async function signedIn() {
  const client = new VoidVMClient({ baseURL });
  await client.auth.login(ADMIN);
  return client.auth.tokens ?? { token: "" };
}
