/** VMs: making, changing, deleting, and their lives. */

import { Console, type ConsoleOptions } from "./console.js";
import { WaitTimeout } from "./codes.js";
import type { Http } from "./http.js";
import type { Operation, Operations } from "./operations.js";
import { List, ListPage } from "./pages.js";
import type {
  Incident,
  RestartRequest,
  Sent,
  StopRequest,
  Vm,
  VmCreate,
  VmMetrics,
  VmMetricsQuery,
  VmPatch,
  VmQuery,
} from "./schema.js";
import {
  idOf,
  PATIENCE_MS,
  patient,
  type ActionOptions,
  type CallOptions,
  type ChangeOptions,
  type Query,
  type Ref,
} from "./types.js";

/** What can be done to a VM's power, and what each takes. */
export interface PowerActions {
  start: undefined;
  stop: StopRequest;
  restart: RestartRequest;
  reset: undefined;
  pause: undefined;
  resume: undefined;
}

/** A piece of a console's history. */
export interface ConsoleLog {
  /** The bytes as they came. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The first byte's place. */
  readonly offset: number;
}

// The platform's fetch of Node.js gives up an answer after five minutes; ours come before.
const LONGEST_WAIT_S = 240;

/** `client.vms`. Wherever a VM is named, its id, its name or the VM itself does. */
export class Vms {
  readonly #http: Http;
  readonly #operations: Operations;

  /** @internal */
  constructor(http: Http, operations: Operations) {
    this.#http = http;
    this.#operations = operations;
  }

  /** List the VMs that the caller may see, oldest first: `await` one page, `for await` all. */
  list(query: VmQuery = {}, options?: CallOptions): List<Vm> {
    return new List(async (page = query.page) => {
      const found = await this.#http.call("list_vms", { query: { ...query, page } }, options);
      return new ListPage(found.vms, found.pagination);
    });
  }

  /** Create a VM; only `name` is required. `dryRun`: only answer what would be made. */
  create(
    vm: VmCreate,
    { dryRun, ...options }: ActionOptions & { readonly dryRun?: boolean } = {},
  ): Promise<Vm> {
    const query = dryRun ? { dryRun } : {};
    return this.#http.call("create_vm", { body: vm, query }, options);
  }

  /** One VM. Rejects with `VmNotFound`. */
  get(vm: Ref, options?: CallOptions): Promise<Vm> {
    return this.#http.call("get_vm", at(vm), options);
  }

  /** Change a VM; while it runs, new hardware waits in `pending` for the next start. */
  update(vm: Ref, patch: VmPatch, options?: ChangeOptions): Promise<Vm> {
    return this.#http.call("change_vm", { ...at(vm), body: patch }, options);
  }

  /** Delete a VM with its disks and its history; `force`: also when it runs. */
  async delete(
    vm: Ref,
    { force, ...options }: ChangeOptions & { readonly force?: boolean } = {},
  ): Promise<void> {
    await this.#http.call("delete_vm", { ...at(vm), query: force ? { force } : {} }, options);
  }

  /** Start a VM; resolves when the guest's CPUs run. */
  start(vm: Ref, options?: ActionOptions): Promise<Vm> {
    return this.#http.call("start_vm", at(vm), options);
  }

  /** Press the power button and, after `timeout` seconds, end it; with `force` end it at once. */
  stop(vm: Ref, body: StopRequest = {}, options?: ActionOptions): Promise<Vm> {
    return this.#http.call("stop_vm", { ...at(vm), body }, patient(body, options));
  }

  /** Stop and start a VM. */
  restart(vm: Ref, body: RestartRequest = {}, options?: ActionOptions): Promise<Vm> {
    return this.#http.call("restart_vm", { ...at(vm), body }, patient(body, options));
  }

  /** Press the reset button. */
  reset(vm: Ref, options?: ActionOptions): Promise<Vm> {
    return this.#http.call("reset_vm", at(vm), options);
  }

