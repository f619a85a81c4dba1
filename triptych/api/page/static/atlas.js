// The collection as a map: a canvas to drag and to zoom, dots from afar, pictures from near.
import { imageBlob, mosaic } from "/page/api.js";

const CELL = 100; // of a map that is not zoomed
const NEAR = 5; // pixels on the screen, from which on a picture is drawn
const LARGE = 24; // and from which on the tiny one of a mosaic will not do
const IN_MOSAIC = 500;
const [TINY, ACROSS] = [16, 40]; // pixels of a cell of a mosaic, and cells in a row
const AT_ONCE = 16;
const KEPT = 3000;
const LARGEST = 256; // pixels of a cell, before anybody zooms: as large as a thumbnail

export class Atlas {
  #pictures = new Map(); // index to ImageBitmap, or null while it comes
  #tiny = new Map(); // index to [mosaic, x, y]
  #loading = 0;
  #scale = 0.1;
  #x = 0;
  #y = 0;
  #pointers = new Map();
  #moved = 0;
  #asked = false;

  constructor(canvas, { open }) {
    this.canvas = canvas;
    this.open = open;
    this.chart = null;
    new ResizeObserver(() => this.fit()).observe(canvas);
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY); }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); this.#pointers.set(event.pointerId, event); this.#moved = 0; });
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#lift(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(name, chart) {
    if (chart !== this.chart) {
      for (const picture of this.#pictures.values()) picture?.close();
      this.#pictures.clear();
      this.#tiny.clear();
      this.#loadTiny(name, chart).catch(() => {}); // dots will do
    }
    Object.assign(this, { name, chart });
    this.fit();
  }

  async #loadTiny(name, chart) {
    const shown = chart.ids.map((_, index) => index).filter((index) => chart.has_image[index] && chart.ids[index].isWellFormed()); // JSON takes no other
    for (let at = 0; at < shown.length; at += IN_MOSAIC) {
      const some = shown.slice(at, at + IN_MOSAIC);
      const bitmap = await createImageBitmap(await mosaic(name, some.map((index) => chart.ids[index])));
      if (chart !== this.chart) return;
      some.forEach((index, cell) => this.#tiny.set(index, [bitmap, (cell % ACROSS) * TINY, Math.floor(cell / ACROSS) * TINY]));
      this.draw();
    }
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!this.chart || !width) return;
    this.canvas.width = width * devicePixelRatio;
    this.canvas.height = height * devicePixelRatio;
    const [left, right] = this.#ends(0);
    const [top, bottom] = this.#ends(1);
    this.#scale = Math.min(width / (right - left), height / (bottom - top), LARGEST) / CELL;
    this.#x = (width - (left + right) * CELL * this.#scale) / 2;
    this.#y = (height - (top + bottom) * CELL * this.#scale) / 2;
    this.draw();
  }

  /** Where the cells of the map begin and end, with a rim of half a cell. */
  #ends(axis) {
    const at = this.chart.cells.map((cell) => cell[axis]);
    return at.length ? [Math.min(...at) - 0.5, Math.max(...at) + 1.5] : [0, 1];
  }

  zoom(by, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const scale = Math.min(Math.max(this.#scale * by, 0.01), 4);
    this.#x = x - ((x - this.#x) * scale) / this.#scale;
    this.#y = y - ((y - this.#y) * scale) / this.#scale;
    this.#scale = scale;
    this.draw();
  }

  draw() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => { this.#asked = false; this.#draw(); });
  }

  #draw() {
    if (!this.chart) return;
    const context = this.canvas.getContext("2d");
    const ratio = devicePixelRatio;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const style = getComputedStyle(this.canvas);
    context.fillStyle = style.backgroundColor;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.fillStyle = style.color;
    const side = CELL * this.#scale;
    const wanted = [];
    this.chart.cells.forEach(([column, row], index) => {
      const [x, y] = [this.#x + column * side, this.#y + row * side];
      if (x + side < 0 || y + side < 0 || x > this.canvas.clientWidth || y > this.canvas.clientHeight) return;
      const picture = this.#pictures.get(index);
      const tiny = this.#tiny.get(index);
      if (side >= LARGE && this.chart.has_image[index] && picture === undefined) wanted.push(index);
      if (side >= NEAR && !picture && tiny) {
        context.globalCompositeOperation = "multiply";
        context.drawImage(...tiny, TINY, TINY, x + side * 0.03, y + side * 0.03, side * 0.94, side * 0.94);
        context.globalCompositeOperation = "source-over";
        return;
      }
      if (side < NEAR || !picture) {
        context.globalAlpha = 0.35;
        context.beginPath();
        context.arc(x + side / 2, y + side / 2, Math.min(side * 0.3, 10), 0, 7);
        context.fill();
        context.globalAlpha = 1;
        return;
      }
      const fit = (side * 0.94) / Math.max(picture.width, picture.height);
      const [w, h] = [picture.width * fit, picture.height * fit];
      context.globalCompositeOperation = "multiply"; // white paper round a thing vanishes
      context.drawImage(picture, x + (side - w) / 2, y + (side - h) / 2, w, h);
      context.globalCompositeOperation = "source-over";
    });
    this.#load(wanted);
  }

  #load(wanted) {
    for (const index of wanted.slice(0, AT_ONCE - this.#loading)) this.#fetch(index, this.chart);
  }

  async #fetch(index, chart) {
    this.#loading++;
    this.#pictures.set(index, null);
    try {
      const picture = await createImageBitmap(await imageBlob(this.name, chart.ids[index]));
      if (chart === this.chart) this.#pictures.set(index, picture);
      if (this.#pictures.size > KEPT) this.#pictures.delete(this.#pictures.keys().next().value);
    } catch { /* it stays a dot */ } finally {
      this.#loading--;
      this.draw();
    }
  }

  #drag(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    this.#moved += Math.abs(dx) + Math.abs(dy);
    if (this.#pointers.size === 2) {
      const other = [...this.#pointers.values()].find((one) => one.pointerId !== event.pointerId);
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      const area = this.canvas.getBoundingClientRect();
      this.zoom(apart(event) / Math.max(apart(before), 1), (event.clientX + other.clientX) / 2 - area.left, (event.clientY + other.clientY) / 2 - area.top);
    } else {
      this.#x += dx;
      this.#y += dy;
      this.draw();
    }
    this.#pointers.set(event.pointerId, event);
  }

  #lift(event) {
    this.#pointers.delete(event.pointerId);
    if (event.type === "pointerup" && this.#moved < 6) this.#openAt(event.offsetX, event.offsetY);
  }

  #openAt(x, y) {
    const side = CELL * this.#scale;
    const [column, row] = [Math.floor((x - this.#x) / side), Math.floor((y - this.#y) / side)];
    const index = this.chart?.cells.findIndex((cell) => cell[0] === column && cell[1] === row) ?? -1;
    if (index >= 0) this.open(index);
  }

  #key(event) {
    const by = { ArrowRight: [-60, 0], ArrowLeft: [60, 0], ArrowDown: [0, -60], ArrowUp: [0, 60] }[event.key];
    const zoom = { "+": 1.4, "=": 1.4, "-": 1 / 1.4 }[event.key];
    if (by) { this.#x += by[0]; this.#y += by[1]; this.draw(); }
    else if (zoom) this.zoom(zoom);
    else if (event.key === "0") this.fit();
    else if (event.key === "Enter") this.#openNearest();
    else return;
    event.preventDefault();
  }

  #openNearest() {
    const side = CELL * this.#scale;
    const [x, y] = [(this.canvas.clientWidth / 2 - this.#x) / side - 0.5, (this.canvas.clientHeight / 2 - this.#y) / side - 0.5];
    const far = this.chart.cells.map(([column, row]) => (column - x) ** 2 + (row - y) ** 2);
    if (far.length) this.open(far.indexOf(Math.min(...far)));
  }
}
