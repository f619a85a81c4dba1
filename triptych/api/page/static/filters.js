// Filters from what the collection's own items say of themselves.
import { ask, within } from "/page/api.js";
import { make } from "/page/dom.js";

export async function drawFilters(place, name, { fields, count: all }, query, changed) {
  place.replaceChildren();
  if (!fields.length) return;
  const body = { fields: fields.slice(0, 6), limit: 30 };
  const { facets } = await (await ask(`${within(name)}/facets`, { method: "POST", json: body })).json();
  for (const [field, values] of Object.entries(facets)) {
    if (!values.length || values[0].count === all) continue; // no choice
    const select = make("select", { onchange: () => {
      if (select.value === "") query.filters.delete(field);
      else query.filters.set(field, values[Number(select.value)].value);
      changed();
    } }, make("option", { value: "" }, "any"),
    ...values.map(({ value, count }, at) => make("option", { value: at }, `${value} (${count})`)));
    place.append(make("label", {}, make("span", { title: field }, field), select));
  }
}
