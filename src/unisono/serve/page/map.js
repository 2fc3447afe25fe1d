// The map: every item a dot, drawn in one pass over a buffer of pixels; close by, or where there is room, dots become pictures.

import { byId, calm, el, mediaAt } from "./base.js";

export const COLOURS = ["#3a7fc1", "#e07a36", "#3b9a68", "#c64f8d", "#8a6dd3", "#c8a020", "#27a0a6", "#b54c3c", "#7b9432", "#6f7fd6", "#d289b6", "#55707f"];
const OTHER = "#8d9691";
const RAMP = ["#33407f", "#2c6f9b", "#2a9a92", "#5dbb73", "#b9cf56", "#f6d860"];
const STEPS = 64;

const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));

function ramp() {
  const ends = RAMP.map(rgb);
  return Array.from({ length: STEPS }, (_, k) => {
    const at = (k / (STEPS - 1)) * (ends.length - 1);
    const low = Math.min(ends.length - 2, Math.floor(at));
    return ends[low].map((v, c) => Math.round(v + (ends[low + 1][c] - v) * (at - low)));
  });
}

const PALETTE = [...COLOURS.map(rgb), rgb(OTHER), ...ramp()];
const GREY = COLOURS.length;

export class SpaceMap {
  constructor(items, looks, acts) {
    Object.assign(this, { items, looks, acts });
    this.body = byId("map-body");
    this.canvas = byId("canvas");
    this.context = this.canvas.getContext("2d");
    this.ink = byId("ink");
    this.places = new Float32Array();
    this.colours = new Uint8Array();
    this.state = new Uint8Array(); // 0 set back, 1 plain, 2 found, 3 chosen
    this.view = { x: 0, y: 0, scale: 1 };
    this.pictures = looks.images.length > 0;
    this.thumbs = new Map();
    this.pointers = new Map();
    this.lasso = false;
    this.over = -1;
    byId("pictures").hidden = !this.pictures;
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.body);
    items.listeners.add((came) => {
      this.later();
      if (came.has(this.over)) this.hover(this.over);
    });
  }

  /** New places of all items; they move there unless motion is unwelcome. */
  place(places) {
    const count = places.length / 2;
    const before = this.places;
    if (this.state.length !== count) {
      this.state = new Uint8Array(count).fill(1);
      this.colours = new Uint8Array(count).fill(GREY);
    }
    this.order = null;
    if (before.length !== places.length || calm.matches || count > 30000) {
      this.places = places;
      this.settled();
      return;
    }
    const begin = performance.now();
    const mixed = new Float32Array(places.length);
    const move = (now) => {
      const t = Math.min(1, (now - begin) / 700);
      const ease = t * t * (3 - 2 * t);
      for (let k = 0; k < mixed.length; k++) mixed[k] = before[k] + (places[k] - before[k]) * ease;
      this.places = t < 1 ? mixed : places;
      this.picked = null;
      this.draw();
      if (t < 1) requestAnimationFrame(move);
      else this.settled();
    };
    requestAnimationFrame(move);
  }

  settled() {
    this.cells = null;
    this.picked = null;
    this.later();
  }

  /** Colour by codes: of a category, or by value between low and high. */
  colour(codes, facet) {
    this.colours = new Uint8Array(codes.length);
    let [low, high] = [Infinity, -Infinity];
    if (facet?.kind !== "category") for (const v of codes) if (v === v) { low = Math.min(low, v); high = Math.max(high, v); }
    for (let k = 0; k < codes.length; k++) {
      const v = codes[k];
      if (v !== v) this.colours[k] = GREY;
      else if (facet.kind === "category") this.colours[k] = v < COLOURS.length ? v : GREY;
      else this.colours[k] = GREY + 1 + Math.min(STEPS - 1, Math.floor(((v - low) / (high - low || 1)) * STEPS));
    }
    this.later();
  }

  plain() {
    this.colours = new Uint8Array(this.places.length / 2).fill(0);
    this.later();
  }

  /** Which items stand out: found ones, chosen ones; null means all. */
  mark(found, chosen, strong) {
    this.state.fill(found === null ? 1 : 0);
    if (found !== null) for (const row of found) this.state[row] = strong ? 2 : 1;
    for (const row of chosen) this.state[row] = 3;
    this.picked = null;
    this.later();
  }

  resize() {
    const { clientWidth: wide, clientHeight: high } = this.body;
    if (!wide || !high) return;
    this.ratio = Math.min(2, devicePixelRatio || 1);
    for (const canvas of [this.canvas, this.ink]) {
      canvas.width = Math.round(wide * this.ratio);
      canvas.height = Math.round(high * this.ratio);
    }
    this.wide = this.canvas.width;
    this.high = this.canvas.height;
    this.image = this.context.createImageData(this.wide, this.high);
    this.picked = null;
    this.draw();
  }

  later() {
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  /** Pixels for a unit of the space, across. */
  get unit() {
    return Math.min(this.wide, this.high * 1.5) * 0.45 * this.view.scale;
  }

  /** Pixels for a unit down: a map may fill a field that is no square, up to half as high again. */
  get drop() {
    return Math.min(this.high, this.wide * 1.5) * 0.45 * this.view.scale;
  }

  toScreen(k) {
    return [this.wide / 2 + (this.places[2 * k] - this.view.x) * this.unit, this.high / 2 + (this.places[2 * k + 1] - this.view.y) * this.drop];
  }

  toSpace(x, y) {
    return [this.view.x + (x - this.wide / 2) / this.unit, this.view.y + (y - this.high / 2) / this.drop];
  }

  // -- drawing

  draw() {
    if (!this.wide || !this.image) return;
    const begin = performance.now();
    const style = getComputedStyle(this.body).backgroundColor.match(/\d+/g).map(Number);
    const [r, g, b] = style;
    new Uint32Array(this.image.data.buffer).fill((255 << 24) | (b << 16) | (g << 8) | r);
    const count = this.places.length / 2;
    const base = count > 40000 ? 1.3 : count > 8000 ? 1.9 : count > 1500 ? 2.6 : 4;
    const radius = Math.min(7, base * Math.min(2.2, this.view.scale ** 0.4)) * this.ratio;
    this.radius = radius;
    for (const state of [0, 1, 2, 3]) this.splat(state, radius * (state === 2 ? 1.45 : state === 3 ? 1.6 : 1));
    this.context.putImageData(this.image, 0, 0);
    if (this.pictures) this.drawPictures();
    this.drawOver();
    this.took = performance.now() - begin;
  }

  /** A disc of pixels: those that are covered whole, and those of its smooth edge with their opacities. */
  disc(radius) {
    const half = Math.ceil(radius + 0.5);
    const whole = [];
    const edge = [];
    for (let dy = -half; dy <= half; dy++) {
      for (let dx = -half; dx <= half; dx++) {
        const alpha = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
        if (alpha >= 0.95) whole.push(dy * this.wide + dx);
        else if (alpha > 0.04) edge.push([dy * this.wide + dx, alpha]);
      }
    }
    return { half, whole: Int32Array.from(whole), edge: Int32Array.from(edge, (e) => e[0]), alphas: Float32Array.from(edge, (e) => e[1]) };
  }

  /** Draw the items of one state; what reaches over the border is left out. */
  splat(state, radius) {
    const { places, wide, high, colours, state: states, unit, drop } = this;
    const data = this.image.data;
    const pixels = new Uint32Array(data.buffer);
    const { half, whole, edge, alphas } = this.disc(radius);
    const faint = state === 0 ? 0.13 : 1;
    const [left, top] = [wide / 2 - this.view.x * unit, high / 2 - this.view.y * drop];
    const chosen = rgb(getComputedStyle(document.documentElement).getPropertyValue("--pick").trim());
    const blend = (at, colour, alpha) => {
      data[4 * at] += (colour[0] - data[4 * at]) * alpha;
      data[4 * at + 1] += (colour[1] - data[4 * at + 1]) * alpha;
      data[4 * at + 2] += (colour[2] - data[4 * at + 2]) * alpha;
    };
    for (let k = 0; k < states.length; k++) {
      if (states[k] !== state) continue;
      const x = Math.round(left + places[2 * k] * unit);
      const y = Math.round(top + places[2 * k + 1] * drop);
      if (!(x >= half && y >= half && x < wide - half && y < high - half)) continue;
      const colour = state === 3 ? chosen : PALETTE[colours[k]];
      const middle = y * wide + x;
      if (faint === 1) {
        const full = (255 << 24) | (colour[2] << 16) | (colour[1] << 8) | colour[0];
        for (let i = 0; i < whole.length; i++) pixels[middle + whole[i]] = full;
      } else for (let i = 0; i < whole.length; i++) blend(middle + whole[i], colour, faint);
      for (let i = 0; i < edge.length; i++) blend(middle + edge[i], colour, alphas[i] * faint);
    }
  }

  /** Items that get a picture: one for each cell of a grid that stays where it is while the map is moved. */
  choose() {
    const side = 2 ** Math.round(Math.log2((44 * this.ratio) / Math.sqrt(this.unit * this.drop)));
    if (this.picked?.side === side) return this.picked.rows;
    const taken = new Map();
    const { places, state } = this;
    const wide = this.drop / this.unit;
    for (const wanted of [3, 2, 1]) {
      for (let k = 0; k < state.length; k++) {
        if (state[k] !== wanted || places[2 * k] !== places[2 * k]) continue;
        const [x, y] = [Math.floor(places[2 * k] / side), Math.floor(places[2 * k + 1] / side)];
        if (taken.has(x * 1e6 + y)) continue;
        let free = true;
        for (let dx = -1; dx <= 1 && free; dx++) for (let dy = -1; dy <= 1 && free; dy++) {
          const other = taken.get((x + dx) * 1e6 + y + dy);
          if (other !== undefined) free = Math.hypot(places[2 * k] - places[2 * other], (places[2 * k + 1] - places[2 * other + 1]) * wide) > 0.8 * side;
        }
        if (free) taken.set(x * 1e6 + y, k);
      }
    }
    this.picked = { side, rows: [...taken.values()] };
    return this.picked.rows;
  }

  drawPictures() {
    const size = Math.round(Math.max(20, Math.min(64, 30 * Math.min(2, this.view.scale ** 0.3))) * this.ratio);
    let shown = 0;
    for (const row of this.choose()) {
      const [x, y] = this.toScreen(row);
      if (x < -size || y < -size || x > this.wide + size || y > this.high + size) continue;
      if (++shown > 400) break;
      const image = this.thumb(row);
      if (!image) continue;
      const scale = size / Math.max(image.naturalWidth, image.naturalHeight);
      const [w, h] = [image.naturalWidth * scale, image.naturalHeight * scale];
      this.context.drawImage(image, x - w / 2, y - h / 2, w, h);
      if (this.state[row] === 3) this.ring(this.context, x, y, size * 0.62, "--pick");
    }
  }

  thumb(row) {
    const image = this.thumbs.get(row);
    if (image) return image.complete && image.naturalWidth ? image : null;
    const item = this.items.need(row);
    const column = item && this.looks.images.find((name) => item.media.includes(name));
    if (!column) return null;
    const made = new Image();
    made.onload = () => this.later();
    made.src = mediaAt(item, column, 64 * (this.ratio > 1 ? 2 : 1));
    this.thumbs.set(row, made);
    if (this.thumbs.size > 3000) this.thumbs.delete(this.thumbs.keys().next().value);
    return null;
  }

  ring(context, x, y, radius, colour) {
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.lineWidth = 2 * this.ratio;
    context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue(colour).trim();
    context.stroke();
  }

  drawOver() {
    const context = this.ink.getContext("2d");
    context.clearRect(0, 0, this.wide, this.high);
    if (this.over >= 0) this.ring(context, ...this.toScreen(this.over), Math.max(this.radius + 5 * this.ratio, 9 * this.ratio), "--ink");
    if (this.path?.length > 1) {
      context.beginPath();
      this.path.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
      const pick = getComputedStyle(document.documentElement).getPropertyValue("--pick").trim();
      Object.assign(context, { fillStyle: `${pick}22`, strokeStyle: pick, lineWidth: 1.5 * this.ratio });
      context.fill();
      context.stroke();
    }
  }

  // -- finding

  /** The item nearest to a place on the screen, or -1. */
  nearest(x, y, reach) {
    if (!this.cells) this.sort();
    const { cells, starts, side } = this.cells;
    const [sx, sy] = this.toSpace(x, y);
    const far = reach / Math.min(this.unit, this.drop);
    let best = -1;
    let least = far * far;
    const cell = (v) => Math.max(0, Math.min(side - 1, Math.floor(((v + 1.3) / 2.6) * side)));
    for (let cy = cell(sy - far); cy <= cell(sy + far); cy++) {
      for (let cx = cell(sx - far); cx <= cell(sx + far); cx++) {
        for (let k = starts[cy * side + cx]; k < starts[cy * side + cx + 1]; k++) {
          const row = cells[k];
          const d = (this.places[2 * row] - sx) ** 2 + (this.places[2 * row + 1] - sy) ** 2;
          if (d < least && this.state[row] > 0) [best, least] = [row, d];
        }
      }
    }
    return best;
  }

  /** Items by cell of a square grid. */
  sort() {
    const side = 128;
    const count = this.places.length / 2;
    const of = (v) => Math.max(0, Math.min(side - 1, Math.floor(((v + 1.3) / 2.6) * side)));
    const cell = new Int32Array(count);
    const starts = new Int32Array(side * side + 1);
    for (let k = 0; k < count; k++) {
      cell[k] = this.places[2 * k] === this.places[2 * k] ? of(this.places[2 * k + 1]) * side + of(this.places[2 * k]) : -1;
      if (cell[k] >= 0) starts[cell[k] + 1] += 1;
    }
    for (let k = 0; k < side * side; k++) starts[k + 1] += starts[k];
    const next = starts.slice();
    const cells = new Int32Array(starts[side * side]);
    for (let k = 0; k < count; k++) if (cell[k] >= 0) cells[next[cell[k]]++] = k;
    this.cells = { cells, starts, side };
  }

  /** Items inside a line drawn on the screen. */
  inside(path) {
    const line = path.map(([x, y]) => this.toSpace(x, y));
    const found = [];
    for (let k = 0; k < this.state.length; k++) {
      const [x, y] = [this.places[2 * k], this.places[2 * k + 1]];
      if (this.state[k] === 0 || x !== x) continue;
      let within = false;
      for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
        const [[xi, yi], [xj, yj]] = [line[i], line[j]];
        if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
      }
      if (within) found.push(k);
    }
    return found;
  }

  // -- moving

  zoom(factor, x = this.wide / 2, y = this.high / 2) {
    const [sx, sy] = this.toSpace(x, y);
    this.view.scale = Math.max(0.5, Math.min(400, this.view.scale * factor));
    const [nx, ny] = this.toSpace(x, y);
    this.view.x += sx - nx;
    this.view.y += sy - ny;
    this.later();
  }

  pan(dx, dy) {
    this.view.x -= dx / this.unit;
    this.view.y -= dy / this.unit;
    this.later();
  }

  all() {
    this.view = { x: 0, y: 0, scale: 1 };
    this.later();
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio];
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...this.at(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.up(event));
    canvas.addEventListener("pointerleave", () => !this.pointers.size && this.hover(-1));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => { byId("cross").hidden = !canvas.matches(":focus-visible"); });
    canvas.addEventListener("blur", () => { byId("cross").hidden = true; this.hover(-1); });
    byId("zoom-in").addEventListener("click", () => this.zoom(1.6));
    byId("zoom-out").addEventListener("click", () => this.zoom(1 / 1.6));
    byId("zoom-all").addEventListener("click", () => this.all());
    byId("pictures").addEventListener("click", (event) => {
      this.pictures = !this.pictures;
      event.currentTarget.setAttribute("aria-pressed", String(this.pictures));
      this.later();
    });
    byId("lasso").addEventListener("click", (event) => {
      this.lasso = !this.lasso;
      event.currentTarget.setAttribute("aria-pressed", String(this.lasso));
      canvas.classList.toggle("lasso", this.lasso);
    });
  }

  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.at(event));
    this.start = this.at(event);
    this.dragged = false;
    if (this.pointers.size === 1 && (this.lasso || event.shiftKey)) this.path = [this.at(event)];
    else this.path = null;
  }

  moved(event) {
    const now = this.at(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.hover(this.nearest(...now, 16 * this.ratio), event);
      return;
    }
    if (Math.hypot(now[0] - this.start[0], now[1] - this.start[1]) > 4 * this.ratio) this.dragged = true;
    this.pointers.set(event.pointerId, now);
    if (this.pointers.size === 2) {
      const [a, b] = [...this.pointers.entries()].map(([id, at]) => (id === event.pointerId ? [before, now] : [at, at]));
      const span = (k) => Math.hypot(a[k][0] - b[k][0], a[k][1] - b[k][1]);
      this.zoom(span(1) / Math.max(1, span(0)), (a[1][0] + b[1][0]) / 2, (a[1][1] + b[1][1]) / 2);
    } else if (this.path) {
      this.path.push(now);
      this.drawOver();
    } else if (this.dragged) {
      this.canvas.classList.add("dragging");
      this.hover(-1);
      this.pan(now[0] - before[0], now[1] - before[1]);
    }
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    this.canvas.classList.remove("dragging");
    if (this.path) {
      const found = this.path.length > 2 ? this.inside(this.path) : [];
      this.path = null;
      this.drawOver();
      if (found.length) this.acts.select(found, true);
    } else if (!this.dragged && !this.pointers.size && event.type === "pointerup") {
      const row = this.nearest(...this.at(event), 18 * this.ratio);
      if (row >= 0) this.acts.open(row);
    }
  }

  hover(row) {
    this.canvas.classList.toggle("over", row >= 0 && !this.lasso);
    if (row !== this.over) {
      this.over = row;
      this.drawOver();
    }
    const tip = byId("tip");
    tip.hidden = row < 0;
    if (row < 0) return;
    const item = this.items.need(row);
    const column = item && this.looks.images.find((name) => item.media.includes(name));
    tip.replaceChildren(column ? el("img", { src: mediaAt(item, column, 64), alt: "" }) : "", el("span", {}, item ? this.looks.title(item) : "…"));
    const [x, y] = this.toScreen(row).map((v) => v / this.ratio);
    tip.style.left = x > this.body.clientWidth - 250 ? "auto" : `${x + 16}px`;
    tip.style.right = x > this.body.clientWidth - 250 ? `${this.body.clientWidth - x + 16}px` : "auto";
    tip.style.top = `${Math.min(this.body.clientHeight - 66, Math.max(6, y - 20))}px`;
  }

  key(event) {
    const step = 60 * this.ratio;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key in moves) this.pan(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.4);
    else if (event.key === "-") this.zoom(1 / 1.4);
    else if (event.key === "0") this.all();
    else if (event.key === "Enter" && this.over >= 0) this.acts.open(this.over);
    else if (event.key === " " && this.over >= 0) this.acts.toggle(this.over);
    else return;
    event.preventDefault();
    byId("cross").hidden = false;
    requestAnimationFrame(() => this.hover(this.nearest(this.wide / 2, this.high / 2, 60 * this.ratio)));
  }
}
