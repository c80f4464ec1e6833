/** The service itself and its host. */

import type { Http } from "./http.js";
import { List, ListPage } from "./pages.js";
import type {
  AuditEntry,
  AuditQuery,
  Config,
  Health,
  HostMetrics,
  HostMetricsQuery,
  PowerOff,
  PowerOffRequest,
  SystemInfo,
} from "./schema.js";
import { patient, type ActionOptions, type Body, type CallOptions, type ChangeOptions } from "./types.js";

/** `client.system`. */
export class System {
  readonly #http: Http;

  /** @internal */
  constructor(http: Http) {
    this.#http = http;
  }

  /** Whether the service works; needs no credential. Rejects with `DatabaseUnusable`. */
  health(options?: CallOptions): Promise<Health> {
    return this.#http.call("get_health", {}, { retries: 0, ...options });
  }

  /** What the host has, and whether KVM works on it or why not. */
  info(options?: CallOptions): Promise<SystemInfo> {
    return this.#http.call("get_system_info", {}, options);
  }

  /** What the host uses, and has used. */
  stats(query: HostMetricsQuery = {}, options?: CallOptions): Promise<HostMetrics> {
    return this.#http.call("get_system_stats", { query }, options);
  }

  /** The figures for Prometheus, as text. */
  metrics(options?: CallOptions): Promise<string> {
    const headers = { accept: "text/plain" };
    return this.#http.send("get_metrics", {}, (answer) => answer.text(), { ...options, headers });
  }

  /** The settings that may change at run time, and where each of them comes from. */
  config(options?: CallOptions): Promise<Config> {
    return this.#http.call("get_config", {}, options);
  }

  /** Change settings at once and across restarts, all or none; null takes a change back. */
  setConfig(settings: Body<"put_config">, options?: ChangeOptions): Promise<Config> {
    return this.#http.call("put_config", { body: settings }, options);
  }

  /** Who did what to which object, newest first: all for admins, one's own for others. */
  logs(query: AuditQuery = {}, options?: CallOptions): List<AuditEntry> {
    return new List(async (page = query.page) => {
      const found = await this.#http.call("list_logs", { query: { ...query, page } }, options);
      return new ListPage(found.logs, found.pagination);
    });
  }

  /** Power off everybody's guests, for which they have `timeout` seconds; resolves when they are off. */
  powerOffGuests(body: PowerOffRequest = {}, options?: ActionOptions): Promise<PowerOff> {
    return this.#http.call("power_off_guests", { body }, patient(body, options));
  }

  /** The description of the API, OpenAPI 3.1. */
  openapi(options?: CallOptions): Promise<Record<string, unknown>> {
    const read = (response: Response) => response.json() as Promise<Record<string, unknown>>;
    return this.#http.send("get_openapi", {}, read, options);
  }
}
