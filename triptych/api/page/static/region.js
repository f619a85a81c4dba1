// A rectangle on a picture, drawn with the pointer or with arrow keys (with Shift they resize it).
import { make } from "/page/dom.js";

const STEP = 0.05;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export class Region {
  constructor(frame, changed) {
    this.frame = frame;
    this.changed = changed;
    this.box = null; // x, y, width, height in shares of the picture
    this.mark = make("div", { class: "mark", hidden: true });
    frame.append(this.mark);
    frame.addEventListener("pointerdown", (event) => this.#start(event));
    frame.addEventListener("keydown", (event) => this.#key(event));
  }

  set(box) {
    this.box = box;
    this.mark.hidden = box === null;
    if (box) {
      ["left", "top", "width", "height"].forEach((side, at) => {
        this.mark.style[side] = `${box[at] * 100}%`;
      });
    }
    this.changed(box);
  }

  #at(event) {
    const area = this.frame.getBoundingClientRect();
    return [clamp((event.clientX - area.left) / area.width, 0, 1), clamp((event.clientY - area.top) / area.height, 0, 1)];
  }

  #start(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.frame.focus();
    const [x, y] = this.#at(event);
    this.frame.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const [u, v] = this.#at(moved);
      const box = [Math.min(x, u), Math.min(y, v), Math.abs(u - x), Math.abs(v - y)];
      this.set(box[2] > 0.03 && box[3] > 0.03 ? box : null);
    };
    this.frame.addEventListener("pointermove", move);
    this.frame.addEventListener("pointerup", () => this.frame.removeEventListener("pointermove", move), { once: true });
    this.frame.addEventListener("pointercancel", () => this.frame.removeEventListener("pointermove", move), { once: true });
  }

  #key(event) {
    if (event.key === "Escape" && this.box) {
      event.preventDefault();
      event.stopPropagation();
      this.set(null);
      return;
    }
    const by = { ArrowRight: [STEP, 0], ArrowLeft: [-STEP, 0], ArrowDown: [0, STEP], ArrowUp: [0, -STEP] }[event.key];
    if (!by) return;
    event.preventDefault();
    if (!this.box) { this.set([0.25, 0.25, 0.5, 0.5]); return; }
    const [x, y, w, h] = this.box;
    if (event.shiftKey) this.set([x, y, clamp(w + by[0], 0.05, 1 - x), clamp(h + by[1], 0.05, 1 - y)]);
    else this.set([clamp(x + by[0], 0, 1 - w), clamp(y + by[1], 0, 1 - h), w, h]);
  }
}
