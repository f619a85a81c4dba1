// The page put together.
import { forget, recall, remember } from "/page/address.js";
import { ask, collections, imagePath, onSignIn, record, within } from "/page/api.js";
import { Asking, MOST } from "/page/asking.js";
import { Atlas } from "/page/atlas.js";
import { drawChips } from "/page/chips.js";
import { Detail } from "/page/detail.js";
import { $, make } from "/page/dom.js";
import { drawFilters, showFilters } from "/page/filters.js";
import { Grid } from "/page/grid.js";
import { toSend } from "/page/picture.js";
import { Query } from "/page/query.js";
import { upload } from "/page/upload.js";

const ASK = matchMedia("(hover: none)").matches ? "Describe it" : $("words").placeholder; // a finger drops nothing
const PAUSE = 120; // milliseconds without a key before a search goes out
const SLOW = 400; // milliseconds after which a search that still runs says so
const WARM = 1000; // milliseconds after the first search

const query = new Query();
const asking = new Asking();
let name = "";
let whole = null; // the map of the collection
let chart = null; // ... of what the filters leave of it
let narrowing = Promise.resolve(); // until the chart is of these filters
let timer = 0;
let warmed = false;

const detail = new Detail({ explain, search: add, turn: { to: open, has: (index) => $("map").hidden && Boolean(grid.hits[index]), done: (index) => grid.focus(index) } });
const grid = new Grid($("grid"), { open, more });
const atlas = new Atlas($("canvas"), { open: openCharted });

onSignIn((wrong) => new Promise((done) => {
  $("signin-trouble").textContent = wrong;
  if (!$("signin").open) $("signin").showModal();
  $("key").select();
  $("signin").addEventListener("cancel", (event) => event.preventDefault());
  $("signin-form").addEventListener("submit", (event) => {
    event.preventDefault();
    $("signin").close();
    done($("key").value.trim());
  }, { once: true });
}));

function charted(index) {
  return { id: chart.ids[index], text: chart.texts[index], has_image: chart.has_image[index], metadata: {} };
}

function open(index) {
  return grid.showScore ? detail.open(name, grid.hits[index], index) : openCharted(index);
}

/** Open an item of the map, of which the map knows the beginning of the text only. */
function openCharted(index) {
  return guarded(() => detail.open(name, charted(index), index, record(name, chart.ids[index])));
}

function warn(error) {
  $("trouble").hidden = !error;
  $("trouble").replaceChildren(...(error ? [make("strong", {}, error.message), error.hint ? ` ${error.hint}` : ""] : []));
}

function trouble(error) {
  if (error?.name === "AbortError") return;
  warn(error);
  if (error) { $("status").textContent = ""; $("timing").textContent = ""; }
}

async function guarded(work) {
  try { await work(); } catch (error) { trouble(error); }
}

function browse() {
  asking.stop();
  const few = chart.ids.length < chart.count ? `, ${chart.ids.length.toLocaleString("en")} of them here` : "";
  $("status").textContent = `${chart.count.toLocaleString("en")} ${chart.count === 1 ? "item" : "items"}${few}`;
  $("timing").textContent = "";
  grid.show(name, chart.ids.map((_, index) => charted(index)), chart.ids.length, false);
}

async function search() {
  clearTimeout(timer);
  trouble(null);
  remember(name, query);
  if (!whole) return;
  if (!whole.count) { await guarded(() => choose(name, query.filters)); return; } // somebody may have filled it
  $("empty").hidden = true;
  if (query.isEmpty) {
    await guarded(async () => { await narrowing; if (query.isEmpty) browse(); });
    return;
  }
  await guarded(async () => {
    const slow = setTimeout(() => { $("status").textContent = "Searching …"; $("timing").textContent = ""; }, SLOW);
    const found = await asking.search(name, query).finally(() => clearTimeout(slow));
    await narrowing;
    const total = found.isAll ? found.hits.length : Math.min(chart.count, MOST);
    scrollTo(0, 0);
    grid.show(name, found.hits, total, true);
    $("status").textContent = found.isAll ? `${total} found` : `The best of ${chart.count.toLocaleString("en")} items`;
    if (!found.hits.length) nothing("Nothing was found", query.filters.size ? "Nothing has all that the filters ask for: set one to “any”." : "Nothing is in this collection yet.");
    const stages = (found.timing ?? "").split(", ").filter(Boolean).map((one) => one.split(";dur="))
      .filter(([, ms]) => ms >= 0.1).map(([stage, ms]) => `${stage} ${Number(ms).toFixed(1)}`);
    $("timing").replaceChildren(`${Math.round(found.ms)} ms · ${found.tier}`,
      make("span", { class: "wide" }, stages.length ? ` (${stages.join(", ")})` : ""));
    performance.mark("triptych-shown");
    warm(found.hits[0]);
    view("grid");
  });
}

