// Thousands of tiles, of which only those near the window are there.
import { mosaic, showImage } from "/page/api.js";
import { make, titleOf } from "/page/dom.js";

const GAP = 14;
const CAPTION = 32;
const SPARE = 1.5; // windows above and below whose tiles are ready
const AHEAD = 150; // hits below and above them that are asked for, once it is scrolled
const HURRY = 3; // pixels a millisecond: whoever scrolls so will want all of it
const EDGE = 40; // pixels: a pointer this near to the side goes for the scroll bar
const FAST = 8; // pixels a millisecond: only what stays in view longer gets its picture
const RESTS = 90; // milliseconds without a scroll
const FIRST = 50; // hits that are in view at once, and need nothing to stand in for them
const IN_MOSAIC = 500;
const MOSAICS = 2; // on their way at once
const ACROSS = 40; // cells of a mosaic
const CLEAR = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"; // a pixel
const PASSAGE = 600; // characters of a text, more than a tile has room for

export class Grid {
  #tiles = new Map(); // index to element
  #spare = []; // hits by index
  #kept = new Map(); // while new hits are shown: pictures that were there, by id
  #columns = 1;
  #side = 180;
  #focus = 0;
  #mosaics = []; // addresses of tiny pictures, many in one
  #wanted = []; // mosaics that are still to be fetched
  #running = 0;
  #turn = new AbortController();
  #fast = false;
  #ahead = AHEAD;
  #seen = [0, 0]; // where it was scrolled to, and when
  #rest = 0;
  #later = []; // hits whose tiny pictures are fetched once it is scrolled

