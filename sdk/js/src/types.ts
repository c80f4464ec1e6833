/** Types of calls, taken from the generated schema by the operation's id. */

import type { operations } from "./schema.js";
import type { ROUTES } from "./routes.js";

/** The name of a call, as the OpenAPI document has it. */
export type OperationId = keyof typeof ROUTES & keyof operations;

type Json<Content> = Content extends { content: { "application/json": infer Body } } ? Body : never;
type Success<Id extends OperationId, Status> = Json<
  operations[Id]["responses"][keyof operations[Id]["responses"] & Status]
>;
type Payload<Body> = Body extends { data: infer Data } ? Data : never;

/** What a call answers: the `data` of its envelope. */
export type Data<Id extends OperationId> = [Success<Id, 200 | 201>] extends [never]
  ? Payload<Success<Id, 202>>
  : Payload<Success<Id, 200 | 201>>;

type Parameters<Id extends OperationId> = operations[Id]["parameters"];
type JsonBody<Id extends OperationId> = operations[Id] extends { requestBody?: infer Request }
  ? NonNullable<Request> extends { content: { "application/json": infer Body } }
    ? Body
    : undefined
  : undefined;

/** The filters of a call. */
export type Query<Id extends OperationId> = NonNullable<Parameters<Id>["query"]>;
/** The JSON body of a call. */
export type Body<Id extends OperationId> = JsonBody<Id>;

// A part that a call has not is forbidden; one without required fields may be left out.
type Part<Name extends string, T> = [NonNullable<T>] extends [never]
  ? { readonly [name in Name]?: never }
  : {} extends T
    ? { readonly [name in Name]?: NonNullable<T> }
    : { readonly [name in Name]: NonNullable<T> };

/** What a call is given. */
export type Input<Id extends OperationId> = Part<"path", Parameters<Id>["path"]> &
  Part<"query", Parameters<Id>["query"]> &
  Part<"body", JsonBody<Id>>;

/** What every call takes. */
export interface CallOptions {
  /** Cuts the call short; it is rejected with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds until `TimedOut`, repetitions included; `Infinity`: none. */
  readonly timeoutMs?: number | undefined;
}

/** What a call that changes something takes. */
export interface ChangeOptions extends CallOptions {
  /** Only if the object is still as it was when it was read: the object itself, or its ETag. */
  readonly ifMatch?: string | object | undefined;
}

/** What a call that makes or does something takes. */
export interface ActionOptions extends CallOptions {
  /** One key, one effect, whoever asks how often; made anew for each call if not given. */
  readonly idempotencyKey?: string | undefined;
}

/** An object by its id or name, or any object that has an id. */
export type Ref = string | { readonly id: string };

/** The id or name that a reference stands for. */
export function idOf(ref: Ref): string {
  return typeof ref === "string" ? ref : ref.id;
}

/** Milliseconds that an answer may take after what was asked for has been waited for. */
export const PATIENCE_MS = 60_000;
// The longest that the service takes where a body does not say how long.
const TIMEOUT_S = 300;

/** The options of an action that may take as long as its body says. */
export function patient(
  { timeout = TIMEOUT_S }: { readonly timeout?: number },
  options?: ActionOptions,
): ActionOptions {
  return { timeoutMs: timeout * 1000 + PATIENCE_MS, ...options };
}
