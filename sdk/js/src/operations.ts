/** Operations: long work, to be watched, waited for and cancelled. */

import { errorOf } from "./answers.js";
import { OperationFailed } from "./errors.js";
import type { Http } from "./http.js";
import { List, ListPage } from "./pages.js";
import type { Operation as OperationData, OperationQuery } from "./schema.js";
import { idOf, type CallOptions, type Ref } from "./types.js";
import { deadline } from "./waiting.js";

/** How to wait for an operation. */
export interface OperationWaitOptions extends CallOptions {
  /** Is told each time when there is something new, and of the end. */
  readonly progress?: ((operation: OperationData) => void) | undefined;
}

const OPEN: ReadonlySet<OperationData["status"]> = new Set(["pending", "running"]);
// How long the service holds its answer back; with progress, how often there is some.
const HOLD_S = 30;
const PROGRESS_S = 0.5;

// Its fields are the schema's own.
export interface Operation extends OperationData {}

/** An operation as it was when it was read, and what can be done with it. */
export class Operation {
  readonly #operations: Operations;

  /** @internal */
  constructor(operations: Operations, data: OperationData) {
    this.#operations = operations;
    Object.assign(this, data);
  }

  /**
   * Wait for its end; the operation as it ended.
   *
   * Rejects with `OperationFailed` if that is not `succeeded`. By default there is no time limit,
   * and giving up waiting does not cancel it.
   */
  async wait({ progress, ...options }: OperationWaitOptions = {}): Promise<Operation> {
    const { signal, done } = deadline(options, `the operation ${this.id}`);
    try {
      let operation: Operation = this;
      let told = "";
      for (;;) {
        const text = JSON.stringify(operation);
        if (text !== told) progress?.(operation);
        told = text;
        if (!OPEN.has(operation.status)) return succeeded(operation);
        const wait = progress ? PROGRESS_S : HOLD_S;
        operation = await this.#operations.get(this, { wait, signal });
      }
    } finally {
      done();
    }
  }

  /** Cancel it; what it has made so far is gone then. Rejects with `OperationNotCancellable`. */
  cancel(options?: CallOptions): Promise<Operation> {
    return this.#operations.cancel(this, options);
  }
}

function succeeded(operation: Operation): Operation {
  if (operation.status === "succeeded") return operation;
  const { error } = operation;
  const body = error && { details: "", ...error, requestId: "", retryable: false };
  throw new OperationFailed(operation, body ? errorOf(body, { status: 0 }) : undefined);
}

/** `client.operations`: the caller's operations of the last seven days. */
export class Operations {
  readonly #http: Http;

  /** @internal */
  constructor(http: Http) {
    this.#http = http;
  }

  /** List them, newest first. */
  list(query: OperationQuery = {}, options?: CallOptions): List<Operation> {
    return new List(async (page = query.page) => {
      const found = await this.#http.call("list_operations", { query: { ...query, page } }, options);
      return new ListPage(found.operations.map((one) => this.of(one)), found.pagination);
    });
  }

  /** One operation; with `wait` the answer comes when it has ended, or after so many seconds. */
  async get(
    operation: Ref,
    { wait = 0, ...options }: CallOptions & { readonly wait?: number } = {},
  ): Promise<Operation> {
    const input = { path: { operation: idOf(operation) }, query: { wait } };
    return this.of(await this.#http.call("get_operation", input, options));
  }

  /** Cancel one. Rejects with `OperationNotCancellable`. */
  async cancel(operation: Ref, options?: CallOptions): Promise<Operation> {
    const input = { path: { operation: idOf(operation) } };
    return this.of(await this.#http.call("cancel_operation", input, options));
  }

  /** @internal The handle of an operation that an answer held. */
  of(data: OperationData): Operation {
    return new Operation(this, data);
  }
}
