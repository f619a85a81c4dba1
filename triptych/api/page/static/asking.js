// Searches on their way: the newest wins, an older one is called off.
import { ask, within } from "/page/api.js";

const FIRST = 50;
const PAGE = 200;
const MOST = 10000;

export class Asking {
  #turn = null;
  #pages = new Set();

  async search(name, query, count) {
    this.stop();
    this.#turn = new AbortController();
    this.#pages.clear();
    Object.assign(this, { name, query, signal: this.#turn.signal, parts: query.parts().map((part) => ({ ...part })) });
    const start = performance.now();
    const reply = await this.#fetch({ limit: FIRST, offset: 0 });
    const { hits } = await reply.json();
    const total = hits.length < FIRST ? hits.length : Math.min(count, MOST);
    const shown = { tier: reply.headers.get("X-Triptych-Tier"), timing: reply.headers.get("Server-Timing") };
    return { hits, total, ms: performance.now() - start, ...shown };
  }

  /** Return the hits of the page that holds `index`, null where it is on its way already. */
  async page(index) {
    const page = Math.floor((index - FIRST) / PAGE);
    if (page < 0 || this.#pages.has(page)) return null;
    this.#pages.add(page);
    const offset = FIRST + page * PAGE;
    const limit = Math.min(PAGE, MOST - offset);
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
