/** One call of the API: credential, deadline, repetition where it is safe, answer or error. */

import { dataIn, errorIn, etagOf } from "./answers.js";
import { ApiError, ConnectionFailed, VoidVMError } from "./errors.js";
import { PUBLIC, ROUTES } from "./routes.js";
import type { Session } from "./session.js";
import type { ActionOptions, ChangeOptions, Data, Input, OperationId } from "./types.js";
import { backoffMs, deadline, pause } from "./waiting.js";
import type { WebSocketClass } from "./websocket.js";

/** How a client reaches the service. */
export interface HttpOptions {
  /** Address of the API; one without path gets `/api/v1`. */
  readonly baseURL?: string | undefined;
  /** Milliseconds that a call may take, repetitions included; 60,000. */
  readonly timeoutMs?: number | undefined;
  /** How often a call is repeated where that is safe; 4. */
  readonly retries?: number | undefined;
  /** The language of messages for people; else the user's own. */
  readonly language?: "en" | "zh" | undefined;
  /** Another `fetch` than the platform's. */
  readonly fetch?: typeof fetch | undefined;
  /** Another `WebSocket` than the platform's; where that has none, this package brings its own. */
  readonly WebSocket?: WebSocketClass | undefined;
}

/** What calls take beside their input. */
export type SendOptions = ActionOptions & ChangeOptions;

interface Sending extends SendOptions {
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** A body that is not JSON; its headers say what it is. */
  readonly bytes?: Blob | Uint8Array<ArrayBuffer> | undefined;
  readonly retries?: number | undefined;
}

/** What is sent, as plain values. */
interface Parts {
  readonly path?: Readonly<Record<string, string>> | undefined;
  readonly query?: object | undefined;
  readonly body?: unknown;
}

// Asking for more patience than this is an answer, not a delay.
const LONGEST_PAUSE_S = 60;
// Refused before anything was done, or by something between.
const PASSING = new Set([429, 502, 503, 504]);
// The service is well, but the VM's QEMU is not: that does not pass in seconds.
const LASTING = new Set(["VM_UNRESPONSIVE", "DOWNLOAD_FAILED", "DOWNLOAD_REFUSED"]);
const TIMEOUT_MS = 60_000;
const RETRIES = 4;

/** Sends calls; knows nothing of what they mean. */
export class Http {
  readonly #root: string;
  readonly #fetch: typeof fetch;
  readonly #options: HttpOptions;
  readonly WebSocket: WebSocketClass | undefined;
  /** Whose credential goes with the calls. */
  session: Session | undefined;

  constructor(options: HttpOptions) {
    const base = options.baseURL ?? "http://127.0.0.1:3000/api/v1";
    this.#root = base.replace(/\/+$/, "").replace(/\/api\/v1$/, "");
    // Browsers want their fetch called as a function of the window.
    this.#fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    this.WebSocket = options.WebSocket;
    this.#options = options;
  }

  /** Make a call; its `data`. Rejects with `ApiError`, `ConnectionFailed` or `TimedOut`. */
  call<Id extends OperationId>(id: Id, input: Input<Id>, options?: Sending): Promise<Data<Id>> {
    return this.send(id, input as Parts, dataIn, options) as Promise<Data<Id>>;
  }

  /** Make a call whose answer is read by `read`. Rejects as `call`. */
  async send<T>(
    id: OperationId,
    parts: Parts,
    read: (response: Response) => Promise<T> | T,
    options: Sending = {},
  ): Promise<T> {
    const { timeoutMs = this.#options.timeoutMs ?? TIMEOUT_MS } = options;
    const { signal, done } = deadline({ signal: options.signal, timeoutMs }, id);
    try {
      const request = this.#request(id, parts, { ...options, signal });
      return await this.#insist(id, request, read, options.retries);
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    } finally {
      done();
    }
  }

  /** The whole address of a call; `protocol` "ws" for sockets. */
  url(id: OperationId, { path = {}, query = {} }: Parts, protocol: "http" | "ws" = "http"): string {
    const place = ROUTES[id][1].replace(/{(\w+)}/g, (_, name: string) => segment(path[name]));
    const pairs = Object.entries(query as Record<string, unknown>)
      .filter(([, value]) => value !== undefined && value !== null)
      .map(([name, value]) => [name, String(value)]);
    const search = new URLSearchParams(pairs).toString();
    const address = this.#root + place + (search && `?${search}`);
    // A page may name its own service by path alone, which sockets do not take.
    return protocol === "http"
      ? address
      : new URL(address, globalThis.location?.href).href.replace(/^http/, "ws");
  }

  #request(id: OperationId, parts: Parts, options: Sending): Call {
    const method = ROUTES[id][0];
    const headers: Record<string, string> = { accept: "application/json", ...options.headers };
    const { language } = this.#options;
    if (language) headers["accept-language"] = language;
    if (method === "POST") headers["idempotency-key"] = options.idempotencyKey ?? newKey();
    if (options.ifMatch !== undefined) headers["if-match"] = etagIn(options.ifMatch);
    let body: BodyInit | undefined = options.bytes;
    if (parts.body !== undefined) {
      headers["content-type"] = "application/json";
      body = JSON.stringify(parts.body);
    }
    return {
      url: this.url(id, parts),
      // What has an effect once at most, however often it is sent.
      isRepeatable:
        method === "GET" || method === "POST" || (method === "PUT" && !("if-match" in headers)),
      init: { method, headers, ...(body && { body }), ...(options.signal && { signal: options.signal }) },
    };
  }

