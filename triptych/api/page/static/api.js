// What is asked of the server. An error is a sentence: the server's message and its hint.
const KEY = "triptych.key";

export class Trouble extends Error {
  constructor(message, hint, status) {
    super(message);
    this.hint = hint;
    this.status = status;
  }
}

let signIn = async () => null;
export const onSignIn = (ask) => { signIn = ask; };
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

function headers(more = {}) {
  const key = sessionStorage.getItem(KEY);
  return key === null ? more : { ...more, Authorization: `Bearer ${key}` };
}

async function send(path, options) {
  try {
    return await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The server does not answer.", "Is it still running?", 0);
  }
}

export async function ask(path, { method = "GET", body, json, signal } = {}) {
  const options = { method, signal, body };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers = { "Content-Type": "application/json" };
  }
  let reply = await send(path, options);
  while (reply.status === 401) {
    sessionStorage.setItem(KEY, await signIn(hasKey() ? (await reply.json()).error.message : ""));
    reply = await send(path, options);
  }
  if (!reply.ok) {
    const said = await reply.json().catch(() => null);
    const { message, hint } = said?.error ?? { message: `The server answered ${reply.status}.` };
    throw new Trouble(message, hint, reply.status);
  }
  return reply;
}

export const collections = async () => (await (await ask("/v1/collections")).json()).collections;
export const within = (name) => `/v1/collections/${encodeURIComponent(name)}`;
const itemPath = (name, id) => `${within(name)}/items/${encoded(id)}`;
export const imagePath = (name, id) => `${itemPath(name, id)}/image`;

/** A file's name may hold bytes that are no UTF-8: in an id they are U+DC80 to U+DCFF. */
const encoded = (id) => [...id].map((one) => (one.isWellFormed() ? encodeURIComponent(one) : `%${(one.charCodeAt(0) & 0xff).toString(16)}`)).join("");

export const record = async (name, id) => (await ask(itemPath(name, id))).json();

/** Show a thumbnail; where a key is needed it is fetched, for an <img> cannot send one. */
export async function showImage(img, name, id) {
  const path = imagePath(name, id);
  if (!hasKey()) { img.src = path; return; }
  const url = URL.createObjectURL(await (await ask(path)).blob());
  img.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  img.src = url;
}

export const imageBlob = async (name, id) => (await ask(imagePath(name, id))).blob();

/** The picture itself, as large as a screen shows it; the thumbnail where the original is gone. */
export const largeBlob = async (name, id) => (await ask(`${imagePath(name, id)}?side=1600`)).blob();

/** Tiny pictures of at most 1,000 items in one: see grid.js. */
export async function mosaic(name, ids, signal) {
  return (await ask(`${within(name)}/items/mosaic`, { method: "POST", json: { ids }, signal })).blob();
}
