// What is asked: terms with weights, words that are still being typed, options, filters.
export class Query {
  terms = []; // {kind: "text" | "image" | "id", value, label, weight}
  words = "";
  hybrid = false;
  diversity = 0;
  filters = new Map(); // field to value

  get isEmpty() { return this.parts().length === 0; }

  add(term) {
    this.terms.push({ weight: 1, ...term });
  }

  /** Turn the words into a term; "-snow" takes away, "2:snow" weighs. */
  keep() {
    const typed = this.typed();
    this.words = "";
    if (typed) this.add(typed);
  }

  typed() {
    let text = this.words.trim();
    let weight = 1;
    if (/^[-−]\s*\S/.test(text)) { weight = -1; text = text.slice(1).trim(); }
    const weighted = /^(\d+(?:\.\d+)?):\s*(\S.*)$/.exec(text);
    if (weighted && Number(weighted[1]) > 0) { weight *= Number(weighted[1]); text = weighted[2]; }
    return text && text !== "-" && text !== "−" ? { kind: "text", value: text, label: text, weight } : null;
  }

  parts() {
    const typed = this.typed();
    return typed ? [...this.terms, typed] : this.terms;
  }

  body(more) {
    const parts = this.parts().map(({ kind, value, weight }) => ({ [kind]: value, weight }));
    const body = { parts, ...more };
    const texts = this.parts().some((part) => part.kind === "text" && part.weight > 0);
    if (this.hybrid && texts) body.hybrid = true;
    if (this.diversity > 0) body.diversity = this.diversity;
    if (this.filters.size) body.filter = Object.fromEntries(this.filters);
    return body;
  }
}
