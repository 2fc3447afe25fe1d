// Small things that every part of the page uses: elements, requests, the items that were fetched.

/** An element; text is never read as markup. Keys that begin with "on" are listeners. */
export function el(name, given = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else if (key in node && typeof value === "boolean") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of a drawing. */
export function svg(name, given = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(given)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** A drawing of one path on a field of 20 by 20. */
export const icon = (path) => svg("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" }, svg("path", { d: path }));

export const byId = (id) => document.getElementById(id);

/** A refusal of the server: what is wrong, and where. */
export class Refusal extends Error {
  constructor(status, message, where) {
    super(message);
    this.status = status;
    this.where = where;
  }
}

/** Ask the server; once more after the time it asks for when it is busy. */
export async function ask(path, options = {}, again = true) {
  let reply;
  try {
    reply = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer. Is it still running?", null);
  }
  if (reply.ok) return reply;
  if (reply.status === 429 && again) {
    const seconds = Math.min(10, Number(reply.headers.get("Retry-After")) || 1);
    await new Promise((done) => setTimeout(done, 1000 * seconds));
    return ask(path, options, false);
  }
  let said = { message: `The server answered ${reply.status}.`, where: null };
  try {
    said = (await reply.json()).error;
  } catch (error) {
    console.warn(error);
  }
  throw new Refusal(reply.status, said.message, said.where);
}

export const post = (content, signal) => ({
  method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(content),
});

/** The address of an item's media; with a size, of a thumbnail. */
export function mediaAt(item, column, size) {
  const address = `/items/${encodeURIComponent(String(item.key))}/media/${encodeURIComponent(column)}`;
  return size ? `${address}?size=${size}` : address;
}

/** Numbers as people write them. */
export function figure(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
}

export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

export const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** Items by number, fetched in groups when they are needed. */
export class Items {
  constructor(most = 6000) {
    this.known = new Map();
    this.most = most;
    this.wanted = new Set();
    this.asked = new Set();
    this.listeners = new Set();
    this.timer = 0;
  }

  get(row) {
    return this.known.get(row);
  }

  /** The item if it is here; otherwise it is asked for, and listeners hear of it. */
  need(row) {
    const item = this.known.get(row);
    if (item === undefined && !this.asked.has(row)) {
      this.wanted.add(row);
      if (!this.timer) this.timer = setTimeout(() => this.fetch(), 30);
    }
    return item;
  }

  async fetch() {
    this.timer = 0;
    const rows = [...this.wanted].slice(-256); // what was needed last is looked at now
    this.wanted.clear();
    for (const row of rows) this.asked.add(row);
    try {
      await this.load(rows);
    } catch (error) {
      console.warn(error);
    } finally {
      for (const row of rows) this.asked.delete(row);
    }
  }

  async load(rows) {
    const missing = rows.filter((row) => !this.known.has(row));
    for (let k = 0; k < missing.length; k += 256) {
      const reply = await ask("/gallery/items", post({ rows: missing.slice(k, k + 256) }));
      const { items } = await reply.json();
      for (const item of items) this.known.set(item.row, item);
      while (this.known.size > this.most) this.known.delete(this.known.keys().next().value);
      const came = new Set(items.map((item) => item.row));
      for (const listener of this.listeners) listener(came);
    }
    return rows.map((row) => this.known.get(row));
  }
}

/** Which fields make an item's title, its line of facts, and its face. */
export class Looks {
  constructor(gallery) {
    this.key = gallery.key;
    const of = (...kinds) => gallery.fields.filter((f) => kinds.includes(f.kind)).map((f) => f.name);
    const words = [...of("text"), ...of("category"), ...of("tags")].filter((name) => name !== gallery.key);
    this.titled = words.find((name) => /name|title|label|caption/i.test(name)) ?? of("text").find((n) => n !== gallery.key) ?? null;
    this.facts = [...of("category"), ...of("number"), ...of("date")].filter((name) => name !== this.titled && name !== gallery.key).slice(0, 2);
    this.images = of("image");
    this.sounds = of("audio");
    this.sketches = [...of("sketch"), ...of("video")];
    this.texts = of("text");
  }

  title(item) {
    const value = this.titled ? item.fields[this.titled] : undefined;
    const shown = Array.isArray(value) ? value.join(", ") : value;
    return String(shown ?? item.key);
  }

  sub(item) {
    const said = this.facts.map((name) => item.fields[name]).filter((v) => v !== undefined && typeof v !== "boolean").map(figure);
    const key = this.titled && this.key ? [String(item.key)] : [];
    return [...key, ...said].join(" · ");
  }

  /** The column that stands for the item as a picture, or null. */
  face(item) {
    return [...this.images, ...this.sounds, ...this.sketches].find((name) => item.media.includes(name)) ?? null;
  }

  /** The longest text of an item, for those without a face. */
  words(item) {
    const said = this.texts.map((name) => item.fields[name]).filter((v) => v !== undefined).map((v) => (Array.isArray(v) ? v.join(", ") : String(v)));
    return said.sort((a, b) => b.length - a.length)[0] ?? this.title(item);
  }
}
