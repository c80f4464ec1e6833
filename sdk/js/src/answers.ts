/** From the service's answers to values and errors. */

import { CLASSES } from "./codes.js";
import { ApiError, type ErrorBody, type ErrorContext } from "./errors.js";

/** The error that the service described, as an instance of its code's class. */
export function errorOf(body: ErrorBody, context: ErrorContext): ApiError {
  const kind = Object.hasOwn(CLASSES, body.code) ? CLASSES[body.code] : undefined;
  return new (kind ?? ApiError)(body, context);
}

/** The error in a failed response; what is not the service's own, as a proxy's page, is one too. */
export async function errorIn(response: Response): Promise<ApiError> {
  const text = await response.text();
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  const context = {
    status: response.status,
    retryAfter: Number.isFinite(seconds) ? seconds : undefined,
  };
  const found = described(text);
  return errorOf(found ?? undescribed(response, text), context);
}

function described(text: string): ErrorBody | undefined {
  try {
    const { error } = JSON.parse(text) as { error?: ErrorBody };
    return typeof error?.code === "string" ? error : undefined;
  } catch {
    return undefined;
  }
}

function undescribed(response: Response, text: string): ErrorBody {
  return {
    code: `HTTP_${response.status}`,
    message: `${response.status} ${response.statusText}`.trim(),
    details: text.slice(0, 200),
    requestId: response.headers.get("x-request-id") ?? "",
    retryable: [502, 503, 504].includes(response.status),
  };
}

const etags = new WeakMap<object, string>();

/** The `data` of a good answer, whose ETag is remembered for `ifMatch`. */
export async function dataIn(response: Response): Promise<unknown> {
  const { data } = (await response.json()) as { data: unknown };
  const etag = response.headers.get("etag");
  if (etag !== null && typeof data === "object" && data !== null) etags.set(data, etag);
  return data;
}

/** The ETag with which an object was read; undefined for those that came in a list. */
export function etagOf(object: object): string | undefined {
  return etags.get(object);
}
