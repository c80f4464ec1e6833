/** Frames of WebSockets (RFC 6455, 5), as a client writes and reads them; for Node.js only. */

import { randomBytes } from "node:crypto";

/** What a frame is. */
export const Opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** A whole message, or a control frame. */
export interface Frame {
  readonly opcode: number;
  readonly payload: Buffer;
}

/** The other side does not speak the protocol; `code` is what it is told. */
export class ProtocolError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

const FINAL = 0x80;
const MASKED = 0x80;
const RESERVED = 0x70;
const CONTROL = 0x8;
const CONTROL_MAX_BYTES = 125;
// Above anything that the service says.
const MESSAGE_MAX_BYTES = 64 * 1024 ** 2;
const BROKEN = 1002;
const TOO_LARGE = 1009;

/** A frame to send, masked as those of clients must be. */
export function frame(opcode: number, payload: Uint8Array): Buffer {
  const head = lengthOf(payload.length);
  const mask = randomBytes(4);
  const bytes = Buffer.allocUnsafe(1 + head.length + 4 + payload.length);
  bytes[0] = FINAL | opcode;
  head.copy(bytes, 1);
  bytes[1]! |= MASKED;
  const at = 1 + head.length;
  mask.copy(bytes, at);
  for (let i = 0; i < payload.length; i++) bytes[at + 4 + i] = payload[i]! ^ mask[i & 3]!;
  return bytes;
}

function lengthOf(length: number): Buffer {
  if (length < 126) return Buffer.of(length);
  if (length < 65_536) return Buffer.of(126, length >> 8, length & 0xff);
  const bytes = Buffer.alloc(9, 127);
  bytes.writeBigUInt64BE(BigInt(length), 1);
  return bytes;
}

/** Puts messages together from bytes that come in pieces of any size. */
export class FrameReader {
  #pieces: Buffer[] = [];
  #size = 0;
  // A message in several frames, so far.
  #opcode: number | undefined;
  #parts: Buffer[] = [];
  #length = 0;

  /** The messages and control frames that are whole now. Throws `ProtocolError`. */
  *put(bytes: Buffer): Generator<Frame, void, undefined> {
    this.#pieces.push(bytes);
    this.#size += bytes.length;
    for (let head; (head = this.#head()); ) {
      if (this.#size < head.size + head.length) return;
      const all = this.#joined();
      const payload = all.subarray(head.size, head.size + head.length);
      this.#keep(all.subarray(head.size + head.length));
      const whole = head.opcode & CONTROL ? { opcode: head.opcode, payload } : this.#add(head, payload);
      if (whole) yield whole;
    }
  }

  #head(): Head | undefined {
    if (this.#size < 2) return undefined;
    // Long messages come in many pieces, whose joining again and again would take long.
    const start = this.#pieces[0]!.length >= 10 ? this.#pieces[0]! : this.#joined();
    const [first, second] = [start[0]!, start[1]!];
    const short = second & 0x7f;
    const size = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (start.length < size) return undefined;
    const length =
      short < 126 ? short : short === 126 ? start.readUInt16BE(2) : Number(start.readBigUInt64BE(2));
    const head = { opcode: first & 0xf, isFinal: (first & FINAL) !== 0, size, length };
    this.#check(head, first, second);
    return head;
  }

  #check({ opcode, isFinal, length }: Head, first: number, second: number): void {
    if (first & RESERVED) throw new ProtocolError(BROKEN, "A reserved bit is set");
    if (second & MASKED) throw new ProtocolError(BROKEN, "A frame from the service is masked");
    if (!Object.values<number>(Opcode).includes(opcode)) {
      throw new ProtocolError(BROKEN, `There is no opcode ${opcode}`);
    }
    if (opcode & CONTROL && (!isFinal || length > CONTROL_MAX_BYTES)) {
      throw new ProtocolError(BROKEN, "A control frame is too long or in pieces");
    }
    if (this.#length + length > MESSAGE_MAX_BYTES) {
      throw new ProtocolError(TOO_LARGE, "A message is too large");
    }
  }

  #add({ opcode, isFinal }: Head, payload: Buffer): Frame | undefined {
    const isFirst = opcode !== Opcode.continuation;
    if (isFirst === (this.#opcode !== undefined)) {
      throw new ProtocolError(BROKEN, "The parts of two messages are mixed");
    }
    const kind = this.#opcode ?? opcode;
    this.#parts.push(payload);
    this.#length += payload.length;
    if (!isFinal) {
      this.#opcode = kind;
      return undefined;
    }
    const parts = this.#parts;
    this.#opcode = undefined;
    this.#parts = [];
    this.#length = 0;
    return { opcode: kind, payload: parts.length === 1 ? parts[0]! : Buffer.concat(parts) };
  }

  #joined(): Buffer {
    if (this.#pieces.length > 1) this.#keep(Buffer.concat(this.#pieces));
    return this.#pieces[0]!;
  }

  #keep(bytes: Buffer): void {
    this.#pieces = bytes.length > 0 ? [bytes] : [];
    this.#size = bytes.length;
  }
}

interface Head {
  readonly opcode: number;
  readonly isFinal: boolean;
  readonly size: number;
  readonly length: number;
}
