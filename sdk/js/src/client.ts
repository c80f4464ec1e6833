/** The client: everything that the API can do, by noun. */

import { Disks } from "./disks.js";
import { eventsOf, type Events } from "./events.js";
import { Http, type HttpOptions, type SendOptions } from "./http.js";
import { Images } from "./images.js";
import type { LinkOptions } from "./link.js";
import { Live } from "./live.js";
import { Operations } from "./operations.js";
import { Session, type Credentials } from "./session.js";
import { System } from "./system.js";
import type { Data, Input, OperationId } from "./types.js";
import { Auth, Tokens, Users } from "./users.js";
import { Vms } from "./vms.js";

/** Where the service is, who calls, and how patiently. */
export interface ClientOptions extends HttpOptions, Credentials {}

/**
 * A client of one service for one caller. It holds no connection of its own.
 *
 *     const client = new VoidVMClient({ baseURL: "http://localhost:3000/api/v1", token });
 *     const vms = await client.vms.list();
 */
export class VoidVMClient {
  readonly #http: Http;
  /** VMs, their lives and their consoles. */
  readonly vms: Vms;
  /** Disks of VMs. */
  readonly disks: Disks;
  /** Images, the catalogue, uploads. */
  readonly images: Images;
  /** Long work. */
  readonly operations: Operations;
  /** What changes, as it happens. */
  readonly events: Events;
  /** Signing in and out, and the caller's own profile. */
  readonly auth: Auth;
  /** The caller's API tokens. */
  readonly tokens: Tokens;
  /** Users, for admins. */
  readonly users: Users;
  /** The service itself and its host. */
  readonly system: System;

  constructor(options: ClientOptions = {}) {
    const http = (this.#http = new Http(options));
    const session = (http.session = new Session(http, options));
    this.operations = new Operations(http);
    this.vms = new Vms(http, this.operations);
    this.disks = new Disks(http);
    this.images = new Images(http, this.operations);
    this.events = eventsOf(http);
    this.auth = new Auth(http, session);
    this.tokens = new Tokens(http);
    this.users = new Users(http);
    this.system = new System(http);
  }

  /** Connect for subscriptions and actions on one socket. */
  live(options?: LinkOptions): Live {
    return new Live(this.#http, options);
  }

  /**
   * Any call by its name in the OpenAPI document; its `data`.
   *
   *     await client.request("get_vm", { path: { vm: "web" } });
   */
  request<Id extends OperationId>(
    id: Id,
    input: Input<Id>,
    options?: SendOptions,
  ): Promise<Data<Id>> {
    return this.#http.call(id, input, options);
  }
}
