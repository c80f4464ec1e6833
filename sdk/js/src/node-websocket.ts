/**
 * A WebSocket for Node.js before 22, which has none: client side of RFC 6455, without extensions.
 *
 * Loaded only where the platform has no WebSocket, so that browsers never see Node's modules.
 */

import { createHash, randomBytes } from "node:crypto";
import { request as httpRequest, type ClientRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Duplex } from "node:stream";

import { FrameReader, frame, Opcode, ProtocolError, type Frame } from "./frames.js";
import type { WebSocketLike } from "./websocket.js";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const CLOSE_TIMEOUT_MS = 2000;
const NORMAL = 1000;
const NO_STATUS = 1005;
const ABNORMAL = 1006;

/** As much of the platform's class as this package uses. */
export class NodeWebSocket implements WebSocketLike {
  /** Binary messages are ArrayBuffers, whatever this says. */
  binaryType = "arraybuffer";
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: { readonly data: unknown }) => void) | null = null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly #frames = new FrameReader();
  #request: ClientRequest;
  #stream: Duplex | undefined;
  #isClosing = false;
  #isOver = false;
  // What the close frame said; without one it was cut.
  #end = { code: ABNORMAL, reason: "" };

  constructor(url: string, protocols: string[]) {
    const key = randomBytes(16).toString("base64");
    const address = new URL(url.replace(/^ws/, "http"));
    const send = address.protocol === "https:" ? httpsRequest : httpRequest;
    this.#request = send(address, {
      headers: {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": key,
        ...(protocols.length > 0 && { "sec-websocket-protocol": protocols.join(", ") }),
      },
    });
    this.#request.on("upgrade", (response, stream, head) => {
      const problem = handshakeProblem(response, key, protocols);
      if (problem !== undefined) {
        stream.destroy();
        this.#over(ABNORMAL, problem);
      } else this.#open(stream, head);
    });
    this.#request.on("response", (response) => {
      response.destroy();
      this.#over(ABNORMAL, `The handshake was answered ${response.statusCode}`);
    });
    this.#request.on("error", (error) => this.#over(ABNORMAL, error.message));
    this.#request.end();
  }

  /** Send a text or binary message; what is sent to a closed connection is dropped. */
  send(data: string | Uint8Array): void {
    if (this.#isClosing) return;
    const isText = typeof data === "string";
    const payload = isText ? Buffer.from(data) : data;
    this.#write(isText ? Opcode.text : Opcode.binary, payload);
  }

  /** Say goodbye, and hang up once the other side has answered or taken too long. */
  close(code = NORMAL, reason = ""): void {
    if (this.#isClosing || this.#isOver) return;
    if (!this.#stream) {
      this.#request.destroy();
      this.#over(ABNORMAL, "It was closed before it was open");
      return;
    }
    this.#sayGoodbye(code, reason);
    const stream = this.#stream;
    setTimeout(() => stream.destroy(), CLOSE_TIMEOUT_MS).unref();
  }

  #open(stream: Duplex, head: Buffer): void {
    this.#stream = stream;
    stream.on("data", (bytes: Buffer) => this.#take(bytes));
    stream.on("error", () => {});
    stream.on("end", () => stream.end());
    stream.on("close", () => this.#over(this.#end.code, this.#end.reason));
    this.onopen?.(undefined as never);
    if (head.length > 0) this.#take(head);
  }

  #take(bytes: Buffer): void {
    try {
      for (const one of this.#frames.put(bytes)) this.#obey(one);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#end = { code: ABNORMAL, reason: error.message };
      this.#sayGoodbye(error.code, "");
      this.#stream?.destroy();
    }
  }

  #obey({ opcode, payload }: Frame): void {
    switch (opcode) {
      case Opcode.text:
        this.onmessage?.({ data: textOf(payload) });
        break;
      case Opcode.binary:
        // A copy, whose buffer holds nothing else.
        this.onmessage?.({ data: Uint8Array.from(payload).buffer });
        break;
      case Opcode.ping:
        this.#write(Opcode.pong, payload);
        break;
      case Opcode.close:
        this.#end = {
          code: payload.length >= 2 ? payload.readUInt16BE() : NO_STATUS,
          reason: textOf(payload.subarray(2)),
        };
        this.#sayGoodbye(payload.length >= 2 ? this.#end.code : NORMAL, "");
        this.#stream?.end();
        break;
    }
  }

  #sayGoodbye(code: number, reason: string): void {
    if (this.#isClosing) return;
    const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
    payload.writeUInt16BE(code);
    payload.write(reason, 2);
    this.#write(Opcode.close, payload);
    this.#isClosing = true;
  }

  #write(opcode: number, payload: Uint8Array): void {
    if (this.#stream?.writable && !this.#isClosing) this.#stream.write(frame(opcode, payload));
  }

  #over(code: number, reason: string): void {
    if (this.#isOver) return;
    this.#isOver = this.#isClosing = true;
    this.onclose?.({ code, reason });
  }
}

/** What is wrong with an answer to the handshake (RFC 6455, 4.1). */
function handshakeProblem(
  { headers }: IncomingMessage,
  key: string,
  protocols: string[],
): string | undefined {
  const expected = createHash("sha1").update(key + GUID).digest("base64");
  if (headers.upgrade?.toLowerCase() !== "websocket") return "The service did not upgrade";
  if (headers["sec-websocket-accept"] !== expected) return "The handshake was not understood";
  if (headers["sec-websocket-extensions"]) return "An extension was not asked for";
  const chosen = headers["sec-websocket-protocol"];
  const isOffered = chosen === undefined ? protocols.length === 0 : protocols.includes(chosen);
  return isOffered ? undefined : "None of the subprotocols was taken";
}

function textOf(payload: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(payload);
  } catch {
    throw new ProtocolError(1007, "A text was not UTF-8");
  }
}
