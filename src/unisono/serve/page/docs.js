// The addresses of this server for people, from its own description.

import { ask, byId, el } from "./base.js";

const shape = (schema) => schema.format ?? (Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type) ?? "anything";

function body(content) {
  return Object.entries(content).flatMap(([kind, { schema }]) => {
    const inner = schema.properties?.rows?.items?.properties;
    const rows = Object.entries(inner ?? schema.properties ?? {}).map(([name, of]) => el("tr", {}, el("td", {}, el("code", {}, name)), el("td", {}, shape(of)), el("td", {}, of.description ?? "")));
    return [el("p", {}, `${kind}${inner ? ', {"rows": [{column: value}]}' : ""}`), el("table", {}, el("tbody", {}, ...rows))];
  });
}

function example(path, operation) {
  const from = location.origin;
  if (path === "/predict" || path === "/embed") {
    const form = operation.requestBody.content["multipart/form-data"].schema.properties;
    const parts = Object.entries(form).slice(0, 3).map(([name, of]) => `-F '${name}=${of.format === "binary" ? "@file" : "…"}'`);
    return `curl ${parts.join(" ")} ${from}${path}`;
  }
  if (path === "/search") return `curl -F 'text=…' -F k=5 ${from}/search`;
  return `curl ${from}${path}`;
}

const described = await (await ask("/openapi.json")).json();
const articles = Object.entries(described.paths).flatMap(([path, verbs]) => Object.entries(verbs).map(([verb, operation]) =>
  el("article", {}, el("h2", {}, el("span", { class: "verb" }, verb.toUpperCase()), el("code", {}, path), operation.summary), el("p", {}, operation.description),
    ...(operation.requestBody ? body(operation.requestBody.content) : []), el("pre", {}, example(path, operation)))));
byId("docs").replaceChildren(el("h1", {}, described.info.title), el("p", { class: "about" }, described.info.description, " The whole description: ", el("a", { href: "/openapi.json" }, "/openapi.json")), ...articles);
