// The page: what is looked for, what is found, and what is chosen.

import { ask, byId, el, figure, Items, Looks, mediaAt, plural, post } from "./base.js";
import { Composer, drawingPad } from "./composer.js";
import { Detail } from "./detail.js";
import { Filters } from "./filters.js";
import { Grid, nothing } from "./grid.js";
import { COLOURS, SpaceMap } from "./map.js";
import { Predict } from "./predict.js";

const PAGE = 120;
const MOST = 960;
const page = { explore: null };

class Explore {
  constructor(schema, facets) {
    this.schema = schema;
    this.facets = facets;
    this.items = new Items();
    this.looks = new Looks(schema.gallery);
    this.selected = new Set();
    this.rows = new Uint32Array();
    this.k = PAGE;
    this.codes = new Map();
    const acts = {
      search: () => this.search(), fail: (error) => this.fail(error), open: (row) => this.open(row), toggle: (row) => this.toggle(row),
      like: (row, less) => this.like([row], less), select: (rows, add) => this.select(rows, add), selected: (row) => this.selected.has(row),
    };
    this.grid = new Grid(byId("results"), this.items, this.looks, acts);
    this.map = new SpaceMap(this.items, this.looks, acts);
    this.detail = new Detail(schema, this.items, this.looks, acts);
    this.filters = new Filters(facets, () => this.search());
    this.composer = new Composer(schema, acts);
    byId("composer").hidden = false;
    this.controls();
    this.search();
    this.chart();
  }

  controls() {
    const sides = this.schema.gallery.sides;
    const options = () => sides.map((side) => el("option", { value: side }, side === "row" ? "the whole item" : side));
    for (const id of ["to", "side"]) {
      byId(id).replaceChildren(...options());
      byId(`${id}-field`).hidden = sides.length < 2;
    }
    byId("to").addEventListener("change", () => this.search());
    byId("side").addEventListener("change", () => this.chart());
    byId("size").addEventListener("input", (event) => this.grid.larger(Number(event.target.value)));
    const colour = byId("colour");
    colour.replaceChildren(el("option", { value: "" }, "nothing"), ...this.facets.map((f) => el("option", { value: f.name }, f.name)));
    colour.value = (this.facets.find((f) => f.kind === "category" && f.values.length > 1) ?? this.facets[0])?.name ?? "";
    colour.addEventListener("change", () => this.paint());
    byId("alike").addEventListener("click", (event) => {
      const on = event.currentTarget.getAttribute("aria-pressed") !== "true";
      event.currentTarget.setAttribute("aria-pressed", String(on));
      byId("threshold-field").hidden = !on;
      this.search();
    });
    byId("threshold").addEventListener("input", (event) => { byId("threshold-value").textContent = Number(event.target.value).toFixed(3).replace(/0$/, ""); });
    byId("threshold").addEventListener("change", () => this.search());
    byId("draw").addEventListener("click", () => drawingPad((file) => this.composer.file(file)));
    byId("map-wide").addEventListener("click", (event) => {
      const wide = byId("explore").classList.toggle("wide-map");
      event.currentTarget.setAttribute("aria-pressed", String(wide));
    });
    byId("show-selected").addEventListener("click", () => this.showSelected());
    byId("like-selected").addEventListener("click", () => this.like([...this.selected].slice(0, 20)));
    byId("clear-selected").addEventListener("click", () => this.select([], false));
    for (const button of document.querySelectorAll("[data-export]")) button.addEventListener("click", () => this.export(button.dataset.export));
    byId("results").addEventListener("scroll", (event) => {
      const { scrollTop, scrollHeight, clientHeight } = event.target;
      if (this.more && scrollTop + clientHeight > scrollHeight - 800) { this.more = false; this.k = Math.min(MOST, this.k * 2); this.search(true); }
    }, { passive: true });
    this.tabs();
    document.addEventListener("keydown", (event) => this.key(event));
  }

  tabs() {
    const tabs = byId("tabs");
    tabs.hidden = false;
    byId("explore").dataset.tab = "results";
    tabs.addEventListener("click", (event) => {
      const tab = event.target.closest("[data-tab]");
      if (!tab) return;
      byId("explore").dataset.tab = tab.dataset.tab;
      for (const other of tabs.children) other.setAttribute("aria-current", String(other === tab));
    });
  }