/** Ask for the map of what the filters leave, and search in that. */
function narrow() {
  const before = narrowing;
  const filter = encodeURIComponent(JSON.stringify(Object.fromEntries(query.filters)));
  const found = query.filters.size ? ask(`${within(name)}/map?filter=${filter}`).then((reply) => reply.json()) : whole;
  narrowing = (async () => {
    await before.catch(() => {}); // the newest wins
    chart = await found;
    if (!$("map").hidden) atlas.show(name, chart);
  })();
  return search();
}

/** Have the first hit explained while nobody waits: the first time the server loads what it needs. */
function warm(hit) {
  if (warmed || !hit?.has_image) return;
  warmed = true;
  setTimeout(() => asking.explain(hit, 0).catch(() => { warmed = false; }), WARM);
}

async function more(first, last, before) {
  if (!grid.showScore) return;
  // what is in view, then what comes next, then what was passed
  const ranges = [[first, last], [before, first]];
  await guarded(() => asking.pages(ranges, ({ hits, offset, isLast }) => {
    grid.append(hits, offset, isLast ? offset + hits.length : grid.total);
    grid.tiny(hits, offset);
  }));
}

async function explain(hit, index) {
  try { return await asking.explain(hit, index); } catch (error) { return { trouble: [error.message, error.hint].filter(Boolean).join(" ") }; }
}

function changed() {
  drawTerms();
  search();
}

function drawTerms() {
  for (const term of query.terms) term.preview ??= term.kind === "id" ? imagePath(name, term.value) : "";
  drawChips($("chips"), query, changed);
  $("words").placeholder = query.terms.length ? "Add words" : ASK;
}

function add(term) {
  if (term.kind === "id") { query.terms = []; query.words = ""; $("words").value = ""; }
  query.add(term);
  changed();
}

async function addPicture(blob, label) {
  const value = await toSend(blob);
  if (!value.startsWith("data:image/")) { // as a term it would spoil every search
    warn({ message: `“${label}” is not a picture to search with.`, hint: "JPEG, PNG, WebP, GIF, TIFF and AVIF are." });
    return;
  }
  query.add({ kind: "image", value, label, preview: value });
  changed();
}

function view(which) {
  const isMap = which === "map";
  $("grid").hidden = isMap;
  $("map").hidden = !isMap || !chart?.count;
  $("timing").hidden = isMap;
  $("show-map").setAttribute("aria-pressed", String(isMap));
  $("show-grid").setAttribute("aria-pressed", String(!isMap));
  if (!isMap) { grid.draw(); return; }
  if (!chart?.count) return;
  $("status").textContent = `${chart.ids.length.toLocaleString("en")} on the map, alike beside alike`;
  atlas.show(name, chart);
}

function nothing(title, more, ...also) {
  $("empty").hidden = false;
  $("empty").replaceChildren(make("h2", {}, title), make("p", {}, more), ...also);
}

async function choose(chosen, filters = new Map()) {
  name = chosen;
  drawTerms();
  grid.name = ""; // its pictures may be others by now
  query.filters = filters;
  $("status").textContent = "Opening …";
  $("timing").textContent = "";
  narrowing = Promise.resolve();
  whole = chart = await (await ask(`${within(name)}/map`)).json();
  await drawFilters($("filters"), name, whole, query, narrow);
  $("empty").hidden = whole.count > 0;
  if (whole.count) await (query.filters.size ? narrow() : search());
  else {
    remember(name, query);
    grid.show(name, [], 0, false);
    $("status").textContent = "";
    nothing("Nothing is in this collection yet", `Add some here, or index a folder of this machine: triptych index ~/Pictures -c ${name}`,
      make("button", { type: "button", class: "strong", onclick: () => $("add-files").click() }, "Add pictures"));
  }
  view($("show-map").getAttribute("aria-pressed") === "true" ? "map" : "grid");
}