  async #insist<T>(
    id: OperationId,
    call: Call,
    read: (response: Response) => Promise<T> | T,
    retries = this.#options.retries ?? RETRIES,
  ): Promise<T> {
    const session = PUBLIC.has(id) ? undefined : this.session;
    const { signal } = call.init;
    let isRenewed = false;
    for (let attempt = 0; ; attempt++) {
      const token = await session?.token(signal ?? undefined);
      if (token !== undefined) call.init.headers["authorization"] = `Bearer ${token}`;
      try {
        const response = await this.#fetch(call.url, call.init);
        if (response.ok) return await read(response);
        throw await errorIn(response);
      } catch (error) {
        signal?.throwIfAborted();
        if (isUnauthorized(error) && token !== undefined && session && !isRenewed) {
          isRenewed = await session.renewed(token, signal ?? undefined);
          if (isRenewed) continue;
        }
        const waitMs = attempt < retries ? retryAfterMs(error, call, attempt) : undefined;
        if (waitMs === undefined) throw asOurs(error, call);
        await pause(waitMs, signal ?? undefined);
      }
    }
  }
}

interface Call {
  readonly url: string;
  readonly isRepeatable: boolean;
  readonly init: RequestInit & { readonly headers: Record<string, string> };
}

/** How long to wait before a failed call is repeated; undefined: it must not be. */
function retryAfterMs(error: unknown, call: Call, attempt: number): number | undefined {
  if (!(error instanceof ApiError)) {
    return call.isRepeatable || wasNeverSent(error) ? backoffMs(attempt) : undefined;
  }
  if (!PASSING.has(error.status) || !error.retryable || LASTING.has(error.code)) return undefined;
  if (error.status !== 429 && !call.isRepeatable) return undefined;
  const wanted = error.retryAfter ?? 0;
  return wanted > LONGEST_PAUSE_S ? undefined : Math.max(wanted * 1000, backoffMs(attempt));
}

// Only Node.js tells; browsers keep it from pages.
function wasNeverSent(error: unknown): boolean {
  const cause = (error as { cause?: { code?: unknown } }).cause;
  return cause?.code === "ECONNREFUSED";
}

function isUnauthorized(error: unknown): boolean {
  return (
    error instanceof ApiError && error.status === 401 && error.code !== "INVALID_CREDENTIALS"
  );
}

function asOurs(error: unknown, call: Call): unknown {
  if (error instanceof VoidVMError) return error;
  const cause = (error as { cause?: unknown }).cause ?? error;
  const why = cause instanceof Error ? cause.message : String(cause);
  const what = `${call.init.method} ${call.url.split("?")[0]}`;
  return new ConnectionFailed(`${what}: ${why || "the connection failed"}`, { cause: error });
}

function etagIn(ifMatch: string | object): string {
  if (typeof ifMatch === "string") return ifMatch;
  const etag = etagOf(ifMatch);
  if (etag === undefined) throw new VoidVMError("This object has no ETag: read it by itself first");
  return etag;
}

/** A value as one segment of a path. */
function segment(value = ""): string {
  // URLs take a segment of dots, however it is written, for a folder above (URL Standard, 4.1).
  if (["", ".", ".."].includes(value)) throw new VoidVMError(`'${value}' is no id and no name`);
  return encodeURIComponent(value);
}

/** A key that nobody else has. */
export function newKey(): string {
  // Not randomUUID, which pages have over HTTPS only.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
