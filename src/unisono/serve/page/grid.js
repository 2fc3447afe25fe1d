// The grid of items: only what is in sight is in the document, so that a hundred thousand items scroll as ten do.

import { byId, calm, el, icon, mediaAt } from "./base.js";

const GAP = 12;
const CAPTION = 50;
const PAD = 3;
const TICK = "M4 10.500l4 4 8-9";
const PLAY = "M5 3l12 7-12 7z";
const PAUSE = "M4 3h4v14H4zM12 3h4v14h-4z";

export class Grid {
  constructor(root, items, looks, acts) {
    Object.assign(this, { root, items, looks, acts });
    this.rows = new Uint32Array();
    this.scores = null;
    this.badges = null;
    this.selected = new Set();
    this.shown = new Map(); // line -> element
    this.at = 0;
    this.wish = 148;
    this.anchor = 0;
    this.player = new Audio();
    this.playing = null;
    this.sizer = el("div", { class: "sizer", "aria-hidden": "true" });
    root.append(this.sizer);
    root.addEventListener("scroll", () => this.later(), { passive: true });
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("click", (event) => this.click(event));
    root.addEventListener("focus", () => this.rows.length && this.focus(this.at));
    this.player.addEventListener("ended", () => this.stop());
    new ResizeObserver(() => this.layout()).observe(root);
    items.listeners.add((came) => this.came(came));
  }

  /** Show items in this order. */
  show(rows, scores = null, badges = null, { keep = false } = {}) {
    Object.assign(this, { rows, scores, badges });
    this.at = keep ? Math.min(this.at, Math.max(0, rows.length - 1)) : 0;
    this.best = scores && scores.length ? Math.max(...scores.slice(0, 1)) : 1;
    if (!keep) this.root.scrollTop = 0;
    this.layout();
  }

  larger(pixels) {
    this.wish = pixels;
    this.layout();
  }

  layout() {
    const wide = this.root.clientWidth - 2 * PAD;
    if (wide <= 0) return;
    const across = this.across;
    this.across = Math.max(1, Math.floor((wide + GAP) / (this.wish + GAP)));
    this.side = Math.floor((wide + GAP) / this.across - GAP);
    this.high = Math.round(this.side * (this.side > 240 ? 0.75 : 0.86)) + CAPTION;
    this.lines = Math.ceil(this.rows.length / this.across);
    this.sizer.style.height = `${this.lines * (this.high + GAP)}px`;
    this.root.setAttribute("aria-rowcount", this.lines);
    this.root.setAttribute("aria-colcount", this.across);
    if (across && across !== this.across) this.root.scrollTop = Math.floor(this.at / this.across) * (this.high + GAP);
    for (const line of this.shown.values()) line.remove();
    this.shown.clear();
    this.render();
  }

