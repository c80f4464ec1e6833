/** Which WebSocket there is, and one connection of it as something that can be awaited. */

import { ConnectionFailed } from "./errors.js";
import { News } from "./waiting.js";

/** As much of a WebSocket as this package uses. */
export interface WebSocketLike {
  binaryType: string;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: { readonly data: unknown }) => void) | null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** A class of WebSockets: the platform's own, or another. */
export type WebSocketClass = new (url: string, protocols: string[]) => WebSocketLike;

/** The platform's WebSocket; Node.js before 22 has none, so one comes with this package. */
async function platformClass(): Promise<WebSocketClass> {
  const { WebSocket } = globalThis as { WebSocket?: WebSocketClass };
  return WebSocket ?? (await import("./node-websocket.js")).NodeWebSocket;
}

/** The connection has ended, for which `code` and `message` are the reason (RFC 6455, 7.4). */
export class ChannelClosed extends ConnectionFailed {
  readonly code: number;

  constructor(code: number, reason: string) {
    super(reason || `The connection was closed with ${code}`);
    this.code = code;
  }
}

/** One connection: messages come in their order, until it is closed. */
export class Channel {
  readonly #socket: WebSocketLike;
  readonly #news = new News();
  readonly #messages: (string | Uint8Array<ArrayBuffer>)[] = [];
  #closed: ChannelClosed | undefined;

  private constructor(socket: WebSocketLike) {
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      this.#messages.push(typeof data === "string" ? data : new Uint8Array(data as ArrayBuffer));
      this.#news.tell();
    };
    socket.onclose = ({ code, reason }) => {
      this.#closed ??= new ChannelClosed(code, reason);
      this.#news.tell();
    };
    // A close always follows, and says all that may be known.
    socket.onerror = () => {};
  }

  /** Connect. Rejects with `ConnectionFailed` or the signal's reason. */
  static async open(
    url: string,
    protocols: string[],
    { WebSocket, signal }: { WebSocket?: WebSocketClass | undefined; signal: AbortSignal },
  ): Promise<Channel> {
    signal.throwIfAborted();
    const kind = WebSocket ?? (await platformClass());
    const socket = new kind(url, protocols);
    const channel = new Channel(socket);
    let isOpen = false;
    socket.onopen = () => {
      isOpen = true;
      channel.#news.tell();
    };
    try {
      while (!isOpen && !channel.#closed) await channel.#news.heard(signal);
    } catch (error) {
      channel.close();
      throw error;
    }
    if (channel.#closed) throw channel.#closed;
    return channel;
  }

  /** Send a message. Throws `ChannelClosed`. */
  send(message: string | Uint8Array<ArrayBuffer>): void {
    if (this.#closed) throw this.#closed;
    this.#socket.send(message);
  }

  /** The next message. Rejects with `ChannelClosed` after the last one. */
  async receive(signal?: AbortSignal): Promise<string | Uint8Array<ArrayBuffer>> {
    for (;;) {
      const message = this.#messages.shift();
      if (message !== undefined) return message;
      if (this.#closed) throw this.#closed;
      await this.#news.heard(signal);
    }
  }

  /** Hang up, and take nothing more; safe to call twice. */
  close(): void {
    this.#messages.length = 0;
    this.#socket.onmessage = null;
    this.#closed ??= new ChannelClosed(1000, "");
    this.#news.tell();
    this.#socket.close();
  }
}

