// One hit, large: why it was found, more like it, a region of it to search with.
import { imageBlob, largeBlob } from "/page/api.js";
import { $, isShort, make, nameOf, titleOf } from "/page/dom.js";
import { toSend } from "/page/picture.js";
import { Region } from "/page/region.js";
import { heatsOf, sharesOf, stagesOf } from "/page/why.js";

const SMALL = 200; // pixels: a thumbnail of fewer is as large as its original
const BLOWN_UP = 2; // times its own size, and no more: beyond that it is a blur

export class Detail {
  #shown = 0; // counts, so that a late explanation finds its hit gone

  #turns = {}; // to the hits before and after, by -1 and 1
  #turned = null; // the hit that was turned to

  constructor({ explain, search, turn }) {
    this.dialog = $("detail");
    Object.assign(this, { explain, search, turn });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    this.dialog.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by && !event.target.closest(".canvas")) this.#turns[by].click();
    });
    this.dialog.addEventListener("close", () => {
      const turned = this.#turned;
      this.#turned = null;
      if (turned !== null) this.turn.done(turned);
    });
  }

  /** Close it, to show what is found now from its top. */
  close() {
    this.#turned = null;
    this.dialog.close();
  }

  /** Show a hit; `whole` is its record on its way, where the hit knows less. */
  async open(name, hit, index, whole = null) {
    const shown = ++this.#shown;
    const title = hit.has_image ? titleOf(hit) : nameOf(hit);
    const why = make("div", { class: "why" });
    const overlay = make("img", { class: "heat", alt: "", hidden: true });
    const similar = make("button", { type: "button", class: "strong", onclick: () => this.#go({ kind: "id", value: hit.id, label: title, preview: picture?.dataset.preview }) }, "More like this");
    const picture = hit.has_image ? make("img", { alt: title, draggable: "false" }) : null;
    const region = make("button", { type: "button", disabled: true }, "Search with the region");
    const facts = this.#facts(hit);
    const stage = picture ? this.#stage(name, hit, picture, overlay, region) : make("p", { class: "stage text", dir: "auto", tabindex: "0" }, hit.text ?? "");
    this.#turns = { [-1]: this.#turner(index, -1, "Previous", "‹"), 1: this.#turner(index, 1, "Next", "›") };
    this.dialog.replaceChildren(
      make("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => this.dialog.close() }, "×"),
      this.#turns[-1], this.#turns[1], stage,
      make("div", { class: "side" }, make("h2", { id: "detail-title", dir: "auto" }, title),
        hit.id === title ? null : make("p", { class: "id" }, hit.id),
        make("div", { class: "actions" }, similar, picture ? region : null),
        picture ? make("p", { class: "tip" },
          make("span", { class: "mouse" }, "Drag a rectangle on the picture, or focus it and use the arrow keys (with Shift: its size)."),
          make("span", { class: "touch" }, "Draw a rectangle on the picture to search with a part of it.")) : null,
        facts, why));
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    similar.focus({ preventScroll: true });
    if (whole) {
      const all = { ...hit, ...await whole };
      if (shown !== this.#shown) return;
      facts.replaceWith(this.#facts(all));
      if (!picture) stage.textContent = all.text;
    }
    if (hit.score === undefined) return;
    why.append(make("h3", {}, `Score ${hit.score.toFixed(3)}`), make("p", { class: "tip" }, "Working out why …"));
    const said = await this.explain(hit, index);
    if (shown !== this.#shown) return;
    why.querySelector(".tip").remove();
    if (said.trouble) { why.append(make("p", { class: "tip" }, said.trouble)); return; }
    why.append(sharesOf(said.parts, said.hit.shares));
    const heats = picture ? heatsOf(said.hit, overlay) : null;
    if (heats) why.append(heats);
    why.append(stagesOf(said.explain));
  }

  #turner(index, by, label, sign) {
    const to = index + by;
    return make("button", { type: "button", class: `turn ${label.toLowerCase()}`, "aria-label": label, title: label, disabled: !this.turn.has(to), onclick: () => {
      this.#turned = to;
      this.turn.to(to);
      const again = this.#turns[by];
      if (!again.disabled) again.focus({ preventScroll: true });
    } }, sign);
  }

  #stage(name, hit, picture, overlay, button) {
    const frame = make("div", { class: "canvas", tabindex: "0", role: "group", "aria-label": "The picture. Arrow keys select a region." }, picture, overlay);
    const region = new Region(frame, (box) => { button.disabled = box === null; });
    button.addEventListener("click", async () => {
      const value = await toSend(best.blob ?? await imageBlob(name, hit.id), region.box);
      this.#go({ kind: "image", value, label: "Region", preview: value });
    });
    const best = { blob: null }; // what there is so far: the thumbnail, then the picture
    this.#fill(name, hit, picture, frame, best).catch(() => { picture.alt += " (it cannot be shown)"; });
    return make("div", { class: "stage" }, frame);
  }

  /** Show the thumbnail at the place and in the size of the picture, then the picture itself. */
  async #fill(name, hit, picture, frame, best) {
    const show = (blob) => {
      const url = URL.createObjectURL(blob);
      picture.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
      picture.src = url;
      return picture.decode();
    };
    const small = best.blob = await imageBlob(name, hit.id);
    picture.dataset.preview = URL.createObjectURL(small);
    await show(small);
    const [width, height] = [picture.naturalWidth, picture.naturalHeight];
    frame.style.setProperty("--ratio", width / height);
    const bound = () => frame.style.setProperty("--widest", `${picture.naturalWidth * BLOWN_UP}px`);
    if (Math.max(width, height) < SMALL) bound();
    const large = await largeBlob(name, hit.id).catch(() => small);
    best.blob = large;
    await show(large);
    bound();
  }

  #facts(hit) {
    const pairs = Object.entries(hit.metadata ?? {}).filter(([, value]) => value !== null).slice(0, 20);
    // a short text is the title, and one without a picture stands in the picture's place
    const words = hit.text && hit.has_image && !isShort(hit) ? make("p", { class: "words", dir: "auto", tabindex: "0" }, hit.text) : null;
    const list = make("dl", {}, ...pairs.flatMap(([key, value]) => [
      make("dt", {}, key), make("dd", { dir: "auto" }, typeof value === "object" ? JSON.stringify(value) : String(value)),
    ]));
    return make("div", {}, words, pairs.length ? list : null);
  }

  #go(term) {
    this.close();
    this.search(term);
  }
}
