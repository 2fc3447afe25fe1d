// A form made from the model's columns, and its answer.

import { ask, byId, el, figure } from "./base.js";

const FILES = new Set(["image", "audio", "video"]);
const LISTS = new Set(["series", "points", "graph", "vector", "cube"]);

export class Predict {
  constructor(schema) {
    this.schema = schema;
    this.root = byId("predict");
    const names = schema.targets.map((t) => t.name).join(" and ");
    this.fields = schema.columns.map((column) => this.field(column));
    this.button = el("button", { class: "primary", type: "submit" }, `Predict ${names}`);
    this.form = el("form", { class: "sheet", onsubmit: (event) => this.send(event), novalidate: true }, ...this.fields.map((f) => f.label), el("div", {}, this.button));
    this.answer = el("section", { class: "sheet answer", "aria-live": "polite", "aria-label": "Answer" }, el("p", { class: "quiet" }, "The answer appears here."));
    this.root.replaceChildren(
      el("h1", {}, `Predict ${names}`),
      el("p", {}, "Fill in what you know. What is left empty counts as missing, and the model does without it."),
      this.form, this.answer,
    );
  }

  field(column) {
    const { name, modality } = column;
    const input = this.input(column);
    const why = el("span", { class: "why", role: "alert", hidden: true });
    const preview = el("span", { hidden: true });
    if (FILES.has(modality)) {
      input.addEventListener("change", () => {
        const file = input.files[0];
        preview.hidden = !file;
        if (file) preview.replaceChildren(el(modality === "image" ? "img" : modality, { src: URL.createObjectURL(file), class: "preview", controls: modality !== "image", alt: "" }));
      });
    }
    const label = el("label", {}, el("span", {}, name, el("span", { class: "kind" }, modality)), input, preview, why);
    return { column, input, why, label };
  }

  input({ name, modality, many, choices }) {
    if (FILES.has(modality)) return el("input", { type: "file", name, accept: `${modality}/*`, multiple: many });
    if (modality === "number") return el("input", { type: "number", name, step: "any", inputmode: "decimal" });
    if (modality === "boolean") return el("select", { name }, el("option", { value: "" }, "unknown"), el("option", { value: "true" }, "yes"), el("option", { value: "false" }, "no"));
    if (modality === "datetime") return el("input", { type: "text", name, placeholder: "2026-03-31 or 2026-03-31 14:30" });
    if (modality === "category" && choices.length && choices.length < 100) return el("select", { name }, el("option", { value: "" }, "unknown"), ...choices.map((word) => el("option", { value: word }, word)));
    if (modality === "category") return el("input", { type: "text", name });
    return el("textarea", { name, placeholder: LISTS.has(modality) ? "[[0.1, 0.2], …]" : "", spellcheck: "false" });
  }

  async send(event) {
    event.preventDefault();
    const form = new FormData();
    for (const { column, input, why } of this.fields) {
      why.hidden = true;
      input.classList.remove("bad");
      if (input.files) for (const file of input.files) form.append(column.name, file);
      else if (input.value.trim() !== "") form.append(column.name, input.value);
    }
    this.button.disabled = true;
    document.body.classList.add("busy");
    try {
      const { predictions } = await (await ask("/predict", { method: "POST", body: form })).json();
      this.answer.replaceChildren(...Object.entries(predictions[0]).map(([name, found]) => this.one(name, found)));
    } catch (error) {
      this.refused(error);
    } finally {
      this.button.disabled = false;
      document.body.classList.remove("busy");
    }
  }

  refused(error) {
    const bad = this.fields.find(({ column }) => error.where?.includes(`'${column.name}'`));
    if (!bad) {
      this.answer.replaceChildren(el("p", { class: "why" }, error.message));
      return;
    }
    bad.why.textContent = error.message;
    bad.why.hidden = false;
    bad.input.classList.add("bad");
    bad.input.focus();
  }

  one(name, found) {
    const value = Array.isArray(found.value) ? found.value.join(", ") || "none" : found.value === null ? "unknown" : typeof found.value === "boolean" ? (found.value ? "yes" : "no") : figure(found.value);
    const chances = Object.entries(found.probabilities ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 8).map(([word, p]) => {
      const fill = el("i");
      fill.style.width = `${100 * p}%`;
      return el("div", { class: "chance" }, el("span", { class: "name", title: word }, word), el("span", { class: "track" }, fill), el("span", { class: "p" }, `${(100 * p).toFixed(p < 0.1 ? 1 : 0)} %`));
    });
    const sure = found.probability !== undefined && !chances.length ? el("p", { class: "quiet" }, `probability ${(100 * found.probability).toFixed(1)} %`) : "";
    return el("div", {}, el("h2", {}, name), el("p", { class: "value" }, value), sure, ...chances);
  }
}