async function start() {
  const known = (await collections()).map((one) => one.name);
  if (!known.length) {
    $("add").hidden = true;
    nothing("There is no collection yet", "Make one, then load this page again: triptych index ~/Pictures");
    return;
  }
  $("collection").replaceChildren(...known.map((one) => make("option", {}, one)));
  await restore();
}

/** Put the search of the address back, as it was. */
async function restore() {
  const { name: asked, filters, ...rest } = recall();
  const known = [...$("collection").options].map(({ value }) => value);
  if (!known.length) return;
  forget();
  detail.close();
  Object.assign(query, rest);
  $("words").value = query.words;
  $("hybrid").checked = query.hybrid;
  $("diversity").value = query.diversity;
  $("collection").value = known.includes(asked) ? asked : known.includes("default") ? "default" : known[0];
  if ($("collection").value !== name || !whole) await choose($("collection").value, filters);
  else {
    query.filters = filters;
    showFilters($("filters"), query);
    drawTerms();
    await narrow();
  }
  if (/^[a-z0-9_-]{1,64}$/.test(asked) && asked !== name) warn({ message: `There is no collection “${asked}” here.`, hint: `This is “${name}”.` });
}

function listen() {
  $("search").addEventListener("submit", (event) => { event.preventDefault(); query.keep(); $("words").value = ""; changed(); });
  $("words").addEventListener("input", () => { query.words = $("words").value; clearTimeout(timer); timer = setTimeout(search, PAUSE); });
  $("words").addEventListener("keydown", (event) => {
    if (event.key === "Backspace" && !$("words").value && query.terms.length) { query.terms.pop(); changed(); }
    if (event.key === "ArrowDown" && grid.total) { event.preventDefault(); grid.focus(0); }
  });
  $("hybrid").addEventListener("change", () => { query.hybrid = $("hybrid").checked; search(); });
  $("diversity").addEventListener("change", () => { query.diversity = Number($("diversity").value); search(); });
  $("collection").addEventListener("change", () => guarded(async () => {
    query.terms = query.terms.filter(({ kind }) => kind !== "id"); // unknown there
    await choose($("collection").value);
  }));
  addEventListener("popstate", () => guarded(restore));
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("results").focus(); });
  $("show-grid").addEventListener("click", () => view("grid"));
  $("show-map").addEventListener("click", () => view("map"));
  $("nearer").addEventListener("click", () => atlas.zoom(1.5));
  $("farther").addEventListener("click", () => atlas.zoom(1 / 1.5));
  $("picture").addEventListener("click", () => $("picture-file").click());
  $("picture-file").addEventListener("change", (event) => guarded(async () => { for (const file of event.target.files) await addPicture(file, file.name); event.target.value = ""; }));
  $("add").addEventListener("click", () => $("add-files").click());
  $("add-files").addEventListener("change", (event) => guarded(async () => { const files = [...event.target.files]; event.target.value = ""; await upload(name, files); await choose(name); }));
  addEventListener("keydown", (event) => { if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName) && !document.querySelector("dialog[open]")) { event.preventDefault(); $("words").focus(); } });
  addEventListener("paste", (event) => guarded(async () => { const files = [...event.clipboardData.files]; if (files.length) event.preventDefault(); for (const file of files) await addPicture(file, "Pasted picture"); }));
  const over = (event) => [...event.dataTransfer.types].includes("Files");
  addEventListener("dragover", (event) => { if (over(event)) { event.preventDefault(); $("drop").hidden = false; } });
  addEventListener("dragleave", (event) => { if (event.relatedTarget === null) $("drop").hidden = true; });
  addEventListener("drop", (event) => { if (over(event)) { event.preventDefault(); $("drop").hidden = true; guarded(async () => { for (const file of event.dataTransfer.files) await addPicture(file, file.name); }); } });
}

$("words").placeholder = ASK;
listen();
guarded(start);
