// The query: words, pictures, sounds and items, each with a weight, added up or taken away.

import { byId, el } from "./base.js";

const ALL = "*"; // every column of texts
const WORD = { text: "words", image: "picture", audio: "sound" };

export class Composer {
  constructor(schema, acts) {
    this.schema = schema;
    this.acts = acts;
    this.parts = []; // {kind, value, column, label, face, weight, less}
    this.form = byId("composer");
    this.input = byId("text");
    this.columns = {};
    for (const kind of ["text", "image", "audio"]) this.columns[kind] = schema.columns.filter((c) => schema.gallery.aligned && c.modality === kind).map((c) => c.name);
    const files = ["image", "audio"].filter((kind) => this.columns[kind].length);
    byId("attach").hidden = !files.length;
    byId("draw").hidden = !this.columns.image.length;
    byId("file").accept = files.map((kind) => `${kind}/*`).join(",");
    this.input.disabled = !this.columns.text.length;
    if (!this.columns.text.length) this.input.placeholder = files.length ? "Add a picture or sound, or choose an item" : "Choose an item to find more like it";
    this.draw();
    const as = byId("as");
    as.hidden = this.columns.text.length < 2;
    as.replaceChildren(...this.choices("text"));
    as.addEventListener("change", () => this.input.value.trim() && this.changed());
    this.listen();
  }

  listen() {
    let waiting = 0;
    const typed = () => {
      byId("keep").hidden = !this.input.value.trim();
      clearTimeout(waiting);
      waiting = setTimeout(() => this.changed(), 320);
    };
    this.input.addEventListener("input", typed);
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Backspace" && !this.input.value && this.parts.length) this.remove(this.parts.length - 1);
      if (event.key === "Escape" && this.input.value) {
        this.input.value = "";
        typed();
        event.stopPropagation();
      }
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      clearTimeout(waiting);
      this.changed();
    });
    byId("keep").addEventListener("click", () => this.keep());
    byId("attach").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", (event) => {
      for (const file of event.target.files) this.file(file);
      event.target.value = "";
    });
    document.addEventListener("paste", (event) => {
      for (const file of event.clipboardData?.files ?? []) this.file(file);
    });
    this.dropping();
  }

  dropping() {
    const veil = byId("drop");
    let depth = 0;
    const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files") && !this.form.hidden;
    addEventListener("dragenter", (event) => { if (carries(event)) { depth += 1; veil.hidden = false; } });
    addEventListener("dragleave", (event) => { if (carries(event) && --depth <= 0) { depth = 0; veil.hidden = true; } });
    addEventListener("dragover", (event) => carries(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!carries(event)) return;
      event.preventDefault();
      depth = 0;
      veil.hidden = true;
      for (const file of event.dataTransfer.files) this.file(file);
    });
  }

  /** Search by a file. */
  file(file) {
    const kind = file.type.split("/")[0];
    if (kind === "text" || !this.columns[kind]?.length) {
      this.acts.fail(new Error(`${file.name || "The file"} is ${file.type || "of no known kind"}; these items are found by ${["text", "image", "audio"].filter((k) => this.columns[k].length).map((k) => WORD[k]).join(", ")}.`));
      return;
    }
    if (file.size > this.schema.limits.upload) {
      this.acts.fail(new Error(`${file.name} has ${file.size.toLocaleString("en")} bytes; this server takes ${this.schema.limits.upload.toLocaleString("en")}.`));
      return;
    }
    const face = kind === "image" ? URL.createObjectURL(file) : null;
    this.add({ kind, value: file, column: this.columns[kind][0], label: file.name && !/^(image|drawing)\.png$/.test(file.name) ? file.name : WORD[kind], face });
  }

  /** Words that stay as a part of their own. */
  keep() {
    const text = this.input.value.trim();
    if (!text) return;
    this.input.value = "";
    byId("keep").hidden = true;
    this.add({ kind: "text", value: text, column: this.textColumn(), label: text });
    this.input.focus();
  }

  textColumn() {
    return this.columns.text.length > 1 ? byId("as").value : this.columns.text[0];
  }

  /** Columns that a part can be compared with; words with all texts at once. */
  choices(kind) {
    const names = this.columns[kind] ?? [];
    const all = kind === "text" && names.length > 1 ? [el("option", { value: ALL }, "all texts")] : [];
    return [...all, ...names.map((name) => el("option", { value: name }, name))];
  }

  /** More like an item, or less. */
  item(item, label, face, less = false) {
    this.parts = this.parts.filter((part) => part.kind !== "row" || part.value !== item.key);
    this.add({ kind: "row", value: item.key, column: "row", label, face, less });
  }

  add(part) {
    this.parts.push({ weight: 1, less: false, ...part });
    this.draw();
    this.changed();
  }

  remove(place) {
    const [part] = this.parts.splice(place, 1);
    if (part.face?.startsWith("blob:")) URL.revokeObjectURL(part.face);
    this.draw();
    this.changed();
    this.input.focus();
  }

  clear() {
    this.parts = [];
    this.input.value = "";
    byId("keep").hidden = true;
    this.draw();
    this.changed();
  }

  changed() {
    this.acts.search();
  }

  draw() {
    byId("parts").replaceChildren(...this.parts.map((part, place) => {
      const weight = part.weight === 1 ? null : el("span", { class: "times" }, `×${part.weight}`);
      const face = part.face ? el("img", { src: part.face, alt: "" }) : null;
      const sign = part.less ? "less like " : "";
      const open = el("button", { type: "button", "aria-label": `${sign}${part.label}, weight ${part.weight}: change`, onclick: () => this.weigh(part) }, face, el("span", { class: "label" }, `${part.less ? "− " : ""}${part.label}`), weight);
      const off = el("button", { type: "button", class: "off", "aria-label": `Remove ${part.label}`, onclick: () => this.remove(place) }, "×");
      return el("span", { class: part.less ? "part less" : "part", role: "listitem" }, open, off);
    }));
    if (!this.input.disabled) this.input.placeholder = this.parts.length ? "and …" : matchMedia("(max-width: 600px)").matches ? "Search" : "Describe what you look for";
  }

  /** A small window for one part: its column, its weight, and whether it counts against. */
  weigh(part) {
    const dialog = byId("weigh");
    const value = el("output", {}, String(part.weight));
    const slider = el("input", { type: "range", min: "0.1", max: "2", step: "0.1", value: part.weight, oninput: () => { value.textContent = slider.value; } });
    slider.value = part.weight;
    const columns = this.columns[part.kind] ?? [];
    const select = el("select", {}, ...this.choices(part.kind));
    if (columns.length) select.value = part.column;
    const done = (less) => {
      Object.assign(part, { weight: Number(slider.value), less });
      if (columns.length) part.column = select.value;
      dialog.close();
      this.draw();
      this.changed();
    };
    dialog.replaceChildren(
      el("h2", {}, part.label),
      el("label", {}, el("span", {}, "Weight ", value), slider),
      columns.length > 1 ? el("label", {}, "Compared with the column", select) : "",
      el("div", { class: "acts" }, el("button", { type: "button", onclick: () => done(true) }, "Less like this"), el("button", { type: "button", class: "primary", onclick: () => done(false) }, "More like this")),
    );
    dialog.showModal();
  }

  get empty() {
    return !this.parts.length && !this.input.value.trim();
  }

  /** The query as a form. */
  form_of(extra) {
    const form = new FormData();
    const typed = this.input.value.trim();
    const given = typed ? [...this.parts, { kind: "text", value: typed, column: this.textColumn(), weight: 1, less: false }] : this.parts;
    const parts = given.flatMap((part) => (part.column === ALL ? this.columns.text.map((column) => ({ ...part, column })) : [part]));
    for (const part of parts) form.append(`${part.less ? "minus" : "query"}.${part.column}`, part.value);
    const sums = new Map();
    for (const part of parts) sums.set(part.column, [...(sums.get(part.column) ?? []), part.weight]);
    for (const [column, weights] of sums) {
      const mean = weights.reduce((a, b) => a + b) / weights.length;
      if (mean !== 1) form.append(`weight.${column}`, String(Number(mean.toFixed(3))));
    }
    for (const [name, value] of Object.entries(extra)) if (value !== null && value !== "") form.append(name, value);
    return form;
  }
}

