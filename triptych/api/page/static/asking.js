// Searches on their way: the newest wins, an older one is called off.
import { ask, within } from "/page/api.js";

export const MOST = 10000;
const STARTS = [50, 250, MOST]; // of pages: what comes at once, what most never go beyond, the rest
const FIRST = STARTS[0];
const AT_ONCE = 2; // pages on their way; those asked for last come first

export class Asking {
  #turn = null;
  #pages = new Set();
  #wanted = [];
  #running = 0;

  /** Return the first hits, and whether they are all. */
  async search(name, query) {
    this.stop();
    this.#turn = new AbortController();
    this.#pages.clear();
    this.#wanted = [];
    Object.assign(this, { name, query, signal: this.#turn.signal, parts: query.parts().map((part) => ({ ...part })) });
    const start = performance.now();
    const reply = await this.#fetch({ limit: FIRST, offset: 0 });
    const { hits } = await reply.json();
    const shown = { tier: reply.headers.get("X-Triptych-Tier"), timing: reply.headers.get("Server-Timing") };
    return { hits, isAll: hits.length < FIRST, ms: performance.now() - start, ...shown };
  }

  /** Hand `take` the hits of every page that the ranges touch and that has not come yet. */
  async pages(ranges, take) {
    const pages = ranges.flatMap(([first, last]) => pagesOf(first, Math.min(last, MOST)));
    this.#wanted = pages.filter((page) => !this.#pages.has(page));
    while (this.#wanted.length && this.#running < AT_ONCE) {
      const page = this.#wanted.shift();
      this.#pages.add(page);
      this.#running++;
      try { take(await this.#page(page)); } finally { this.#running--; }
    }
  }

  async #page(page) {
    const offset = STARTS[page];
    const limit = STARTS[page + 1] - offset;
    const { hits } = await (await this.#fetch({ limit, offset })).json();
    return { hits, offset, isLast: hits.length < limit };
  }

  /** Return the explanation of one hit of the last search. */
  async explain(hit, index) {
    const said = await (await this.#fetch({ limit: 1, offset: index, explain: true })).json();
    if (said.hits[0]?.id !== hit.id) throw new Error("The collection has changed: search again.");
    return { hit: said.hits[0], explain: said.explain, parts: this.parts };
  }

  stop() { this.#turn?.abort(); }

  #fetch(more) {
    const json = this.query.body(more);
    return ask(`${within(this.name)}/search`, { method: "POST", json, signal: this.signal });
  }
}

const pagesOf = (first, last) => [0, 1].filter((page) => STARTS[page] < last && STARTS[page + 1] > first);
