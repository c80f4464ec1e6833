/** Images, the catalogue, and bringing images in. */

import type { Http } from "./http.js";
import type { Operation, Operations } from "./operations.js";
import { List, ListPage } from "./pages.js";
import type {
  CatalogItem,
  Image,
  ImageCreate,
  ImagePatch,
  ImageQuery,
  Upload,
  UploadCreate,
} from "./schema.js";
import { idOf, type ActionOptions, type CallOptions, type ChangeOptions, type Ref } from "./types.js";
import { send, type Source, type UploadOptions } from "./uploads.js";

/** `client.images`. */
export class Images {
  readonly #http: Http;
  readonly #operations: Operations;

  /** @internal */
  constructor(http: Http, operations: Operations) {
    this.#http = http;
    this.#operations = operations;
  }

  /** List the images that the caller may use. */
  list(query: ImageQuery = {}, options?: CallOptions): List<Image> {
    return new List(async (page = query.page) => {
      const found = await this.#http.call("list_images", { query: { ...query, page } }, options);
      return new ListPage(found.images, found.pagination);
    });
  }

  /** The operating systems that a VM can be made from, and which are here already. */
  async catalog(options?: CallOptions): Promise<readonly CatalogItem[]> {
    return (await this.#http.call("list_catalog", {}, options)).images;
  }

  /** Fetch an image from an address, or by `os` from the catalogue; goes on as an operation. */
  async create(image: ImageCreate, options?: ActionOptions): Promise<Operation> {
    return this.#operations.of(await this.#http.call("create_image", { body: image }, options));
  }

  /** One image, by id or name. */
  get(image: Ref, options?: CallOptions): Promise<Image> {
    return this.#http.call("get_image", { path: { image: idOf(image) } }, options);
  }

  /** Rename an image; admins also publish it. */
  update(image: Ref, patch: ImagePatch, options?: ChangeOptions): Promise<Image> {
    return this.#http.call("change_image", { path: { image: idOf(image) }, body: patch }, options);
  }

  /** Delete an image that no VM is made from. */
  async delete(image: Ref, options?: ChangeOptions): Promise<void> {
    await this.#http.call("delete_image", { path: { image: idOf(image) } }, options);
  }

  /**
   * Send an image in pieces, whatever happens to the connection meanwhile; what the service then
   * does with it is the operation.
   *
   *     const file = await fs.openAsBlob("golden.qcow2");   // Node.js; pages have File objects
   *     const operation = await client.images.upload(file, { name: "golden" });
   *     await operation.wait();
   */
  async upload(
    source: Source,
    image: Omit<UploadCreate, "sizeBytes">,
    options: UploadOptions = {},
  ): Promise<Operation> {
    const sizeBytes = source instanceof Uint8Array ? source.byteLength : source.size;
    const upload = await this.beginUpload({ ...image, sizeBytes }, { signal: options.signal });
    return this.resumeUpload(source, upload, options);
  }

  /** Begin an upload, to be gone on with by `resumeUpload`, maybe by another process. */
  beginUpload(upload: UploadCreate, options?: ActionOptions): Promise<Upload> {
    return this.#http.call("create_upload", { body: upload }, options);
  }

  /** Send what is missing of an upload; the operation as in `upload`. */
  async resumeUpload(
    source: Source,
    upload: string | Upload,
    options: UploadOptions = {},
  ): Promise<Operation> {
    const operation = await send(this.#http, source, uploadId(upload), options);
    return this.#operations.get(operation, { signal: options.signal });
  }

  /** How many bytes of an upload have arrived. */
  getUpload(upload: string | Upload, options?: CallOptions): Promise<Upload> {
    return this.#http.call("get_upload", { path: { upload: uploadId(upload) } }, options);
  }

  /** Give an upload up; its bytes are gone. */
  async deleteUpload(upload: string | Upload, options?: ChangeOptions): Promise<void> {
    await this.#http.call("delete_upload", { path: { upload: uploadId(upload) } }, options);
  }
}

function uploadId(upload: string | Upload): string {
  return typeof upload === "string" ? upload : upload.uploadId;
}
