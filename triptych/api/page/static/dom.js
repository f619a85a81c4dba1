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

const SHORT = 80; // characters of a title

/** A hit's id as a person reads it. */
export const nameOf = (hit) => {
  const last = hit.id.split("/").filter(Boolean).pop() ?? hit.id;
  return last.replace(/\.[a-z0-9]{2,5}$/i, "").replace(/[-_]+/g, " ");
};

export const isShort = (hit) => Boolean(hit.text) && hit.text.length <= SHORT;
export const titleOf = (hit) => {
  if (!hit.text) return nameOf(hit);
  return isShort(hit) ? hit.text : `${[...hit.text.slice(0, 2 * SHORT)].slice(0, SHORT).join("").replace(/\s+\S*$/, "")} …`;
};
