/** One subscription of a live socket. */

import { VoidVMError } from "./errors.js";
import type { Subscribe, Subscribed } from "./schema.js";
import { News } from "./waiting.js";

/** What is asked for, again after each break. */
export type Wanted = Subscribe;

// Samples are of use when they are new; of all else none may be missing.
const SAMPLED: ReadonlySet<string> = new Set(["vm-metrics", "system-monitor"]);
const UNREAD_MAX = 10_000;

/** What is pushed, in its order, until the loop is left, the VM is deleted or an error. */
export class Subscription<T extends object> implements AsyncIterable<T> {
  readonly #news = new News();
  readonly #leave: () => void;
  #wanted: Wanted;
  #unread: T[] = [];
  #begun: Subscribed | undefined;
  #isEnded = false;
  #error: unknown;

  /** @internal */
  constructor(wanted: Wanted, leave: () => void) {
    this.#wanted = wanted;
    this.#leave = leave;
  }

  /** Wait until it has begun; the state as it was then. */
  async opened(signal?: AbortSignal): Promise<Subscribed> {
    while (!this.#begun) {
      if (this.#isEnded) throw this.#error ?? new VoidVMError("The subscription is closed");
      await this.#news.heard(signal);
    }
    return this.#begun;
  }

  /** Hear no more of it. */
  close(): void {
    this.#leave();
    this.end();
  }

  /** What is pushed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    try {
      for (;;) {
        const next = this.#unread.shift();
        if (next !== undefined) yield next;
        else if (!this.#isEnded) await this.#news.heard();
        else if (this.#error !== undefined) throw this.#error;
        else return;
      }
    } finally {
      this.close();
    }
  }

  /** @internal What to ask for now: what comes after all that was heard. */
  get wanted(): Wanted {
    return this.#wanted;
  }

  /** @internal Whether a push might be for both. */
  overlaps({ topic, vmId }: Wanted): boolean {
    const own = this.#wanted;
    return own.topic === topic && (!own.vmId || !vmId || own.vmId === vmId);
  }

  /** @internal Whether a message about this is for it. */
  isAbout(topic: string, vmId: string | null | undefined): boolean {
    const own = this.#wanted;
    return own.topic === topic && (!own.vmId || own.vmId === vmId);
  }

  /** @internal The service has begun to tell. */
  begun(state: Subscribed): void {
    this.#begun ??= state;
    if (state.vmId !== null) this.#wanted = { ...this.#wanted, vmId: state.vmId };
    // Before the first event, its place is where a second connection goes on.
    this.#heard(this.#wanted.after ?? state.lastEventId);
    this.#news.tell();
  }

  /** @internal Something to tell. */
  push(data: object, id: unknown): void {
    if (SAMPLED.has(this.#wanted.topic)) this.#unread = [];
    else if (this.#unread.length >= UNREAD_MAX) {
      this.#leave();
      this.end(new VoidVMError(`Nobody has read ${UNREAD_MAX} messages`));
      return;
    }
    this.#unread.push(data as T);
    if (typeof id === "string") this.#heard(id);
    this.#news.tell();
  }

  /** @internal There is nothing more to come. */
  end(error?: unknown): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#error = error;
    this.#news.tell();
  }

  #heard(id: string | null): void {
    if (id !== null) this.#wanted = { ...this.#wanted, after: id };
  }
}
