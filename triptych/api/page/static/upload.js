// Pictures into the collection, one request each, so that the bar tells the truth.
import { ask, within } from "/page/api.js";
import { $, make } from "/page/dom.js";

async function one(name, file) {
  const form = new FormData();
  form.set("id", file.name);
  form.set("image", file);
  const said = await (await ask(`${within(name)}/items`, { method: "PUT", body: form })).json();
  return said.errors[0]?.error;
}

export async function upload(name, files) {
  const place = $("upload");
  const bar = make("progress", { max: files.length, value: 0, "aria-label": "Upload" });
  const line = make("p", {}, `Adding ${files.length} …`);
  place.replaceChildren(line, bar);
  place.hidden = false;
  const troubles = [];
  for (const [at, file] of files.entries()) {
    try {
      const error = await one(name, file);
      if (error) troubles.push(`${file.name}: ${error.message}`);
    } catch (error) {
      troubles.push(`${file.name}: ${[error.message, error.hint].filter(Boolean).join(" ")}`);
    }
    bar.value = at + 1;
    line.textContent = `Adding ${at + 1} of ${files.length} …`;
  }
  const added = files.length - troubles.length;
  place.replaceChildren(
    make("p", {}, `${added} of ${files.length} ${files.length === 1 ? "picture" : "pictures"} added.`),
    troubles.length ? make("ul", {}, ...troubles.slice(0, 20).map((said) => make("li", {}, said))) : null,
    make("button", { type: "button", class: "quiet", onclick: () => { place.hidden = true; } }, "Close"));
}
