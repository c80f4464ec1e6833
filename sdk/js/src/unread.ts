/** Bytes that wait to be read, and to be searched as text. */

/** What was found on a console. */
export interface Found {
  /** What matched, with the groups of a regular expression. */
  readonly match: RegExpExecArray;
  /** The text before it, that was unread till then. */
  readonly before: string;
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const UNKNOWN = "\u{fffd}";

/** Grows at one end and is read from the other. */
export class Unread {
  #pieces: Uint8Array<ArrayBuffer>[] = [];
  #size = 0;

  /** How many bytes wait. */
  get size(): number {
    return this.#size;
  }

  /** Add bytes. */
  put(bytes: Uint8Array<ArrayBuffer>): void {
    if (bytes.length > 0) this.#pieces.push(bytes);
    this.#size += bytes.length;
  }

  /** Take all. */
  takeAll(): Uint8Array<ArrayBuffer> {
    const all = this.#joined();
    this.#keep(new Uint8Array(0));
    return all;
  }

  /**
   * Take all up to the end of the first match; undefined if there is none, of more than
   * `mostBytes` then only the newest half is kept.
   */
  find(pattern: string | RegExp, { mostBytes }: { readonly mostBytes: number }): Found | undefined {
    const bytes = this.#joined();
    const text = decoder.decode(bytes);
    const match = compiled(pattern).exec(text);
    if (!match) {
      this.#keep(bytes.length > mostBytes ? bytes.subarray(bytes.length - mostBytes / 2) : bytes);
      return undefined;
    }
    const end = match.index + match[0].length;
    this.#keep(bytes.subarray(bytesOf(text.slice(0, end), bytes)));
    return { match, before: text.slice(0, match.index) };
  }

  #joined(): Uint8Array<ArrayBuffer> {
    const [first] = this.#pieces;
    if (first && this.#pieces.length === 1) return first;
    const all = new Uint8Array(this.#size);
    let at = 0;
    for (const piece of this.#pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }

  #keep(bytes: Uint8Array<ArrayBuffer>): void {
    this.#pieces = bytes.length > 0 ? [bytes] : [];
    this.#size = bytes.length;
  }
}

function compiled(pattern: string | RegExp): RegExp {
  if (typeof pattern === "string") {
    return new RegExp(pattern.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  }
  // A pattern that remembers where it was would skip what is new.
  return pattern.global || pattern.sticky
    ? new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ""))
    : pattern;
}

/** How many of the bytes a text was decoded from, which is how they begin. */
function bytesOf(text: string, bytes: Uint8Array): number {
  if (!text.includes(UNKNOWN)) return new TextEncoder().encode(text).length;
  // What is not UTF-8 has no length of its own: count as they are decoded.
  const stepwise = new TextDecoder("utf-8", { ignoreBOM: true });
  let length = 0;
  let count = 0;
  while (length < text.length && count < bytes.length) {
    length += stepwise.decode(bytes.subarray(count, ++count), { stream: true }).length;
  }
  return count;
}
