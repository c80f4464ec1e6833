/** Waits that end: by news, by time or by a signal. */

import { TimedOut } from "./errors.js";
import type { CallOptions } from "./types.js";

/** A signal that follows a caller's own and a clock; `done` ends both. */
export interface Deadline {
  readonly signal: AbortSignal;
  readonly done: () => void;
}

// What setTimeout takes; more is treated as none.
const LONGEST_MS = 2 ** 31 - 1;

/** Begin a deadline; `what` is told by the `TimedOut` that the signal then carries. */
export function deadline({ signal, timeoutMs = Infinity }: CallOptions, what: string): Deadline {
  const controller = new AbortController();
  const leave = follow(controller, signal);
  let timer: ReturnType<typeof setTimeout> | undefined;
  if (timeoutMs < LONGEST_MS) {
    const expire = () => controller.abort(new TimedOut(`${what} took more than ${timeoutMs} ms`));
    timer = setTimeout(expire, timeoutMs);
  }
  const done = () => {
    clearTimeout(timer);
    leave();
  };
  return { signal: controller.signal, done };
}

/**
 * Abort a controller when a signal is aborted; what is returned undoes that.
 *
 * Not `AbortSignal.any`: Node.js 20 may forget what that has made while somebody waits for it.
 */
export function follow(controller: AbortController, signal?: AbortSignal): () => void {
  if (!signal) return () => {};
  const abort = () => controller.abort(signal.reason);
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort, { once: true });
  return () => signal.removeEventListener("abort", abort);
}

/** A promise's outcome, or the signal's reason if that comes first. */
export async function orAborted<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (!signal) return promise;
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** Wait so many milliseconds. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const slept = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  try {
    await orAborted(slept, signal);
  } finally {
    clearTimeout(timer);
  }
}

/** How long to wait before the next try: longer each time, and never the same for two clients. */
export function backoffMs(attempt: number, { firstMs = 250, mostMs = 5000 } = {}): number {
  return Math.min(firstMs * 2 ** attempt, mostMs) * (0.5 + Math.random() / 2);
}

/** Wakes all who wait whenever something has changed. */
export class News {
  #told: Promise<void>;
  #tell = () => {};

  constructor() {
    this.#told = new Promise((resolve) => (this.#tell = resolve));
  }

  /** Something has changed. */
  tell(): void {
    this.#tell();
    this.#told = new Promise((resolve) => (this.#tell = resolve));
  }

  /** Wait for the next change. */
  heard(signal?: AbortSignal): Promise<void> {
    return orAborted(this.#told, signal);
  }
}
