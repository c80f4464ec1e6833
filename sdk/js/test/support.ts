/** What the tests share: the service that Python has started, and a proxy that breaks things. */

import { createConnection, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import type { TestContext } from "node:test";

import { VoidVMClient, type ClientOptions, type Vm } from "@void-vm/sdk";

/** An environment variable that the runner sets. */
export function given(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: these tests are run by pytest`);
  return value;
}

export const URL_OF_SERVICE = given("VOIDVM_URL");
export const TOKEN = given("VOIDVM_TOKEN");
export const ADMIN = { username: "admin", password: given("VOIDVM_PASSWORD") };

/** A client of the service for its admin. */
export function admin(options: ClientOptions = {}): VoidVMClient {
  return new VoidVMClient({ baseURL: `${URL_OF_SERVICE}/api/v1`, token: TOKEN, ...options });
}

let number = 0;

/** A name that no other test has. */
export function fresh(kind: string): string {
  return `${kind}-${process.pid}-${++number}`;
}

/** What a VM without a system needs. */
export const SMALL = { memory: 32, disk: 1, networks: [] };

/** A VM for as long as a test lasts. */
export async function withVm(use: (vm: Vm) => Promise<void>): Promise<void> {
  const vm = await admin().vms.create({ name: fresh("box"), ...SMALL });
  try {
    await use(vm);
  } finally {
    await admin().vms.delete(vm, { force: true }).catch(() => {});
  }
}

/** Between a client and the service: it counts, cuts, loses and makes up answers. */
export class Proxy {
  /** "METHOD path" of every request, in their order. */
  readonly requests: string[] = [];
  /** Answers that are given instead of the service's, one a request. */
  readonly answers: string[] = [];
  /** How many requests shall reach the service without their answers coming back. */
  lose = 0;
  /** Only of requests with this in their path. */
  loseOf = "";
  /** Whether new connections are broken at once. */
  isDown = false;
  /** Bytes from the service after which a connection is cut; each time some more, for progress. */
  cutAfterBytes = Infinity;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor() {
    this.#server = createServer((client) => this.#join(client));
  }

  /** One that ends with the test. */
  static async start(test: TestContext): Promise<Proxy> {
    const proxy = new Proxy();
    test.after(() => proxy.#close());
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  /** Where clients find it. */
  get baseURL(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/api/v1`;
  }

  /** How often a request was made. */
  count(request: string): number {
    return this.requests.filter((one) => one.startsWith(request)).length;
  }

  /** Break every connection. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async #close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(client: Socket): void {
    if (this.isDown) return void client.resetAndDestroy();
    const { hostname, port } = new URL(URL_OF_SERVICE);
    const service = createConnection(Number(port), hostname);
    let isLost = false;
    let isCut = false;
    let bytes = 0;
    const end = () => {
      client.destroy();
      service.destroy();
    };
    for (const socket of [client, service]) {
      this.#sockets.add(socket);
      socket.on("error", end).on("close", () => {
        this.#sockets.delete(socket);
        end();
      });
    }
    client.on("data", (data) => {
      const [, method, path] = /^([A-Z]+) (\S+) HTTP/.exec(data.toString("latin1")) ?? [];
      if (method !== undefined) {
        this.requests.push(`${method} ${path}`);
        const answer = this.answers.shift();
        if (answer !== undefined) return void client.write(answer);
        isLost = this.lose > 0 && path!.includes(this.loseOf) && this.lose-- > 0;
      }
      service.write(data);
    });
    service.on("data", (data) => {
      bytes += data.length;
      if (isLost) return end();
      if (isCut) return;
      if (bytes < this.cutAfterBytes) return void client.write(data);
      client.end(data.subarray(0, data.length - (bytes - this.cutAfterBytes)), end);
      this.cutAfterBytes *= 1.25;
      isCut = true;
    });
  }
}

/** An answer with an error, as the service gives it. */
export function refusal(status: number, code: string, { retryAfter = "", retryable = true } = {}): string {
  const error = { code, message: "No.", details: "", requestId: "r", retryable };
  const body = JSON.stringify({ success: false, error, timestamp: "2026-01-01T00:00:00Z" });
  const wait = retryAfter && `Retry-After: ${retryAfter}\r\n`;
  return (
    `HTTP/1.1 ${status} No\r\nContent-Type: application/json\r\n${wait}` +
    `Content-Length: ${body.length}\r\n\r\n${body}`
  );
}

/** Wait until something is so. */
export async function eventually(isSo: () => boolean, timeoutMs = 20_000): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!isSo()) {
    if (performance.now() > end) throw new Error(`not so after ${timeoutMs} ms: ${isSo}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
