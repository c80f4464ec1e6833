/// <reference lib="esnext.disposable" preserve="true" />
/** A VM's serial console, as one stream of bytes over any number of connections. */

import { ConnectionFailed, VoidVMError } from "./errors.js";
import type { Http } from "./http.js";
import { Link, type Address, type LinkOptions } from "./link.js";
import type {
  ConsoleError,
  ConsoleGap,
  ConsoleHello,
  ConsolePong,
  ConsoleStatus,
  ConsoleViewers,
} from "./schema.js";
import type { CallOptions } from "./types.js";
import { Unread, type Found } from "./unread.js";
import { deadline, News } from "./waiting.js";
import type { Channel } from "./websocket.js";

/** What the service says beside the line's bytes. */
export type ConsoleNotice =
  | ConsoleHello
  | ConsoleGap
  | ConsoleStatus
  | ConsoleViewers
  | ConsolePong
  | ConsoleError;

/** How to attach. */
export interface ConsoleOptions extends LinkOptions {
  /** `read`: nothing can be typed; `write` by default. */
  readonly mode?: ConsoleHello["mode"] | undefined;
  /** Offset from which history is wanted, or `end`: none of it; default: the last 64 KiB. */
  readonly since?: number | "end" | undefined;
  /** Bytes that are held for a reader that is busy; more of them wait in the service; 1 MiB. */
  readonly unreadBytes?: number | undefined;
  /** Is told of gaps in the history, of the VM's status and of viewers that come and go. */
  readonly onNotice?: ((notice: ConsoleNotice) => void) | undefined;
}

const UNREAD_BYTES = 1024 ** 2;
// A message may have a megabyte; the service takes small ones sooner.
const PIECE_BYTES = 16 * 1024;

/**
 * A console. It attaches when it is made, and again, from the byte where it was, whenever the
 * connection breaks: nothing is missing and nothing comes twice.
 *
 *     const console = client.vms.console("web", { since: "end" });
 *     await console.write("\n");
 *     await console.expect(/login: $/);
 *     await console.close();
 */
export class Console implements AsyncIterable<Uint8Array<ArrayBuffer>> {
  readonly #options: ConsoleOptions;
  readonly #mostBytes: number;
  readonly #link: Link;
  readonly #news = new News();
  readonly #unread = new Unread();
  // What waits for its pong, by number.
  readonly #typed = new Map<number, (error?: VoidVMError) => void>();
  #number = 0;
  #vm: string;
  #hello: ConsoleHello | undefined;
  // The place of the next byte to come; undefined before the first hello.
  #place: number | undefined;
  // Dropped because nobody reads, until somebody does.
  #isFull = false;
  #isEnded = false;
  #error: unknown;

