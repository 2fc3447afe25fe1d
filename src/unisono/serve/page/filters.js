// Filters made from the items' own columns; together they are one sentence of the filter grammar.

import { byId, el, figure, svg } from "./base.js";

const FIRST = 12;

/** A column or value as the grammar reads it, whatever is in it. */
export const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;

export class Filters {
  constructor(facets, changed) {
    this.facets = facets;
    this.changed = changed;
    this.chosen = new Map(); // column -> Set of words, or [low, high]
    this.expression = "";
    this.root = byId("facets");
    byId("clear-filters").addEventListener("click", () => this.clear());
    this.build();
  }

  build() {
    const made = { number: this.number, date: this.date, category: this.words };
    const parts = this.facets.map((facet) => made[facet.kind].call(this, facet));
    this.typed = el("input", {
      class: "expression", type: "text", spellcheck: "false", "aria-label": "Filter as a sentence", placeholder: "price < 20 and not sold = true",
      onchange: () => this.write(this.typed.value), onkeydown: (event) => event.key === "Enter" && this.write(this.typed.value),
    });
    const words = el("section", { class: "facet" }, el("h3", {}, "As a sentence"), this.typed, el("p", { class: "hint" }, "and, or, not, in (a, b), is null"));
    this.root.replaceChildren(...parts, words);
  }

  section(facet, ...children) {
    const missing = facet.missing ? `missing in ${facet.missing.toLocaleString("en")}` : null;
    return el("section", { class: "facet", "data-column": facet.name }, el("h3", {}, el("span", { class: "name", title: facet.name }, facet.name)), ...children, missing && el("p", { class: "hint" }, missing));
  }

  words(facet) {
    const chips = el("div", { class: "chips", role: "group", "aria-label": facet.name });
    const fill = (count) => {
      const shown = facet.values.slice(0, count).map(([word, n]) =>
        el("button", { class: "chip", type: "button", "data-word": word, "aria-pressed": String(this.has(facet.name, word)), onclick: () => this.toggle(facet.name, word) },
          el("span", { class: "word" }, word), el("span", { class: "n" }, n.toLocaleString("en"))));
      if (facet.values.length > count) shown.push(el("button", { class: "link", type: "button", onclick: () => fill(Infinity) }, `${facet.values.length - count} more`));
      chips.replaceChildren(...shown);
    };
    fill(facet.values.length > FIRST + 2 ? FIRST : Infinity);
    return this.section(facet, chips);
  }

  has(column, word) {
    return this.chosen.get(column)?.has?.(word) ?? false;
  }

  toggle(column, word) {
    const words = new Set(this.chosen.get(column));
    if (!words.delete(word)) words.add(word);
    this.set(column, words.size ? words : null);
  }

  number(facet) {
    if (facet.low === facet.high) return this.section(facet, el("p", { class: "hint" }, `always ${figure(facet.low)}`));
    const step = facet.whole && facet.high - facet.low < 1e6 ? 1 : (facet.high - facet.low) / 200;
    const range = (name, value) => el("input", { type: "range", min: facet.low, max: facet.high, step, value, "aria-label": `${facet.name}: ${name}` });
    const box = (name, value) => el("input", { type: "number", step: "any", placeholder: figure(value), "aria-label": `${facet.name}: ${name}` });
    const sliders = [range("least", facet.low), range("most", facet.high)];
    const boxes = [box("at least", facet.low), box("at most", facet.high)];
    sliders[0].value = facet.low;
    sliders[1].value = facet.high;
    const bars = this.bars(facet);
    const paint = () => this.paint(bars, facet, Number(sliders[0].value), Number(sliders[1].value));
    const choose = () => {
      const low = boxes[0].value === "" ? null : Number(boxes[0].value);
      const high = boxes[1].value === "" ? null : Number(boxes[1].value);
      this.set(facet.name, low === null && high === null ? null : [low, high]);
    };
    sliders.forEach((slider, k) => {
      slider.addEventListener("input", () => {
        if (Number(sliders[0].value) > Number(sliders[1].value)) slider.value = sliders[1 - k].value;
        const edge = k ? facet.high : facet.low;
        boxes[k].value = Math.abs(Number(slider.value) - edge) < step / 2 ? "" : Number(Number(slider.value).toPrecision(6));
        paint();
      });
      slider.addEventListener("change", choose);
    });
    boxes.forEach((input, k) => input.addEventListener("change", () => {
      sliders[k].value = input.value === "" ? (k ? facet.high : facet.low) : input.value;
      paint();
      choose();
    }));
    return this.section(facet, bars, el("div", { class: "span" }, ...sliders), el("div", { class: "ends" }, ...boxes));
  }

  date(facet) {
    const box = (name) => el("input", { type: "date", min: facet.low, max: facet.high, "aria-label": `${facet.name}: ${name}` });
    const boxes = [box("from"), box("to")];
    const choose = () => this.set(facet.name, boxes.some((b) => b.value) ? boxes.map((b) => b.value || null) : null);
    boxes.forEach((input) => input.addEventListener("change", choose));
    return this.section(facet, this.bars(facet), el("div", { class: "ends" }, ...boxes), el("p", { class: "hint" }, `${facet.low} to ${facet.high}`));
  }

  bars(facet) {
    const most = Math.max(1, ...facet.counts.map(Math.sqrt));
    const wide = 100 / Math.max(1, facet.counts.length);
    const drawn = facet.counts.map((count, k) => {
      const high = count ? Math.max(3, (36 * Math.sqrt(count)) / most) : 0;
      return svg("rect", { x: k * wide + 0.4, y: 38 - high, width: wide - 0.8, height: high, rx: 0.8, class: "in" });
    });
    return svg("svg", { class: "bars", viewBox: "0 0 100 38", preserveAspectRatio: "none", "aria-hidden": "true" }, ...drawn);
  }

  paint(bars, facet, low, high) {
    const wide = (facet.high - facet.low) / bars.children.length;
    [...bars.children].forEach((bar, k) => {
      const from = facet.low + k * wide;
      bar.setAttribute("class", from + wide >= low && from <= high ? "in" : "");
    });
  }

  write(text) {
    if (text.trim() === this.expression) return;
    this.expression = text.trim();
    this.tell();
  }

  set(column, value) {
    if (value === null) this.chosen.delete(column);
    else this.chosen.set(column, value);
    for (const chip of this.root.querySelectorAll(".chip")) {
      const name = chip.closest(".facet").dataset.column;
      chip.setAttribute("aria-pressed", String(this.has(name, chip.dataset.word)));
    }
    this.tell();
  }

  clear() {
    this.chosen.clear();
    this.expression = "";
    this.build();
    this.tell();
  }

  tell() {
    byId("clear-filters").hidden = this.where() === null;
    this.changed();
  }

  /** The sentence, or null where nothing is filtered. */
  where() {
    const parts = [];
    for (const [column, chosen] of this.chosen) {
      if (chosen instanceof Set) parts.push(`${quoted(column)} in (${[...chosen].map(quoted).join(", ")})`);
      else {
        if (chosen[0] !== null) parts.push(`${quoted(column)} >= ${quoted(chosen[0])}`);
        if (chosen[1] !== null) parts.push(`${quoted(column)} <= ${quoted(chosen[1])}`);
      }
    }
    if (this.expression) parts.push(parts.length ? `(${this.expression})` : this.expression);
    return parts.length ? parts.join(" and ") : null;
  }
}
