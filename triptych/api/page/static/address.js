// The search in the address: Back, a reload and a link find it again.
// A picture is too long for an address: it is kept in this tab's history, and a link goes without it.
import { titleOf } from "/page/dom.js";

let last = null; // what was remembered last: {rest, words}

/** Let the next search stay in this entry of the history. */
export const forget = () => { last = null; };

/** Write the search into the address; typing goes on in the entry in which it began. */
export function remember(name, query) {
  const terms = query.terms.map(({ kind, value, label, weight }) => ({ kind, value, label, weight, preview: kind === "image" ? value : undefined }));
  const now = { words: query.words.trim(), rest: JSON.stringify([spelled(name, query, ""), terms]) };
  const isTyping = !last || (last.rest === now.rest && last.words && now.words);
  if (last?.rest === now.rest && last.words === now.words) return;
  last = now;
  const asked = [...query.terms.map(({ label }) => label), now.words].filter(Boolean).join(", ");
  document.title = asked ? `${asked} – Triptych` : "Triptych";
  try {
    history[isTyping ? "replaceState" : "pushState"]({ terms }, "", spelled(name, query, now.words));
  } catch { /* a browser may find it too much, or too often: then it is not kept */ }
}

function spelled(name, query, words) {
  const said = new URLSearchParams();
  for (const { kind, value, weight } of query.terms) if (kind !== "image") said.append(kind, `${weight}:${value}`);
  if (words) said.set("q", words);
  if (query.hybrid) said.set("exact", "1");
  if (query.diversity) said.set("variety", query.diversity);
  if (query.filters.size) said.set("filter", JSON.stringify(Object.fromEntries(query.filters)));
  return `#${encodeURIComponent(name)}${said.size ? `?${said}` : ""}`;
}

/** Return the name of the collection and the search that the address holds. */
export function recall() {
  const [, name, more] = /^#?([^?]*)\??(.*)$/s.exec(location.hash);
  const said = new URLSearchParams(more);
  return {
    name,
    terms: (history.state?.terms ?? [...said].map(termOf).filter(Boolean)).map((term) => ({ ...term })),
    words: said.get("q") ?? "",
    hybrid: said.get("exact") === "1",
    diversity: Number(said.get("variety")) || 0,
    filters: filtersOf(said.get("filter")),
  };
}

function termOf([kind, text]) {
  const [, weight, value] = /^(-?[\d.]+):(.*)$/s.exec(text) ?? [];
  if (!["text", "id"].includes(kind) || !Number(weight) || !value) return null;
  return { kind, value, weight: Number(weight), label: kind === "id" ? titleOf({ id: value }) : value };
}

function filtersOf(text) {
  try { return new Map(Object.entries(JSON.parse(text ?? "{}"))); } catch { return new Map(); }
}
