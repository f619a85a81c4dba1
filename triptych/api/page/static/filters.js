// Filters from what the collection's own items say of themselves.
import { ask, within } from "/page/api.js";
import { make } from "/page/dom.js";

const SHOWN = 6; // filters, at most
const VALUES = 30; // of one
const LONGEST = 60; // characters of a value that a person reads: a hash has 64

/** Whether somebody can choose by this: not where all are the same or none are, numbers that differ, or hashes. */
function isChoice(values, all) {
  if (!values.length || values[0].count === all || values[0].count === 1) return false; // the most frequent is first
  const isCut = values.length === VALUES;
  return !values.some(({ value }) => (isCut && typeof value === "number") || String(value).length > LONGEST);
}

export async function drawFilters(place, name, { fields, count: all }, query, changed) {
  place.replaceChildren();
  if (!fields.length) { query.filters = new Map(); return; }
  const body = { fields, limit: VALUES };
  const { facets } = await (await ask(`${within(name)}/facets`, { method: "POST", json: body })).json();
  const choices = Object.entries(facets).filter(([, values]) => isChoice(values, all));
  for (const [field, values] of choices.slice(0, SHOWN)) {
    const select = make("select", { onchange: () => {
      if (select.value === "") query.filters.delete(field);
      else query.filters.set(field, values[Number(select.value)].value);
      changed();
    } }, make("option", { value: "" }, "any"),
    ...values.map(({ value, count }, at) => make("option", { value: at }, `${value} (${count})`)));
    Object.assign(select, { field, values });
    place.append(make("label", {}, make("span", { title: field }, field), select));
  }
  showFilters(place, query);
}

/** Let the choices say what the query filters by; what none of them offers is no filter. */
export function showFilters(place, query) {
  const offered = new Map();
  for (const select of place.querySelectorAll("select")) {
    const at = select.values.findIndex(({ value }) => value === query.filters.get(select.field));
    select.value = at < 0 ? "" : at;
    if (at >= 0) offered.set(select.field, select.values[at].value);
  }
  query.filters = offered;
}
