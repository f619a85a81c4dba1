// Why a hit has its score: each term's share, and which places of the picture answer which words.
import { make } from "/page/dom.js";

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

export function sharesOf(parts, shares) {
  const widest = Math.max(...shares.map(Math.abs), 1e-9);
  return make("ul", { class: "shares" }, ...shares.map((share, at) => {
    const fill = make("span", { class: share < 0 ? "fill minus" : "fill" });
    fill.style.width = `${(Math.abs(share) / widest) * 100}%`;
    return make("li", {}, make("span", { class: "name", dir: "auto" }, parts[at]?.label ?? `Part ${at + 1}`),
      make("span", { class: "meter", "aria-hidden": "true" }, fill), make("span", { class: "number" }, signed(share)));
  }));
}

/** Buttons that lay the heat of the whole query, or of one word, over the picture. */
export function heatsOf(hit, overlay) {
  const heats = [
    ...(hit.heat ? [{ name: "All of it", png: hit.heat.png }] : []),
    ...new Map((hit.word_heats ?? []).map(({ word, png }) => [word.toLowerCase(), { name: word, png }])).values(), // each once
  ];
  if (!heats.length) return hit.note ? make("p", { class: "tip" }, hit.note) : null;
  const group = make("div", { class: "heats", role: "group", "aria-label": "Show which places answer" });
  for (const { name, png } of heats) {
    const button = make("button", { type: "button", "aria-pressed": "false", onclick: () => {
      const on = button.getAttribute("aria-pressed") === "false";
      for (const other of group.children) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(on));
      overlay.hidden = !on;
      if (on) overlay.src = png;
    } }, name);
    group.append(button);
  }
  return make("div", {}, make("h3", {}, "Where it is seen"), group);
}

export function stagesOf(explain) {
  const stages = Object.entries(explain.stages_ms);
  const line = stages.map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`).join(" · ");
  return make("p", { class: "tip" }, `Answered by the ${explain.index} index${line ? `: ${line}` : ""}.`);
}