/** A pad to draw a picture on. */
export function drawingPad(done) {
  const dialog = byId("pad");
  const canvas = el("canvas", { width: 320, height: 320, "aria-label": "Drawing" });
  const context = canvas.getContext("2d");
  const blank = () => { context.fillStyle = "#fff"; context.fillRect(0, 0, 320, 320); };
  blank();
  Object.assign(context, { lineCap: "round", lineJoin: "round" });
  const inks = ["#1b1f1d", "#e23c2e", "#f6b21b", "#3fa34d", "#2d6cdf", "#8d5a3b", "#ffffff"];
  const names = ["black", "red", "yellow", "green", "blue", "brown", "white"];
  let ink = inks[0];
  const dots = inks.map((colour, k) => {
    const dot = el("button", { type: "button", class: "ink", "aria-label": names[k], "aria-pressed": String(!k), onclick: () => { ink = colour; dots.forEach((d) => d.setAttribute("aria-pressed", String(d === dot))); } });
    dot.style.background = colour;
    return dot;
  });
  const size = el("input", { type: "range", min: "4", max: "90", value: "14", "aria-label": "Width of the brush" });
  let last = null;
  const at = (event) => { const box = canvas.getBoundingClientRect(); return [((event.clientX - box.left) * 320) / box.width, ((event.clientY - box.top) * 320) / box.height]; };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); last = at(event); stroke(event); });
  const stroke = (event) => {
    if (!last) return;
    const [x, y] = at(event);
    Object.assign(context, { strokeStyle: ink, lineWidth: Number(size.value) });
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(x + 0.01, y);
    context.stroke();
    last = [x, y];
  };
  canvas.addEventListener("pointermove", stroke);
  canvas.addEventListener("pointerup", () => { last = null; });
  const use = () => canvas.toBlob((blob) => { dialog.close(); done(new File([blob], "drawing.png", { type: "image/png" })); });
  dialog.replaceChildren(canvas, el("div", { class: "inks" }, ...dots, size), el("div", { class: "acts" },
    el("button", { type: "button", onclick: blank }, "Start again"), el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), el("button", { type: "button", class: "primary", onclick: use }, "Search")));
  dialog.showModal();
}
