// The kept terms: weigh with + and −, turn around, take away.
import { make } from "/page/dom.js";

const STEPS = [-2, -1, -0.5, 0.5, 1, 2, 3];

function shown(weight) {
  const size = Math.abs(weight);
  return `${weight < 0 ? "−" : ""}${size === 1 ? "" : `${size}×`}`;
}

function step(term, by) {
  const at = STEPS.findIndex((value) => value >= term.weight);
  term.weight = STEPS[Math.min(Math.max((at < 0 ? STEPS.length - 1 : at) + by, 0), STEPS.length - 1)];
}

export function drawChips(list, query, changed) {
  const act = (work, index, button) => () => {
    work();
    changed();
    const chips = list.querySelectorAll("li");
    const next = chips[Math.min(index, chips.length - 1)];
    (next?.querySelectorAll("button")[button] ?? document.getElementById("words")).focus();
  };
  list.replaceChildren(...query.terms.map((term, index) => {
    const name = term.label;
    const lead = term.kind === "text" ? null : make("img", { src: term.preview, alt: "", onerror: (event) => event.target.remove() });
    const less = act(() => step(term, -1), index, 0);
    const more = act(() => step(term, 1), index, 1);
    const gone = act(() => query.terms.splice(index, 1), index, 2);
    return make("li", { class: term.weight < 0 ? "minus" : "" },
      lead, make("span", { dir: "auto", title: name }, `${shown(term.weight)}${shown(term.weight) ? " " : ""}${name}`),
      make("button", { type: "button", "aria-label": `Less ${name}`, onclick: less }, "−"),
      make("button", { type: "button", "aria-label": `More ${name}`, onclick: more }, "+"),
      make("button", { type: "button", "aria-label": `Remove ${name}`, onclick: gone }, "×"));
  }));
}
