/** A VM's disks. */

import type { Http } from "./http.js";
import type { Disk, DiskCreate } from "./schema.js";
import { idOf, type ActionOptions, type CallOptions, type ChangeOptions, type Ref } from "./types.js";

/** `client.disks`: disks come, grow and go also while their VM runs. */
export class Disks {
  readonly #http: Http;

  /** @internal */
  constructor(http: Http) {
    this.#http = http;
  }

  /** List a VM's disks, the one it boots from first. */
  async list(vm: Ref, options?: CallOptions): Promise<readonly Disk[]> {
    return (await this.#http.call("list_disks", { path: { vm: idOf(vm) } }, options)).disks;
  }

  /** Make a disk and attach it. */
  attach(vm: Ref, disk: DiskCreate, options?: ActionOptions): Promise<Disk> {
    return this.#http.call("attach_disk", { path: { vm: idOf(vm) }, body: disk }, options);
  }

  /** Grow a disk to `size` GiB. */
  expand(vm: Ref, disk: Ref, size: number, options?: ActionOptions): Promise<Disk> {
    const path = { vm: idOf(vm), disk: idOf(disk) };
    return this.#http.call("expand_disk", { path, body: { size } }, options);
  }

  /** Detach a disk and delete it. */
  async delete(vm: Ref, disk: Ref, options?: ChangeOptions): Promise<void> {
    const path = { vm: idOf(vm), disk: idOf(disk) };
    await this.#http.call("delete_disk", { path }, options);
  }
}
