// Elements without innerHTML: what the server sends is text, never markup.
export const $ = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export const titleOf = (hit) => {
  if (hit.text) return hit.text;
  const last = (hit.uri || hit.id).split("/").pop();
  return last.replace(/\.[a-z0-9]{2,5}$/i, "").replace(/[-_]+/g, " ");
};
