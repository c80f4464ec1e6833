/** What changes, as it happens: server-sent events that go on where they broke off. */

import { errorOf } from "./answers.js";
import { ConnectionFailed, isPassing, TimedOut, type ApiError } from "./errors.js";
import type { Http } from "./http.js";
import type { Event, EventList, EventsQuery } from "./schema.js";
import { idOf, type CallOptions, type Ref } from "./types.js";
import { backoffMs, deadline, follow, orAborted, pause } from "./waiting.js";

/** What to follow. */
export interface EventsOptions {
  /** Begin after this event's id; by default with what happens next. */
  readonly after?: string | undefined;
  /** Of this VM only. */
  readonly vm?: Ref | undefined;
  /** Ends the iteration with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds for which a service that is away is waited for; `Infinity` by default. */
  readonly patienceMs?: number | undefined;
}

/** `client.events`: call it to follow events, or `list` those that are kept. */
export interface Events {
  /** Follow what changes. */
  (options?: EventsOptions): EventStream;
  /** Some of those that are kept: what came after `after`, else the newest, oldest first. */
  list(query?: EventsQuery, options?: CallOptions): Promise<EventList>;
}

/** @internal */
export function eventsOf(http: Http): Events {
  return Object.assign((options?: EventsOptions) => new EventStream(http, options), {
    list: (query: EventsQuery = {}, options?: CallOptions) =>
      http.call("list_events", { query }, options),
  });
}

interface Message {
  readonly kind: string;
  readonly data: string;
}

// The service says something every 15 s.
const SILENCE_MS = 60_000;
const FIRST_MS = 500;

/**
 * Events in their order, each once, over any number of connections. It begins to listen when it is
 * made; `await stream.opened` before doing what shall be heard of.
 *
 * Where some of what would have come is kept no more, it ends with `ResyncRequired`, whose
 * `details` is the id after which to begin anew, once all lists have been read again.
 */
export class EventStream implements AsyncIterable<Event> {
  /** Resolves when the service has begun to tell. Rejects with what `for await` would. */
  readonly opened: Promise<void>;
  /** The place up to which all was heard: `after` for who comes back later. */
  lastId: string | undefined;
  readonly #http: Http;
  readonly #options: EventsOptions;
  readonly #ending = new AbortController();
  readonly #leave: () => void;
  #isClosed = false;
  #reader: SseReader | undefined;

  /** @internal */
  constructor(http: Http, options: EventsOptions = {}) {
    this.#http = http;
    this.#options = options;
    this.#leave = follow(this.#ending, options.signal);
    this.#signal.addEventListener("abort", () => this.#reader?.cancel(), { once: true });
    this.lastId = options.after;
    this.opened = this.#open().then((reader) => void (this.#reader = reader));
    // Who only iterates hears of it there.
    this.opened.catch(() => {});
  }

  /** Listen no more. */
  close(): void {
    this.#isClosed = true;
    this.#leave();
    this.#ending.abort();
  }

  /** The events, for ever: until the loop is left, `close` or an error. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Event, void, undefined> {
    try {
      await this.opened;
      for (;;) {
        const message = await this.#next();
        if (message.kind === "resync-required") throw resyncRequired(this.lastId);
        yield JSON.parse(message.data) as Event;
      }
    } catch (error) {
      if (!this.#isClosed) throw error;
    } finally {
      this.close();
    }
  }

  async #next(): Promise<Message> {
    for (;;) {
      try {
        const message = await this.#reader?.next((id) => (this.lastId = id));
        if (message) return message;
      } catch (error) {
        this.#signal.throwIfAborted();
      }
      this.#reader = await this.#reopen();
    }
  }

  async #reopen(): Promise<SseReader> {
    const { patienceMs = Infinity } = this.#options;
    const since = performance.now();
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#open({ retries: 0 });
      } catch (error) {
        const isOver = performance.now() - since > patienceMs || !isPassing(error);
        if (isOver || this.#signal.aborted) throw error;
        await pause(backoffMs(attempt, { firstMs: FIRST_MS }), this.#signal);
      }
    }
  }

  async #open(tries: { readonly retries?: number } = {}): Promise<SseReader> {
    const { vm } = this.#options;
    // In the query: of pages elsewhere, the header Last-Event-ID would need leave.
    const query = { after: this.lastId, vm: vm === undefined ? undefined : idOf(vm) };
    const headers = { accept: "text/event-stream" };
    const read = (response: Response) => new SseReader(response, this.#signal);
    const options = { headers, signal: this.#signal, timeoutMs: SILENCE_MS, ...tries };
    const reader = await this.#http.send("stream_events", { query }, read, options);
    // The first thing that it says is its place.
    await reader.greeted((id) => (this.lastId = id));
    return reader;
  }

  get #signal(): AbortSignal {
    return this.#ending.signal;
  }
}

function resyncRequired(lastId = ""): ApiError {
  const message = "Some events are not kept any more.";
  const body = { code: "RESYNC_REQUIRED", message, details: lastId, requestId: "", retryable: false };
  return errorOf(body, { status: 410 });
}

/** Takes a response apart into messages (HTML Standard, 9.2.6), as far as the service uses them. */
class SseReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #decoder = new TextDecoder();
  readonly #signal: AbortSignal;
  #text = "";

  constructor(response: Response, signal: AbortSignal) {
    this.#signal = signal;
    if (!response.body) throw new ConnectionFailed("The stream has no body");
    this.#reader = response.body.getReader();
  }

  /** Take in the first block, which has no event. */
  async greeted(onId: (id: string) => void): Promise<void> {
    const block = await this.#block();
    if (block === undefined) throw new ConnectionFailed("The stream ended before it began");
    parse(block, onId);
  }

  /** The next event; undefined when the stream has ended. `onId` is told each place. */
  async next(onId: (id: string) => void): Promise<Message | undefined> {
    for (;;) {
      const block = await this.#block();
      if (block === undefined) return undefined;
      const message = parse(block, onId);
      if (message) return message;
    }
  }

  /** Hang up: a stream that nobody reads would keep a program from ending. */
  cancel(): void {
    this.#reader.cancel().catch(() => {});
  }

  async #block(): Promise<string | undefined> {
    let end: number;
    while ((end = this.#text.indexOf("\n\n")) < 0) {
      const piece = await this.#read();
      if (piece === undefined) return undefined;
      this.#text += piece;
    }
    const block = this.#text.slice(0, end);
    this.#text = this.#text.slice(end + 2);
    return block;
  }

  async #read(): Promise<string | undefined> {
    const { signal, done } = deadline({ signal: this.#signal, timeoutMs: SILENCE_MS }, "an event");
    try {
      const piece = await orAborted(this.#reader.read(), signal);
      return piece.done ? undefined : this.#decoder.decode(piece.value, { stream: true });
    } catch (error) {
      this.cancel();
      throw error instanceof TimedOut ? new ConnectionFailed("The stream is silent") : error;
    } finally {
      done();
    }
  }
}

function parse(block: string, onId: (id: string) => void): Message | undefined {
  let kind = "message";
  const data: string[] = [];
  for (const line of block.split("\n")) {
    const [, name, value = ""] = /^([^:]*)(?:: ?(.*))?$/.exec(line) ?? [];
    if (name === "id") onId(value);
    else if (name === "event") kind = value;
    else if (name === "data") data.push(value);
  }
  return data.length > 0 ? { kind, data: data.join("\n") } : undefined;
}
