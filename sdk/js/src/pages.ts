/** Lists that come in pages. */

import type { Page } from "./schema.js";

/** One page of a list: an array, and where it stands. */
export class ListPage<T> extends Array<T> {
  /** Which page it is, and how many there are. */
  readonly pagination: Page;

  constructor(items: readonly T[], pagination: Page) {
    super();
    this.push(...items);
    this.pagination = pagination;
  }

  /** What `map` and `filter` make is no page any more. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
}

/**
 * A list that was asked for: `await` it for one page, or go through all with `for await`.
 *
 *     const newest = await client.operations.list({ limit: 10 });
 *     for await (const vm of client.vms.list()) console.log(vm.name);
 */
export class List<T> implements PromiseLike<ListPage<T>>, AsyncIterable<T> {
  readonly #fetch: (page?: number) => Promise<ListPage<T>>;
  #first: Promise<ListPage<T>> | undefined;

  /** @internal */
  constructor(fetch: (page?: number) => Promise<ListPage<T>>) {
    this.#fetch = fetch;
  }

  /** The page that was asked for, by default the first. */
  then<A = ListPage<T>, B = never>(
    onPage?: ((page: ListPage<T>) => A | PromiseLike<A>) | null,
    onError?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#first ??= this.#fetch();
    return this.#first.then(onPage, onError);
  }

  /** Every item from that page on. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    let page = (await this) as ListPage<T>;
    for (;;) {
      yield* page;
      const { page: number, pages } = page.pagination;
      if (number >= pages) return;
      page = await this.#fetch(number + 1);
    }
  }
}