  /** Halt the guest's CPUs. */
  pause(vm: Ref, options?: ActionOptions): Promise<Vm> {
    return this.#http.call("pause_vm", at(vm), options);
  }

  /** Let the guest's CPUs go on. */
  resume(vm: Ref, options?: ActionOptions): Promise<Vm> {
    return this.#http.call("resume_vm", at(vm), options);
  }

  /** Begin an action and do not wait for it: it goes on as an operation. */
  async begin<Action extends keyof PowerActions>(
    vm: Ref,
    action: Action,
    body?: PowerActions[Action],
    options?: ActionOptions,
  ): Promise<Operation> {
    const headers = { prefer: "respond-async" };
    // With that header the answer is 202, an operation.
    const answer: unknown = await this.#http.send(
      `${action}_vm`,
      { ...at(vm), body },
      async (response) => ((await response.json()) as { data: unknown }).data,
      { ...options, headers },
    );
    return this.#operations.of(answer as Operation);
  }

  /**
   * Wait until something holds: `running`, `stopped`, `ip`, `agent`, `tcp:22` or
   * `console:/regex/`; the VM then. Rejects with `WaitTimeout`, which says what was missing, after
   * `timeout` seconds, by default 60.
   */
  async wait(
    vm: Ref,
    condition: string,
    { timeout = 60, signal }: { readonly timeout?: number; readonly signal?: AbortSignal } = {},
  ): Promise<Vm> {
    const end = performance.now() + timeout * 1000;
    for (;;) {
      const left = Math.max(0, (end - performance.now()) / 1000);
      const query = { for: condition, timeout: Math.min(left, LONGEST_WAIT_S) };
      const timeoutMs = query.timeout * 1000 + PATIENCE_MS;
      try {
        return await this.#http.call("wait_for_vm", { ...at(vm), query }, { signal, timeoutMs });
      } catch (error) {
        if (!(error instanceof WaitTimeout) || left <= LONGEST_WAIT_S) throw error;
      }
    }
  }

  /** What is known of the VM's unexpected ends, newest first. */
  async incidents(vm: Ref, options?: CallOptions): Promise<readonly Incident[]> {
    return (await this.#http.call("list_incidents", at(vm), options)).incidents;
  }

  /** What the VM uses, now and in the past; `from` and `to` are RFC 3339. */
  metrics(vm: Ref, query: VmMetricsQuery = {}, options?: CallOptions): Promise<VmMetrics> {
    return this.#http.call("get_vm_metrics", { ...at(vm), query }, options);
  }

  /** Put a CD into the drive, also while the VM runs. */
  insertIso(vm: Ref, image: Ref, options?: ChangeOptions): Promise<Vm> {
    return this.#http.call("change_iso", { ...at(vm), body: { image: idOf(image) } }, options);
  }

  /** Take the CD out of the drive, also while the VM runs. */
  ejectIso(vm: Ref, options?: ChangeOptions): Promise<Vm> {
    return this.#http.call("eject_iso", at(vm), options);
  }

  /** Attach to the VM's serial console. */
  console(vm: Ref, options?: ConsoleOptions): Console {
    return new Console(this.#http, idOf(vm), options);
  }

  /** A piece of the console's history: from the offset `since` on, by default the newest. */
  consoleLog(
    vm: Ref,
    query: Query<"read_console_log"> = {},
    options?: CallOptions,
  ): Promise<ConsoleLog> {
    const read = async (response: Response) => ({
      bytes: new Uint8Array(await response.arrayBuffer()),
      offset: Number(response.headers.get("x-console-offset")),
    });
    return this.#http.send("read_console_log", { ...at(vm), query }, read, options);
  }

  /** Type text on the console without attaching to it. */
  send(vm: Ref, text: string, options?: ActionOptions): Promise<Sent> {
    return this.#http.call("send_to_console", { ...at(vm), body: { text } }, options);
  }
}

function at(vm: Ref): { readonly path: { readonly vm: string } } {
  return { path: { vm: idOf(vm) } };
}
