/// <reference lib="esnext.disposable" preserve="true" />
/** The live socket: subscriptions and actions on one connection, which is made again when it breaks. */

import { errorOf } from "./answers.js";
import { ConnectionFailed, VoidVMError } from "./errors.js";
import type { Http } from "./http.js";
import { Link, type LinkOptions } from "./link.js";
import type {
  ErrorNews,
  Event,
  HostSample,
  OperationNews,
  Resync,
  Subscribe,
  Subscribed,
  VmControl,
  VmControlResponse,
  VmSample,
  VmStatusNews,
} from "./schema.js";
import { Subscription, type Wanted } from "./subscription.js";
import { idOf, type CallOptions, type Ref } from "./types.js";
import { deadline, News } from "./waiting.js";

/** What subscribers hear, by topic. */
export interface Pushes extends Record<Subscribe["topic"], object> {
  "vm-status": VmStatusNews;
  "vm-status-all": VmStatusNews;
  "vm-metrics": VmSample;
  "system-monitor": HostSample;
  operations: OperationNews;
  events: Event;
}

/** What to hear of. */
export interface SubscribeOptions extends Omit<Subscribe, "topic" | "vmId"> {
  /** Of this VM only; `vm-status` needs one. */
  readonly vm?: Ref | undefined;
}

/** How to do it. */
export interface ControlOptions
  extends CallOptions, Omit<VmControl, "vmId" | "action"> {}

interface Message {
  readonly type: string;
  readonly id?: string | number;
  readonly topic?: string;
  readonly data: object;
}

type Answer = Message | VoidVMError;

/**
 * Events, metrics, statuses and actions on one connection. It connects when it is made.
 *
 *     const live = client.live();
 *     for await (const sample of live.subscribe("vm-metrics", { vm: "web" })) show(sample);
 */
export class Live {
  readonly #link: Link;
  readonly #news = new News();
  readonly #subscriptions = new Set<Subscription<object>>();
  readonly #asked = new Map<number, (answer: Answer) => void>();
  #number = 0;
  #isReady = false;
  #isEnded = false;
  #error: unknown;

