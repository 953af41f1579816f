// Parts that several views are made of.

import { copy, el } from "./dom.js";

// panel is a titled box. title is the key of a sentence; the body is what the caller fills.
export function panel(context, title, ...classes) {
  const heading = el("h2", {}, context.t(title));
  const body = el("div", { class: "body" });
  const tools = el("div", { class: "tools" });
  context.onLanguage(() => (heading.textContent = context.t(title)));
  const root = el("section", { class: ["panel", ...classes].join(" ") }, el("div", { class: "head" }, heading, tools), body);
  return { root, body, tools };
}

// tile is a figure with its name and, below it, a remark.
export function tile(name, value, remark) {
  return el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, value), remark && el("dd", { class: "remark" }, remark));
}

// bar shows a part, 0 to 1, of a whole. label says it in words.
export function bar(part, label, kind = "") {
  const fill = el("span", { class: `fill ${kind}` });
  fill.style.width = `${Math.min(100, Math.max(0, part * 100))}%`;
  return el("span", { class: "bar-of", role: "img", "aria-label": label }, fill);
}

// badge is a word in a colour: good, warn, bad or plain.
export function badge(text, level = "calm") {
  return el("span", { class: `badge ${level}` }, text);
}

// table is a table whose rows become cards on a phone. columns are {name, number};
// rows are lists of cells, each text, an element or a list of them.
export function table(columns, rows, caption) {
  const head = columns.map((c) => el("th", { scope: "col", class: c.number && "number" }, c.name));
  const body = rows.map((cells) => {
    const made = cells.map((cell, i) => el("td", { class: columns[i].number && "number", "data-name": columns[i].name }, cell));
    return el("tr", {}, made);
  });
  return el("table", { class: "data" }, caption && el("caption", {}, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
}

// nothing is what stands where there is nothing yet, and what to do about it.
export function nothing(title, ...more) {
  return el("div", { class: "nothing" }, el("p", { class: "nothing-title" }, title), more.flat());
}

// code is a text to copy, with a button.
export function code(context, text) {
  const shown = el("code", {}, text);
  const done = el("span", { class: "copied", role: "status" });
  const button = el("button", { type: "button", class: "small" }, context.t("copy"));
  button.addEventListener("click", async () => {
    done.textContent = context.t((await copy(text, shown)) ? "copied" : "copy.failed");
  });
  return el("div", { class: "code" }, el("pre", { tabindex: "0" }, shown), el("div", { class: "code-bar" }, done, button));
}

// complaint shows why a request failed, a Problem or any error.
export function complaint(context, error) {
  return el("p", { class: "complaint", role: "alert" }, error.key ? context.t(error.key, error.values) : String(error.message ?? error));
}

// light shows whether a view is live: it follows a connection.
export function light(context) {
  const text = el("span");
  const root = el("p", { class: "light", role: "status" }, el("span", { class: "dot", "aria-hidden": "true" }), text);
  let state = "joining";
  const draw = () => {
    root.dataset.state = state;
    text.textContent = context.t("live." + state);
  };
  context.onLanguage(draw);
  draw();
  const set = (next) => {
    if (next === state) return;
    state = next;
    draw();
  };
  return { root, open: () => set("on"), error: () => set("off") };
}