  constructor(list, { open, more }) {
    this.list = list;
    this.open = open;
    this.more = more;
    this.total = 0;
    this.name = "";
    this.showScore = true;
    new ResizeObserver(() => this.#measure()).observe(list);
    addEventListener("scroll", () => this.#scrolled(), { passive: true });
    addEventListener("pointermove", (event) => this.#near(event), { passive: true });
    list.addEventListener("keydown", (event) => this.#key(event));
  }

  get hits() { return this.#spare; }

  show(name, hits, total, showScore) {
    const kept = name === this.name ? this.#takeImages() : new Map();
    const held = this.list.contains(document.activeElement);
    for (const index of this.#tiles.keys()) this.#drop(index);
    Object.assign(this, { name, total, showScore });
    this.#spare = hits;
    this.#focus = 0;
    this.#kept = kept;
    this.#turn.abort();
    this.#turn = new AbortController();
    this.#later = hits.slice(FIRST);
    this.#wanted = [];
    for (const url of this.#mosaics.splice(0)) URL.revokeObjectURL(url);
    this.#measure();
    for (const image of this.#kept.values()) image.removeAttribute("src");
    this.#kept = new Map();
    // whoever was among the old ones would stand nowhere
    if (held) (this.#tiles.get(0)?.querySelector("button") ?? this.list.closest("main")).focus({ preventScroll: true });
  }

  /** Take the pictures out of their tiles, by the ids of their hits: what is found again stays, what failed is asked for again. */
  #takeImages() {
    const taken = new Map();
    for (const [index, tile] of this.#tiles) {
      const image = tile.querySelector("img");
      if (image && !image.dataset.failed) { image.remove(); taken.set(this.#spare[index].id, image); }
    }
    return taken;
  }

  append(hits, offset, total) {
    hits.forEach((hit, at) => { this.#spare[offset + at] = hit; });
    this.total = total;
    for (const [index, tile] of this.#tiles) {
      if (tile.dataset.empty && this.#spare[index]) this.#drop(index);
    }
    this.#measure();
  }

  /** Fetch tiny pictures of hits, many in one: they stand in until the real ones are there. */
  tiny(hits, offset) {
    for (let at = 0; at < hits.length; at += IN_MOSAIC) {
      const some = hits.slice(at, at + IN_MOSAIC).filter((hit) => hit.has_image && hit.id.isWellFormed()); // JSON takes no other
      if (some.length) this.#wanted.push({ hits: some, middle: offset + at + IN_MOSAIC / 2 });
    }
    while (this.#running < MOSAICS && this.#wanted.length) this.#next();
  }

  /** Fetch the mosaic that is nearest to what is in view. */
  async #next() {
    const { signal } = this.#turn;
    const here = (-this.list.getBoundingClientRect().top / this.#height) * this.#columns;
    this.#wanted.sort((one, other) => Math.abs(one.middle - here) - Math.abs(other.middle - here));
    const { hits } = this.#wanted.shift();
    this.#running++;
    try {
      const blob = await mosaic(this.name, hits.map((hit) => hit.id), signal);
      if (!signal.aborted) this.#cut(hits, URL.createObjectURL(blob));
    } catch { /* they come without */ } finally {
      this.#running--;
      if (this.#wanted.length) this.#next();
    }
  }

  #cut(hits, url) {
    this.#mosaics.push(url);
    const rows = Math.ceil(hits.length / ACROSS);
    hits.forEach((hit, cell) => { hit.tiny = { url, rows, column: cell % ACROSS, row: Math.floor(cell / ACROSS) }; });
    for (const [index, tile] of this.#tiles) this.#standIn(tile.querySelector("img"), this.#spare[index]);
  }

  #standIn(image, hit) {
    if (!image || !hit?.tiny || image.dataset.shown) return;
    const { url, rows, column, row } = hit.tiny;
    image.style.backgroundImage = `url(${url})`;
    image.style.backgroundSize = `${ACROSS * 100}% ${rows * 100}%`;
    image.style.backgroundPosition = `${(100 * column) / (ACROSS - 1)}% ${rows > 1 ? (100 * row) / (rows - 1) : 0}%`;
  }

  #startTiny() {
    if (this.#later.length) this.tiny(this.#later.splice(0), FIRST);
  }

  /** Whoever goes for the scroll bar will want all of it. */
  #near(event) {
    if (event.clientX < document.documentElement.clientWidth - EDGE || this.list.hidden || !this.total) return;
    this.#startTiny();
    this.more(0, this.total, 0);
  }

  #scrolled() {
    const [y, now] = [scrollY, performance.now()];
    this.#startTiny();
    const speed = Math.abs(y - this.#seen[0]) / Math.max(now - this.#seen[1], 1);
    this.#fast = speed > FAST;
    this.#ahead = speed > HURRY ? this.total : AHEAD;
    this.#seen = [y, now];
    clearTimeout(this.#rest);
    if (this.#fast) this.#rest = setTimeout(() => { this.#fast = false; this.draw(); }, RESTS);
    this.draw();
  }

  #measure() {
    const width = this.list.clientWidth;
    if (!width) return;
    const least = width < 520 ? 104 : 168;
    this.#columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    this.#side = (width - GAP * (this.#columns - 1)) / this.#columns;
    const rows = Math.ceil(this.total / this.#columns);
    this.list.style.height = `${Math.max(0, rows * this.#height - GAP)}px`;
    for (const [index, tile] of this.#tiles) this.#place(tile, index);
    this.draw();
  }

  get #height() { return this.#side + CAPTION + GAP; }

  draw() {
    if (this.list.hidden || !this.total) return;
    const top = -this.list.getBoundingClientRect().top;
    const spare = innerHeight * SPARE;
    const first = Math.max(0, Math.floor((top - spare) / this.#height) * this.#columns);
    const last = Math.min(this.total, Math.ceil((top + innerHeight + spare) / this.#height) * this.#columns);
    for (const [index, tile] of this.#tiles) {
      if ((index < first || index >= last) && !tile.contains(document.activeElement)) this.#drop(index);
    }
    for (let index = first; index < last; index++) if (!this.#tiles.has(index)) this.#add(index);
    if (!this.#fast) for (const [index, tile] of this.#tiles) this.#load(tile.querySelector("img"), this.#spare[index]);
    const ahead = scrollY > 0 ? this.#ahead : 0;
    this.more(first, Math.min(this.total, last + ahead), Math.max(0, first - ahead));
  }

  #load(image, hit) {
    if (!image || image.dataset.asked) return;
    image.dataset.asked = "1";
    image.addEventListener("load", () => { image.dataset.shown = "1"; image.style.backgroundImage = "none"; }, { once: true });
    image.addEventListener("error", () => this.#failed(image), { once: true });
    showImage(image, this.name, hit.id).catch(() => this.#failed(image));
  }

  #failed(image) {
    image.src = CLEAR; // else a broken picture has a sign and a border over the tiny one, with a src or without
    const plain = image.cloneNode(); // its listeners take no part
    plain.dataset.failed = "1";
    image.replaceWith(plain);
  }

  #drop(index) {
    const tile = this.#tiles.get(index);
    // an <img> that is gone goes on loading, before those that are in view
    tile.querySelector("img")?.removeAttribute("src");
    tile.remove();
    this.#tiles.delete(index);
  }

  #add(index) {
    const hit = this.#spare[index];
    const tile = hit ? this.#filled(hit, index) : make("li", { "data-empty": "1", class: "tile" }, make("div", { class: "frame" }));
    tile.setAttribute("aria-posinset", index + 1);
    tile.setAttribute("aria-setsize", this.total);
    this.#place(tile, index);
    this.#tiles.set(index, tile);
    const next = [...this.#tiles.keys()].filter((other) => other > index).sort((a, b) => a - b)[0];
    this.list.insertBefore(tile, next === undefined ? null : this.#tiles.get(next));
  }

  #filled(hit, index) {
    const title = titleOf(hit);
    let inside = make("p", { class: "passage", dir: "auto" }, (hit.text ?? "").slice(0, PASSAGE));
    if (hit.has_image) {
      inside = this.#kept.get(hit.id);
      if (!this.#kept.delete(hit.id)) {
        inside = make("img", { alt: "", decoding: "async", draggable: "false" });
        this.#standIn(inside, hit);
        if (!this.#fast) this.#load(inside, hit);
      }
    }
    const score = this.showScore && hit.score !== undefined ? make("span", { class: "score" }, hit.score.toFixed(3)) : null;
    const label = score ? `${title}, score ${hit.score.toFixed(3)}` : title;
    const button = make("button", {
      type: "button", "aria-label": label, tabindex: index === this.#focus ? 0 : -1, "data-index": index,
      onclick: () => this.open(index), onfocus: () => this.#focused(index),
    }, make("span", { class: "frame" }, inside), make("span", { class: "caption" }, make("span", { class: "name", dir: "auto" }, hit.has_image ? title : "Note"), score));
    return make("li", { class: "tile" }, button);
  }

  #focused(index) {
    this.#tiles.get(this.#focus)?.querySelector("button")?.setAttribute("tabindex", "-1");
    this.#focus = index;
    this.#tiles.get(index)?.querySelector("button")?.setAttribute("tabindex", "0");
  }

  focus(index) {
    const row = Math.floor(index / this.#columns);
    const top = this.list.getBoundingClientRect().top + scrollY + row * this.#height;
    const cover = document.querySelector("header").offsetHeight + 20;
    if (top - cover < scrollY) scrollTo(0, top - cover);
    if (top + this.#height > scrollY + innerHeight) scrollTo(0, top + this.#height - innerHeight);
    this.draw();
    this.#tiles.get(index)?.querySelector("button")?.focus({ preventScroll: true });
  }

  #key(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.#columns, ArrowUp: -this.#columns }[event.key];
    const ends = { Home: 0, End: this.total - 1 }[event.key];
    if (by === undefined && ends === undefined) return;
    const to = ends ?? this.#focus + by;
    if (to < 0 || to >= this.total) return;
    event.preventDefault();
    this.focus(to);
  }

  #place(tile, index) {
    const x = (index % this.#columns) * (this.#side + GAP);
    const y = Math.floor(index / this.#columns) * this.#height;
    tile.style.width = `${this.#side}px`;
    tile.style.height = `${this.#side + CAPTION}px`;
    tile.style.transform = `translate(${x}px, ${y}px)`;
  }
}