  /** @internal */
  constructor(http: Http, options?: LinkOptions) {
    this.#link = new Link(
      http,
      {
        address: () => ({ ticket: "create_ws_ticket", socket: "connect_ws", protocol: "voidvm.v1" }),
        begin: () => this.#begin(),
        take: (message) => this.#take(JSON.parse(String(message)) as Message),
        pausing: (error) => this.#pausing(error),
        end: (error) => this.#end(error),
      },
      options,
    );
  }

  /**
   * Hear of a topic: at most once each of one VM, or of all.
   *
   * Events, statuses and operations go on after the last one heard when a connection breaks.
   */
  subscribe<Topic extends keyof Pushes>(
    topic: Topic,
    { vm, ...options }: SubscribeOptions = {},
  ): Subscription<Pushes[Topic]> {
    const wanted: Wanted = { ...options, topic, ...(vm !== undefined && { vmId: idOf(vm) }) };
    if ([...this.#subscriptions].some((one) => one.overlaps(wanted))) {
      throw new VoidVMError(`There is a subscription to ${topic} already`);
    }
    const subscription = new Subscription<object>(wanted, () => this.#unsubscribe(subscription));
    if (this.#isEnded) subscription.end(this.#error);
    this.#subscriptions.add(subscription);
    if (this.#isReady) this.#subscribe(subscription);
    return subscription as Subscription<Pushes[Topic]>;
  }

  /**
   * Do something to a VM; resolves when it is done. Rejects as the calls of `client.vms` do, and
   * with `ConnectionFailed` if the connection breaks first: the action goes on then.
   */
  async control(
    vm: Ref,
    action: VmControl["action"],
    { signal, timeoutMs, ...how }: ControlOptions = {},
  ): Promise<VmControlResponse> {
    const clock = deadline({ signal, timeoutMs }, action);
    try {
      while (!this.#isReady) {
        if (this.#isEnded) throw this.#error ?? new VoidVMError("The connection is closed");
        await this.#news.heard(clock.signal);
      }
      let answer: Answer | undefined;
      const data = { vmId: idOf(vm), action, ...how };
      this.#ask("vm-control", data, (told) => (answer = told));
      while (!answer) await this.#news.heard(clock.signal);
      if (answer instanceof VoidVMError) throw answer;
      return answer.data as VmControlResponse;
    } finally {
      clock.done();
    }
  }

  /** Hang up; all subscriptions end. */
  async close(): Promise<void> {
    this.#link.close();
    while (!this.#isEnded) await this.#news.heard();
  }

  /** `await using` closes it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #ask(type: string, data: object, onAnswer: (answer: Answer) => void): void {
    const id = ++this.#number;
    this.#asked.set(id, onAnswer);
    try {
      this.#link.channel?.send(JSON.stringify({ type, id, data }));
    } catch (error) {
      // It has just ended: all who wait for an answer hear of that in a moment.
      if (!(error instanceof ConnectionFailed)) throw error;
    }
  }

  #begin(): void {
    this.#isReady = true;
    for (const subscription of this.#subscriptions) this.#subscribe(subscription);
    this.#news.tell();
  }

  #subscribe(subscription: Subscription<object>): void {
    this.#ask("subscribe", subscription.wanted, (answer) => {
      if (answer instanceof ConnectionFailed) return;
      if (answer instanceof VoidVMError) this.#forget(subscription, answer);
      else subscription.begun(answer.data as Subscribed);
    });
  }

  #unsubscribe(subscription: Subscription<object>): void {
    if (!this.#subscriptions.delete(subscription) || !this.#isReady) return;
    const { topic, vmId } = subscription.wanted;
    this.#ask("unsubscribe", { topic, ...(vmId !== undefined && { vmId }) }, () => {});
  }

  #forget(subscription: Subscription<object>, error?: VoidVMError): void {
    this.#subscriptions.delete(subscription);
    subscription.end(error);
  }

  #take(message: Message): void {
    const { type, id, topic, data } = message;
    const answer = typeof id === "number" ? this.#asked.get(id) : undefined;
    if (answer) {
      this.#asked.delete(id as number);
      answer(type === "error" ? errorFrom(data as ErrorNews) : message);
    } else if (type === "resync-required" || type === "unsubscribed") {
      const found = this.#of(data as Resync);
      if (found) this.#forget(found, type === "unsubscribed" ? undefined : lost(data as Resync));
    } else if (topic !== undefined) {
      this.#of({ topic, ...data })?.push(data, id);
    }
    this.#news.tell();
  }

  #of(about: { readonly topic: string; readonly vmId?: string | null }) {
    return [...this.#subscriptions].find((one) => one.isAbout(about.topic, about.vmId));
  }

  #pausing(error: VoidVMError): void {
    this.#isReady = false;
    for (const tell of this.#asked.values()) tell(error);
    this.#asked.clear();
    this.#news.tell();
  }

  #end(error: unknown): void {
    this.#pausing(error instanceof VoidVMError ? error : new ConnectionFailed("It was closed"));
    this.#isEnded = true;
    this.#error = error;
    for (const subscription of [...this.#subscriptions]) subscription.end(error);
    this.#subscriptions.clear();
    this.#news.tell();
  }
}

function errorFrom({ retryAfter, ...news }: ErrorNews): VoidVMError {
  return errorOf({ requestId: "", ...news }, { status: 0, retryAfter });
}

function lost({ lastEventId }: Resync): VoidVMError {
  const message = "Some events are not kept any more.";
  const body = { code: "RESYNC_REQUIRED", message, details: lastEventId };
  return errorOf({ ...body, requestId: "", retryable: false }, { status: 0 });
}