  /** @internal */
  constructor(http: Http, vm: string, options: ConsoleOptions = {}) {
    this.#vm = vm;
    this.#options = options;
    this.#mostBytes = options.unreadBytes ?? UNREAD_BYTES;
    this.#link = new Link(
      http,
      {
        address: () => this.#address(),
        begin: () => {},
        take: (message) => this.#take(message),
        pausing: (error) => this.#pausing(error),
        end: (error) => this.#end(error),
      },
      options,
    );
  }

  /** The VM and its console as the service last told; undefined before the first connection. */
  get state(): ConsoleHello | undefined {
    return this.#hello;
  }

  /** The place of the next byte that is read; undefined before the first connection. */
  get offset(): number | undefined {
    return this.#place === undefined ? undefined : this.#place - this.#unread.size;
  }

  /** Wait until it is attached. Rejects with why it cannot be, such as `VmNotFound`. */
  async opened(options: CallOptions = {}): Promise<ConsoleHello> {
    return this.#until(() => this.#hello, "attaching", options);
  }

  /** All output that was not read yet, at least a byte; undefined once it is closed. */
  async read(options: CallOptions = {}): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const take = () => {
      const bytes = this.#unread.takeAll();
      return bytes.length > 0 ? bytes : undefined;
    };
    try {
      return await this.#until(take, "reading", options);
    } catch (error) {
      if (this.#isEnded && this.#error === undefined) return undefined;
      throw error;
    } finally {
      this.#news.tell();
    }
  }

  /** Output as it comes, until `close`. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    for (let bytes; (bytes = await this.read()) !== undefined; ) yield bytes;
  }

  /**
   * Read up to the end of what matches: a text, or a regular expression, which is tried on all that
   * is unread whenever there is more. Rejects with `TimedOut` after `timeoutMs`, by default 60,000;
   * what was looked through then stays unread.
   */
  async expect(pattern: string | RegExp, options: CallOptions = {}): Promise<Found> {
    const find = () => this.#unread.find(pattern, { mostBytes: this.#mostBytes / 2 });
    const { timeoutMs = 60_000, signal } = options;
    try {
      return await this.#until(find, `expecting ${String(pattern)}`, { timeoutMs, signal });
    } finally {
      this.#news.tell();
    }
  }

  /**
   * Type on the line; resolves when the service has taken it.
   *
   * While there is no connection it waits for one. Rejects with `ConnectionFailed` if one breaks
   * before the service has confirmed: what was typed may then have arrived or not, and is never
   * typed again by itself.
   */
  async write(data: string | Uint8Array, options: CallOptions = {}): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    await this.#confirmed("typing", options, (channel) => {
      for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
        channel.send(bytes.slice(at, at + PIECE_BYTES));
      }
    });
  }

  /** Send a break on the line. Resolves and rejects as `write`. */
  async sendBreak(options: CallOptions = {}): Promise<void> {
    await this.#confirmed("a break", options, (channel) => channel.send('{"type":"break"}'));
  }

  /** Detach. Who reads gets what had come, and then the end. */
  async close(): Promise<void> {
    this.#link.close();
    while (!this.#isEnded) await this.#news.heard();
  }

  /** `await using` closes it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #confirmed(
    what: string,
    options: CallOptions,
    say: (channel: Channel) => void,
  ): Promise<void> {
    if (this.#options.mode === "read") throw new VoidVMError("This console was opened for reading");
    const { signal, done } = deadline(options, what);
    try {
      const attached = () => this.#hello && this.#link.channel;
      const channel = await this.#until(attached, what, { signal });
      const number = ++this.#number;
      let outcome: { error?: VoidVMError | undefined } | undefined;
      this.#typed.set(number, (error) => (outcome = { error }));
      say(channel);
      channel.send(JSON.stringify({ type: "ping", id: number }));
      await this.#until(() => outcome, what, { signal });
      if (outcome?.error) throw outcome.error;
    } finally {
      done();
    }
  }

  async #until<T>(look: () => T | undefined, what: string, options: CallOptions): Promise<T> {
    const { signal, done } = deadline(options, what);
    try {
      for (;;) {
        const found = look();
        if (found !== undefined) return found;
        if (this.#isEnded) throw this.#error ?? new VoidVMError("The console is closed");
        signal.throwIfAborted();
        await this.#news.heard(signal);
      }
    } finally {
      done();
    }
  }

  async #address(): Promise<Address> {
    while (this.#isFull && this.#unread.size > this.#mostBytes / 2) await this.#news.heard();
    this.#isFull = false;
    const since = this.#place ?? this.#options.since;
    return {
      ticket: "create_console_ticket",
      socket: "attach_console",
      protocol: "voidvm.console.v1",
      path: { vm: this.#vm },
      query: { since },
      body: { mode: this.#options.mode ?? "write" },
    };
  }

  #take(message: string | Uint8Array<ArrayBuffer>): void {
    if (typeof message === "string") {
      this.#notice(JSON.parse(message) as ConsoleNotice);
    } else if (this.#place !== undefined) {
      this.#unread.put(message);
      this.#place += message.length;
      if (this.#unread.size > this.#mostBytes) {
        // What still comes on this connection is left out, and asked for again later.
        this.#isFull = true;
        this.#link.drop();
      }
    }
    this.#news.tell();
  }

  #notice(notice: ConsoleNotice): void {
    switch (notice.type) {
      case "hello":
        this.#hello = notice;
        // From here on it is this VM, whoever gets its name.
        this.#vm = notice.vmId;
        this.#place = notice.offset;
        break;
      case "gap":
        this.#place = notice.to;
        break;
      case "status":
        if (this.#hello) this.#hello = { ...this.#hello, status: notice.status };
        break;
      case "viewers":
        if (this.#hello) this.#hello = { ...this.#hello, viewers: notice.count };
        break;
      case "pong":
        this.#settle(notice.id);
        return;
      case "error":
        break;
    }
    this.#options.onNotice?.(notice);
  }

  #settle(number: unknown, error?: VoidVMError): void {
    this.#typed.get(number as number)?.(error);
    this.#typed.delete(number as number);
  }

  #pausing(cause: VoidVMError): void {
    const message = "The connection broke before what was typed was confirmed";
    const error = new ConnectionFailed(message, { cause });
    for (const number of [...this.#typed.keys()]) this.#settle(number, error);
    this.#news.tell();
  }

  #end(error?: unknown): void {
    this.#isEnded = true;
    this.#error = error;
    this.#news.tell();
  }
}