  key(event) {
    const typing = /INPUT|TEXTAREA|SELECT/.test(event.target.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      byId("text").focus();
      byId("text").select();
    } else if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
      if (typing) event.target.blur();
      else if (this.selected.size) this.select([], false);
      else if (!this.composer.empty) this.composer.clear();
    } else if (event.key === "ArrowDown" && event.target.id === "text") {
      event.preventDefault();
      this.grid.focus(0);
    }
  }

  // -- looking for items

  async search(further = false) {
    if (!further) this.k = PAGE;
    this.going?.abort();
    const going = new AbortController();
    this.going = going;
    document.body.classList.add("busy");
    try {
      const found = await this.find(going.signal);
      if (this.going !== going) return;
      this.quiet();
      this.show(found, further);
    } catch (error) {
      if (error.name !== "AbortError" && this.going === going) this.fail(error);
    } finally {
      if (this.going === going) document.body.classList.remove("busy");
    }
  }

  async find(signal) {
    const where = this.filters.where();
    if (byId("alike").getAttribute("aria-pressed") === "true") return this.alike(where, signal);
    if (this.composer.empty) {
      const rows = new Uint32Array(await (await ask("/gallery/rows", post({ where }, signal))).arrayBuffer());
      return { rows, scores: null, said: [el("strong", {}, rows.length.toLocaleString("en")), where ? ` of ${plural(this.schema.gallery.size, "item")}` : ` item${rows.length === 1 ? "" : "s"}`], where };
    }
    const to = byId("to").value;
    const form = this.composer.form_of({ k: this.k, where, to: to === "row" ? null : to });
    const { hits } = await (await ask("/search", { method: "POST", body: form, signal })).json();
    this.more = hits.length === this.k && this.k < MOST;
    const said = [el("strong", {}, hits.length.toLocaleString("en")), this.more ? " most alike first" : " most alike first, all there are"];
    return { rows: Uint32Array.from(hits, (h) => h.row), scores: Float32Array.from(hits, (h) => h.score), said, where, strong: true };
  }

  async alike(where, signal) {
    const side = byId("to").value;
    const threshold = byId("threshold").value;
    const found = await (await ask(`/gallery/duplicates?side=${encodeURIComponent(side)}&threshold=${threshold}`, { signal })).json();
    let groups = found.groups;
    if (where) {
      const kept = new Set(new Uint32Array(await (await ask("/gallery/rows", post({ where }, signal))).arrayBuffer()));
      groups = groups.map((group) => group.filter((row) => kept.has(row))).filter((group) => group.length > 1);
    }
    const rows = Uint32Array.from(groups.flat());
    const badges = new Map();
    let at = 0;
    for (const group of groups) { badges.set(at, `${group.length} alike`); at += group.length; }
    const said = [el("strong", {}, rows.length.toLocaleString("en")), ` in ${plural(groups.length, "group")} of near-duplicates${found.exact ? "" : " (found by cells; a few pairs may be missed)"}`];
    return { rows, scores: null, badges, said, where, strong: true };
  }

  show({ rows, scores, badges, said, strong, where }, further) {
    this.rows = rows;
    this.strong = Boolean(strong);
    this.filtered = strong || where ? rows : null;
    this.grid.show(rows, scores, badges, { keep: further });
    byId("count").replaceChildren(...said);
    this.map.mark(this.filtered, this.selected, this.strong);
    if (rows.length) nothing("");
    else nothing("Nothing here", where ? "No item passes these filters. Take one away, or clear them all." : strong ? "No two items are so much alike." : "There are no items.");
  }

  async like(rows, less = false) {
    for (const item of await this.items.load(rows)) {
      const face = this.looks.face(item);
      this.composer.item(item, this.looks.title(item), face && mediaAt(item, face, 64), less);
    }
  }

  open(row) {
    this.detail.open(row).catch((error) => this.fail(error));
  }

  // -- the map

  async chart() {
    const side = byId("side").value || "row";
    const note = byId("map-note");
    this.charting = side;
    try {
      for (let wait = 600; this.charting === side; wait = Math.min(4000, wait * 1.5)) {
        const reply = await ask(`/gallery/map?side=${encodeURIComponent(side)}`);
        const final = reply.headers.get("X-Map") === "final";
        const places = new Float32Array(await reply.arrayBuffer());
        if (this.charting !== side) return;
        if (final || this.charted !== side) this.map.place(places);
        if (this.charted !== side) {
          this.charted = side;
          this.map.mark(this.filtered ?? null, this.selected, this.strong);
          this.paint();
        }
        note.textContent = final ? "" : "Arranging …";
        if (final) return;
        await new Promise((done) => setTimeout(done, wait));
      }
    } catch (error) {
      note.textContent = error.message;
    }
  }

  async paint() {
    const name = byId("colour").value;
    const facet = this.facets.find((f) => f.name === name);
    byId("legend").replaceChildren();
    if (!facet) {
      this.map.plain();
      return;
    }
    if (!this.codes.has(name)) this.codes.set(name, new Float32Array(await (await ask(`/gallery/codes?column=${encodeURIComponent(name)}`)).arrayBuffer()));
    this.map.colour(this.codes.get(name), facet);
    byId("legend").replaceChildren(...this.legend(facet));
  }

  legend(facet) {
    if (facet.kind !== "category") return [el("span", {}, figure(facet.low)), this.ramp(), el("span", {}, figure(facet.high))];
    const entries = facet.values.slice(0, COLOURS.length).map(([word], k) => {
      const dot = el("span", { class: "dot" });
      dot.style.background = COLOURS[k];
      return el("button", { type: "button", title: `Only ${word}, or not`, onclick: () => this.filters.toggle(facet.name, word) }, dot, word);
    });
    return facet.values.length > COLOURS.length ? [...entries, el("span", {}, "grey: others")] : entries;
  }

  ramp() {
    const node = el("span", { class: "ramp" });
    node.style.background = "linear-gradient(90deg, #33407f, #2c6f9b, #2a9a92, #5dbb73, #b9cf56, #f6d860)";
    return node;
  }

  // -- the selection

  toggle(row) {
    if (!this.selected.delete(row)) this.selected.add(row);
    this.chosen();
  }

  select(rows, add) {
    if (!add) this.selected.clear();
    for (const row of rows) this.selected.add(row);
    this.chosen();
  }

  chosen() {
    this.grid.mark(this.selected);
    this.map.mark(this.filtered ?? null, this.selected, this.strong);
    byId("selection").hidden = !this.selected.size;
    byId("selected-count").textContent = `${this.selected.size.toLocaleString("en")} selected`;
  }

  showSelected() {
    const rows = Uint32Array.from([...this.selected].sort((a, b) => a - b));
    this.show({ rows, scores: null, said: [el("strong", {}, rows.length.toLocaleString("en")), " selected"], strong: true }, false);
  }

  async export(format) {
    try {
      const reply = await ask("/gallery/export", post({ rows: [...this.selected].sort((a, b) => a - b), format }));
      const link = el("a", { href: URL.createObjectURL(await reply.blob()), download: `${this.schema.model}.${format}` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    } catch (error) {
      this.fail(error);
    }
  }

  // -- what goes wrong

  fail(error) {
    console.warn(error);
    const [first, ...rest] = String(error.message).split("\n");
    const place = rest.length ? el("div", { class: "mono" }, rest.join("\n")) : "";
    const words = el("div", {}, el("p", {}, first), place);
    words.style.flex = "1";
    byId("notice").replaceChildren(words, el("button", { type: "button", "aria-label": "Dismiss", onclick: () => this.quiet() }, "×"));
    byId("notice").hidden = false;
  }

  quiet() {
    byId("notice").hidden = true;
  }
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch (error) {
    console.warn(error);
  }
  const apply = () => {
    document.documentElement.dataset.theme = chosen ?? (dark.matches ? "dark" : "light");
    window.dispatchEvent(new Event("resize"));
    page.explore?.map.later();
  };
  dark.addEventListener("change", apply);
  byId("theme").addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("theme", chosen);
    } catch (error) {
      console.warn(error);
    }
    apply();
  });
  apply();
}

