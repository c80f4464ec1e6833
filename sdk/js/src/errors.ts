/**
 * What goes wrong, as classes:
 *
 *     VoidVMError            anything that this package throws on purpose
 *     ├ ApiError             the service said no: one class for each code, in codes.ts
 *     ├ ConnectionFailed     no answer, or a connection that broke
 *     ├ TimedOut             no answer in time
 *     └ OperationFailed      an operation ended in another way than well
 *
 * What a caller's own `AbortSignal` cuts short is rejected with that signal's reason.
 */

import type { ErrorAnswer, Operation } from "./schema.js";

/** Anything that this package throws on purpose. */
export class VoidVMError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** What the service says about an error. */
export type ErrorBody = ErrorAnswer["error"];

/** What an answer says beside its body. */
export interface ErrorContext {
  /** The HTTP status; 0 for errors that came by WebSocket. */
  readonly status: number;
  /** Seconds after which it may be tried again, where the service says so. */
  readonly retryAfter?: number | undefined;
}

/** The service said no. An error whose code this package does not know is of this class itself. */
export class ApiError extends VoidVMError {
  /** Never changes, and is what to compare where a class does not do. */
  readonly code: string;
  /** The HTTP status; 0 for errors that came by WebSocket. */
  readonly status: number;
  /** The particulars; may be empty. */
  readonly details: string;
  /** Every field that is wrong, for `VALIDATION_ERROR`. */
  readonly errors: NonNullable<ErrorBody["errors"]>;
  /** Under this the service's log has more. */
  readonly requestId: string;
  /** Whether the same request may work later. */
  readonly retryable: boolean;
  /** What to do about it. */
  readonly hint: string | undefined;
  /** Seconds after which it may be tried again, where the service says so. */
  readonly retryAfter: number | undefined;

  constructor(body: ErrorBody, context: ErrorContext) {
    super(body.details ? `${body.message} ${body.details}` : body.message);
    this.code = body.code;
    this.status = context.status;
    this.details = body.details;
    this.errors = body.errors ?? [];
    this.requestId = body.requestId;
    this.retryable = body.retryable;
    this.hint = body.hint;
    this.retryAfter = context.retryAfter;
  }
}

/** There was no answer, or the connection broke. Whether the service acted is not known. */
export class ConnectionFailed extends VoidVMError {}

/** There was no answer in time. Whether the service acted is not known. */
export class TimedOut extends VoidVMError {}

/** An operation failed, was cancelled or interrupted; `cause` is the error of a failed one. */
export class OperationFailed extends VoidVMError {
  /** The operation as it ended. */
  readonly operation: Operation;

  constructor(operation: Operation, cause?: ApiError) {
    const why = cause ? `: ${cause.message}` : "";
    super(`The operation ${operation.type} ${operation.id} is ${operation.status}${why}`, { cause });
    this.operation = operation;
  }
}

/** Whether the same may work in a moment: the service is away, stopping or asked too often. */
export function isPassing(error: unknown): boolean {
  if (error instanceof ApiError) return error.status === 429 || (error.status >= 502 && error.retryable);
  return error instanceof ConnectionFailed || error instanceof TimedOut;
}
