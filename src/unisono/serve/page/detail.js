// One item in full, with what is near it.

import { ask, byId, el, figure, mediaAt } from "./base.js";

const MEDIA = { image: "img", audio: "audio", video: "video", sketch: "img" };

export class Detail {
  constructor(schema, items, looks, acts) {
    Object.assign(this, { schema, items, looks, acts });
    this.dialog = byId("detail");
    this.kinds = new Map(schema.gallery.fields.map((f) => [f.name, f.kind]));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("close", () => { this.dialog.replaceChildren(); this.row = null; });
  }

  async open(row) {
    const [brief] = await this.items.load([row]);
    const item = await (await ask(`/items/${encodeURIComponent(String(brief.key))}`)).json();
    this.row = row;
    const title = this.looks.title(item);
    const like = (less) => () => { this.dialog.close(); this.acts.like(row, less); };
    const selected = this.acts.selected(row);
    const pick = el("button", { type: "button", "aria-pressed": String(selected), onclick: () => { this.acts.toggle(row); pick.textContent = this.acts.selected(row) ? "Selected" : "Select"; } }, selected ? "Selected" : "Select");
    const near = el("div", { class: "near" });
    this.dialog.replaceChildren(
      el("div", { class: "head" }, el("h2", {}, title), el("button", { class: "tool", type: "button", "aria-label": "Close", onclick: () => this.dialog.close() }, "×")),
      el("div", { class: "media" }, ...item.media.map((name) => this.media(item, name))),
      el("div", { class: "acts" }, el("button", { type: "button", class: "primary", onclick: like(false) }, "More like this"), el("button", { type: "button", onclick: like(true) }, "Less like this"), pick),
      el("dl", {}, ...this.fields(item)),
      near,
    );
    this.dialog.scrollTop = 0;
    if (!this.dialog.open) this.dialog.showModal();
    await this.nearest(item, near);
  }

  media(item, name) {
    const kind = this.kinds.get(name);
    const whole = kind === "sketch" ? mediaAt(item, name, 512) : mediaAt(item, name);
    const node = el(MEDIA[kind], kind === "image" || kind === "sketch" ? { src: whole, alt: `${name} of ${this.looks.title(item)}` } : { src: whole, controls: true, preload: "metadata", "aria-label": name });
    if (kind === "image") node.addEventListener("load", () => node.naturalWidth < 160 && node.classList.add("tiny"));
    node.addEventListener("error", () => kind !== "sketch" && node.src !== mediaAt(item, name, 512) && node.tagName === "IMG" && (node.src = mediaAt(item, name, 512)));
    return node;
  }

  fields(item) {
    return Object.entries(item.fields).flatMap(([name, value]) => {
      const shown = Array.isArray(value) && value.every((v) => typeof v === "string")
        ? el("dd", {}, ...value.map((word) => el("span", { class: "chip" }, word)))
        : el("dd", {}, typeof value === "object" && value !== null ? JSON.stringify(value) : typeof value === "boolean" ? (value ? "yes" : "no") : figure(value));
      return [el("dt", {}, name), shown];
    });
  }

  async nearest(item, place) {
    const form = new FormData();
    form.append("row", String(item.key));
    form.append("k", "9");
    let hits = [];
    try {
      hits = (await (await ask("/search", { method: "POST", body: form })).json()).hits;
    } catch (error) {
      place.replaceChildren(el("p", { class: "quiet" }, error.message));
      return;
    }
    const rows = hits.map((hit) => hit.row).filter((row) => row !== item.row).slice(0, 8);
    const found = await this.items.load(rows);
    if (this.row !== item.row) return;
    const cells = found.filter(Boolean).map((other) => {
      const face = this.looks.face(other);
      const title = this.looks.title(other);
      return el("button", { type: "button", title, "aria-label": title, onclick: () => this.open(other.row) }, face ? el("img", { src: mediaAt(other, face, 128), alt: "" }) : title);
    });
    if (cells.length) place.replaceChildren(el("h3", {}, "Nearest"), el("div", { class: "strip" }, ...cells));
  }
}