function views(schema) {
  const names = { explore: schema.gallery && "Explore", predict: schema.targets.length && "Predict" };
  const there = Object.keys(names).filter((name) => names[name]);
  const go = (name) => {
    for (const view of Object.keys(names)) byId(view).hidden = view !== name;
    byId("composer").hidden = name !== "explore";
    byId("tabs").hidden = name !== "explore";
    for (const button of byId("views").children) button.setAttribute("aria-current", String(button.dataset.view === name));
  };
  byId("views").replaceChildren(...there.map((name) => el("button", { type: "button", "data-view": name, onclick: () => go(name) }, names[name])));
  byId("views").hidden = there.length < 2;
  if (there.length) go(there[0]);
  return there;
}

async function begin() {
  theme();
  try {
    const schema = await (await ask("/schema")).json();
    byId("brand").textContent = schema.model;
    document.title = `${schema.model} · Unisono`;
    const there = views(schema);
    if (there.includes("predict")) new Predict(schema);
    if (there.includes("explore")) {
      const { facets } = await (await ask("/gallery/facets")).json();
      page.explore = new Explore(schema, facets);
    }
    if (!there.length) {
      byId("predict").hidden = false;
      byId("predict").replaceChildren(el("h1", {}, "This model embeds"), el("p", {}, "It has no target to predict, and no index is served with it. Make one with ", el("code", {}, "unisono index"), " and serve that."));
    }
  } catch (error) {
    byId("notice").hidden = false;
    byId("notice").replaceChildren(el("p", {}, error.message));
  }
}

begin();
