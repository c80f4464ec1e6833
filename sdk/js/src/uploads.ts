/** Sending a large body in pieces, from wherever the service says that it stands. */

import { dataIn } from "./answers.js";
import { UploadOffsetConflict } from "./codes.js";
import { isPassing, VoidVMError } from "./errors.js";
import type { Http } from "./http.js";
import type { Upload } from "./schema.js";
import { backoffMs, pause } from "./waiting.js";

/** What can be uploaded: a `File` is a `Blob`. */
export type Source = Blob | Uint8Array<ArrayBuffer>;

/** How to upload. */
export interface UploadOptions {
  /** Cuts it short; what has arrived stays, to be gone on with. */
  readonly signal?: AbortSignal | undefined;
  /** Is told how many bytes have arrived, of how many. */
  readonly progress?: ((sentBytes: number, totalBytes: number) => void) | undefined;
  /** Bytes a piece: what is lost at most when a connection breaks; 4 MiB. */
  readonly pieceBytes?: number | undefined;
}

const PIECE_BYTES = 4 * 1024 ** 2;
const PIECE_TIMEOUT_MS = 300_000;
// So many failures in a row without a byte in between.
const FAILURES_MAX = 8;

/** Send all that is missing; the id of the operation that goes on with it. */
export async function send(
  http: Http,
  source: Source,
  uploadId: string,
  { signal, progress, pieceBytes = PIECE_BYTES }: UploadOptions,
): Promise<string> {
  const path = { upload: uploadId };
  let upload = await http.call("get_upload", { path }, { signal });
  for (let failures = 0; ; ) {
    progress?.(upload.offset, upload.sizeBytes);
    if (upload.operationId) return upload.operationId;
    const { offset } = upload;
    try {
      upload = await append(http, source, upload, pieceBytes, signal);
    } catch (error) {
      const isElsewhere = error instanceof UploadOffsetConflict;
      if (!(isElsewhere || isPassing(error)) || failures >= FAILURES_MAX) throw error;
      await pause(backoffMs(failures++), signal);
      upload = await http.call("get_upload", { path }, { signal });
    }
    if (upload.offset > offset) failures = 0;
  }
}

function append(
  http: Http,
  source: Source,
  { uploadId, offset, sizeBytes }: Upload,
  pieceBytes: number,
  signal?: AbortSignal,
): Promise<Upload> {
  const size = source instanceof Uint8Array ? source.byteLength : source.size;
  if (size !== sizeBytes) {
    throw new VoidVMError(`The upload has ${sizeBytes} bytes, what is to be sent ${size}`);
  }
  const end = Math.min(offset + pieceBytes, size);
  const bytes =
    source instanceof Uint8Array ? source.subarray(offset, end) : source.slice(offset, end);
  const headers = {
    "content-type": "application/offset+octet-stream",
    "upload-offset": String(offset),
  };
  const options = { bytes, headers, signal, timeoutMs: PIECE_TIMEOUT_MS };
  const read = (response: Response) => dataIn(response) as Promise<Upload>;
  return http.send("append_upload", { path: { upload: uploadId } }, read, options);
}