  later() {
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.render(); });
  }

  render() {
    if (!this.across) return;
    const step = this.high + GAP;
    const first = Math.max(0, Math.floor(this.root.scrollTop / step) - 1);
    const last = Math.min(this.lines - 1, Math.floor((this.root.scrollTop + this.root.clientHeight) / step) + 1);
    const focused = document.activeElement?.closest?.(".card");
    const held = focused ? Math.floor(Number(focused.dataset.at) / this.across) : -1;
    for (const [line, node] of this.shown) {
      if ((line < first || line > last) && line !== held) {
        node.remove();
        this.shown.delete(line);
      }
    }
    for (let line = first; line <= last; line++) if (!this.shown.has(line)) this.line(line);
  }

  line(line) {
    const node = el("div", { class: "row", role: "row", "aria-rowindex": line + 1 });
    node.style.transform = `translateY(${line * (this.high + GAP)}px)`;
    for (let k = 0; k < this.across; k++) {
      const at = line * this.across + k;
      if (at < this.rows.length) node.append(this.card(at, k));
    }
    this.shown.set(line, node);
    this.root.append(node);
  }

  card(at, place) {
    const row = this.rows[at];
    const node = el("div", {
      class: "card waiting", role: "gridcell", "data-at": at, "data-row": row, "aria-colindex": place + 1,
      "aria-selected": String(this.selected.has(row)), tabindex: at === this.at ? "0" : "-1",
    });
    node.style.width = `${this.side}px`;
    node.style.height = `${this.high}px`;
    const item = this.items.need(row);
    if (item) this.fill(node, item, at);
    else node.append(el("div", { class: "show" }), el("div", { class: "caption" }));
    return node;
  }

  fill(node, item, at) {
    const title = this.looks.title(item);
    const show = this.face(item, title);
    const caption = el("div", { class: "caption" }, el("div", { class: "title", title }, title), el("div", { class: "sub" }, this.looks.sub(item)));
    const tick = el("button", { class: "tick", type: "button", tabindex: "-1", "aria-label": `Select ${title}` }, icon(TICK));
    const like = el("button", { class: "like", type: "button", tabindex: "-1" }, "More like this");
    const parts = [show, caption];
    if (this.scores) {
      const bar = el("div", { class: "score", title: `likeness ${this.scores[at].toFixed(3)}` });
      bar.style.width = `${Math.max(2, 100 * Math.min(1, Math.max(0, this.scores[at]) / Math.max(this.best, 1e-6)))}%`;
      parts.push(bar);
    }
    if (this.badges?.get(at)) parts.push(el("span", { class: "badge" }, this.badges.get(at)));
    const sound = this.looks.sounds.find((name) => item.media.includes(name));
    if (sound) parts.push(el("button", { class: "play", type: "button", tabindex: "-1", "aria-label": `Play ${title}`, "data-sound": sound }, icon(PLAY)));
    node.replaceChildren(...parts, tick, like);
    node.classList.remove("waiting");
    const score = this.scores ? `, likeness ${this.scores[at].toFixed(2)}` : "";
    node.setAttribute("aria-label", `${title}. ${this.looks.sub(item)}${score}`);
  }

  face(item, title) {
    const column = this.looks.face(item);
    if (column === null) return el("div", { class: "show" }, el("p", { class: "words" }, this.looks.words(item)));
    const picture = this.looks.images.includes(column);
    const sharp = Math.min(512, Math.ceil(this.side * Math.min(2, devicePixelRatio)));
    const image = el("img", { src: mediaAt(item, column, sharp), alt: "", loading: "lazy", decoding: "async", draggable: "false" });
    const show = el("div", { class: picture ? "show picture" : "show sketch" }, image);
    image.addEventListener("load", () => {
      if (picture && image.naturalWidth >= this.side) show.classList.add("fill");
    });
    image.addEventListener("error", () => show.replaceChildren(el("p", { class: "words" }, title)));
    return show;
  }

  came(rows) {
    for (const line of this.shown.values()) {
      for (const node of line.children) {
        const row = Number(node.dataset.row);
        if (rows.has(row) && node.classList.contains("waiting")) this.fill(node, this.items.get(row), Number(node.dataset.at));
      }
    }
  }

  // -- selection and focus

  mark(selected) {
    this.selected = selected;
    for (const line of this.shown.values()) {
      for (const node of line.children) node.setAttribute("aria-selected", String(selected.has(Number(node.dataset.row))));
    }
  }

  node(at) {
    return this.shown.get(Math.floor(at / this.across))?.children[at % this.across] ?? null;
  }

  focus(at) {
    this.node(this.at)?.setAttribute("tabindex", "-1");
    this.at = Math.max(0, Math.min(this.rows.length - 1, at));
    const step = this.high + GAP;
    const top = Math.floor(this.at / this.across) * step;
    const { scrollTop, clientHeight } = this.root;
    if (top < scrollTop) this.root.scrollTop = top;
    else if (top + step > scrollTop + clientHeight) this.root.scrollTop = top + step - clientHeight;
    this.render();
    const node = this.node(this.at);
    node?.setAttribute("tabindex", "0");
    node?.focus({ preventScroll: true });
  }

  key(event) {
    const card = event.target.closest(".card");
    if (!card || event.altKey || event.metaKey) return;
    const page = this.across * Math.max(1, Math.floor(this.root.clientHeight / (this.high + GAP)));
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.across, ArrowDown: this.across, PageUp: -page, PageDown: page };
    const row = this.rows[this.at];
    if (event.key in moves && !event.ctrlKey) {
      const to = this.at + moves[event.key];
      if (to >= 0 && (to < this.rows.length || event.key === "PageDown")) {
        this.focus(to);
        if (event.shiftKey) this.acts.select([this.rows[this.at]], true);
      }
    } else if (event.key === "Home") this.focus(0);
    else if (event.key === "End") this.focus(this.rows.length - 1);
    else if (event.key === "Enter" && event.target === card) this.acts.open(row);
    else if (event.key === " " && event.target === card) this.acts.toggle(row);
    else if (event.key === "m") this.acts.like(row);
    else if (event.key === "p" && card.querySelector(".play")) this.play(card);
    else if (event.key === "a" && event.ctrlKey) this.acts.select([...this.rows], true);
    else return;
    event.preventDefault();
  }

  click(event) {
    const card = event.target.closest(".card");
    if (!card) return;
    const at = Number(card.dataset.at);
    const row = Number(card.dataset.row);
    if (event.target.closest(".play")) this.play(card);
    else if (event.target.closest(".like")) this.acts.like(row);
    else if (event.shiftKey) this.acts.select([...this.rows.slice(Math.min(this.anchor, at), Math.max(this.anchor, at) + 1)], true);
    else if (event.target.closest(".tick") || event.ctrlKey || event.metaKey) this.acts.toggle(row);
    else this.acts.open(row);
    this.anchor = at;
    this.node(this.at)?.setAttribute("tabindex", "-1");
    this.at = at;
    card.setAttribute("tabindex", "0");
  }

  play(card) {
    const row = Number(card.dataset.row);
    const before = this.playing;
    this.stop();
    if (before === row) return;
    const button = card.querySelector(".play");
    this.player.src = mediaAt(this.items.get(row), button.dataset.sound);
    this.player.play().catch((error) => this.acts.fail(error));
    this.playing = row;
    button.replaceChildren(icon(PAUSE));
  }

  stop() {
    this.player.pause();
    this.playing = null;
    for (const button of this.root.querySelectorAll(".play")) button.replaceChildren(icon(PLAY));
  }

  /** Bring an item into sight. */
  reveal(row) {
    const at = this.rows.indexOf(row);
    if (at < 0) return;
    const top = Math.floor(at / this.across) * (this.high + GAP) - this.root.clientHeight / 3;
    this.root.scrollTo({ top, behavior: calm.matches ? "auto" : "smooth" });
  }
}

/** What is said in place of items when there are none. */
export function nothing(title, words) {
  const node = byId("nothing");
  node.hidden = !title;
  if (title) node.replaceChildren(el("strong", {}, title), words);
}
