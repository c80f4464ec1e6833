/** A connection that is made again whenever it breaks, for as long as the service lets it. */

import { ApiError, ConnectionFailed, isPassing, type VoidVMError } from "./errors.js";
import type { Http } from "./http.js";
import type { OperationId } from "./types.js";
import { backoffMs, deadline, follow, pause } from "./waiting.js";
import { Channel } from "./websocket.js";

/** How sockets are kept. */
export interface LinkOptions {
  /** Ends it with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds for which a service that is away is waited for; 60,000. */
  readonly patienceMs?: number | undefined;
}

/** Where to connect: what gives the ticket, and where it is good. */
export interface Address {
  readonly ticket: "create_console_ticket" | "create_ws_ticket";
  readonly socket: OperationId;
  readonly protocol: string;
  readonly path?: Readonly<Record<string, string>>;
  readonly query?: object;
  /** Body of the call for the ticket. */
  readonly body?: object;
}

/** What is done with a connection. */
export interface Conversation {
  /** Where to connect, once there is something to connect for. */
  address(): Address | Promise<Address>;
  /** A connection was made: say what must be said first. */
  begin(channel: Channel): void;
  /** Take a message. */
  take(message: string | Uint8Array<ArrayBuffer>): void;
  /** A connection has ended; another one follows. */
  pausing(error: VoidVMError): void;
  /** There will be no other: for a reason, or since it was closed here. */
  end(error?: unknown): void;
}

const PATIENCE_MS = 60_000;
// Some WebSockets never tell that they were cut while they connected.
const CONNECT_MS = 10_000;
const FIRST_MS = 200;
// A peer that is gone without a word is found out by its silence.
const PING_MS = 20_000;

/** Keeps a conversation going. It ends by `close`, its signal, or what the service refuses. */
export class Link {
  readonly #http: Http;
  readonly #conversation: Conversation;
  readonly #options: LinkOptions;
  readonly #ending = new AbortController();
  readonly #signal = this.#ending.signal;
  readonly #leave: () => void;
  #isClosed = false;
  #channel: Channel | undefined;

  constructor(http: Http, conversation: Conversation, options: LinkOptions = {}) {
    this.#http = http;
    this.#conversation = conversation;
    this.#options = options;
    this.#leave = follow(this.#ending, options.signal);
    void this.#run();
  }

  /** The connection of this moment. */
  get channel(): Channel | undefined {
    return this.#channel;
  }

  /** Let this connection go; another one follows. */
  drop(): void {
    this.#channel?.close();
  }

  /** End it. */
  close(): void {
    this.#isClosed = true;
    this.#ending.abort();
  }

  async #run(): Promise<void> {
    let error: unknown;
    try {
      let channel = await this.#connect();
      for (;;) {
        this.#conversation.pausing(await this.#converse(channel));
        channel = await this.#reconnect();
      }
    } catch (reason) {
      error = reason;
    }
    this.#leave();
    this.#conversation.end(this.#isClosed ? undefined : error);
  }

  /** Why the connection ended. Rejects with what the conversation throws, and when it is closed. */
  async #converse(channel: Channel): Promise<VoidVMError> {
    let isAlive = true;
    const timer = setInterval(() => {
      if (!isAlive) return channel.close();
      isAlive = false;
      ping(channel);
    }, PING_MS);
    try {
      this.#channel = channel;
      this.#conversation.begin(channel);
      for (;;) {
        const message = await channel.receive(this.#signal);
        isAlive = true;
        this.#conversation.take(message);
      }
    } catch (error) {
      if (error instanceof ConnectionFailed && !this.#signal.aborted) return error;
      throw error;
    } finally {
      clearInterval(timer);
      this.#channel = undefined;
      channel.close();
    }
  }

  async #reconnect(): Promise<Channel> {
    const { patienceMs = PATIENCE_MS } = this.#options;
    const since = performance.now();
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#connect({ retries: 0 });
      } catch (error) {
        const isOver = performance.now() - since > patienceMs;
        if (isOver || this.#signal.aborted || !isPassing(error)) throw error;
        const wantedMs = error instanceof ApiError ? (error.retryAfter ?? 0) * 1000 : 0;
        await pause(Math.max(wantedMs, backoffMs(attempt, { firstMs: FIRST_MS })), this.#signal);
      }
    }
  }

  // The call for the ticket says in words why it is refused, which a handshake tells no page.
  async #connect(tries: { readonly retries?: number } = {}): Promise<Channel> {
    const address = await this.#conversation.address();
    const { path = {}, query = {}, body = {} } = address;
    const options = { signal: this.#signal, timeoutMs: CONNECT_MS, ...tries };
    const ask = { path, ...(address.ticket === "create_console_ticket" && { body }) };
    const read = async (response: Response) =>
      ((await response.json()) as { data: { ticket: string } }).data.ticket;
    const ticket = await this.#http.send(address.ticket, ask, read, options);
    const url = this.#http.url(address.socket, { path, query }, "ws");
    const protocols = [address.protocol, `ticket.${ticket}`];
    const { signal, done } = deadline({ signal: this.#signal, timeoutMs: CONNECT_MS }, "connecting");
    try {
      return await Channel.open(url, protocols, { WebSocket: this.#http.WebSocket, signal });
    } catch (error) {
      this.#signal.throwIfAborted();
      throw new ConnectionFailed("The WebSocket could not be opened", { cause: error });
    } finally {
      done();
    }
  }
}

function ping(channel: Channel): void {
  try {
    channel.send('{"type":"ping"}');
  } catch {
    // Whoever receives hears that it has ended.
  }
}
