// Changing single names in a text, and showing what changed.

import { hub, inPath, parseName, proxied, suffix } from "./names.js";
import { attempt, refuse } from "./refusal.js";

// A slot is a name as it is written in a text: {start, end}, with variables in it.
// Variables come in {values}: from a name to {text, start, end}, its default and where
// that is written.

const variable = /\$(?:\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+?])([^{}]*))?\}|([A-Za-z_][A-Za-z0-9_]*))/g;

// piecesOf takes a slot apart into literal text and the values of variables. A piece is
// {text, start}; start is where its text is written. text is null for a variable
// without a value that is known.
function piecesOf(text, slot, values) {
  const pieces = [];
  const literal = (from, to) => {
    if (from < to) pieces.push({ text: text.slice(from, to), start: from });
  };
  let at = slot.start;
  for (const m of text.slice(slot.start, slot.end).matchAll(variable)) {
    const start = slot.start + m.index;
    literal(at, start);
    at = start + m[0].length;
    const name = m[1] ?? m[4];
    const known = values.get(name);
    const fallback = m[2]?.endsWith("-") ? { text: m[3], start: at - 1 - m[3].length } : null;
    const usable = m[2] === undefined || m[2].endsWith("-");
    if (usable && known && (known.text !== "" || fallback === null)) pieces.push({ text: known.text, start: known.start });
    else pieces.push(usable && fallback ? fallback : { text: null, start });
  }
  literal(at, slot.end);
  return pieces;
}

// change returns the edit that leads a slot's name through the proxy: {start, end,
// text, before, after}, or null if it does already. before and after are the names
// with the variables' values. It may throw a Refusal.
//
// Only the head of a name changes, its registry. So the head must be written in one
// place; what follows may be variables.
export function change(text, slot, values, options) {
  const pieces = piecesOf(text, slot, values);
  if (pieces.length === 0) refuse("noName");
  if (/\$/.test(pieces.map((p) => p.text ?? "").join("")) || pieces[0].text === null) refuse("variable", { at: text.slice(slot.start, slot.end) });
  const shown = text.slice(slot.start, slot.end);
  const before = pieces.map((p) => p.text ?? "0").join(""); // a digit fits in a name, a tag and a digest
  if (before.toLowerCase().startsWith(options.proxy + "/")) return null;
  const image = parseName(before, options);
  const unknown = pieces.findIndex((p) => p.text === null);
  const written = pieces.slice(0, unknown < 0 ? pieces.length : unknown).map((p) => p.text).join("");
  if (unknown > 0 && image.registry && !written.includes("/")) refuse("variable", { at: shown });
  const after = explicit(image, options) + suffix(image);
  const rest = image.repository + suffix(image);
  const edit = headEdit(pieces, before.slice(0, before.length - rest.length), after.slice(0, after.length - rest.length), shown);
  return { ...edit, before: unknown < 0 ? before : shown, after, exact: unknown < 0 };
}

// explicit is an image's proxied name. In files (options.file), a name without a registry
// means Docker Hub, whatever the proxy takes it for.
function explicit(image, options) {
  if (image.registry || options.defaultRegistry === hub || !options.file) return proxied(image, options).through;
  return proxied({ ...image, registry: "docker.io" }, options).through;
}

// headEdit replaces what pieces begin with, from, by to.
function headEdit(pieces, from, to, shown) {
  const first = pieces[0];
  if (to.endsWith(from)) return { start: first.start, end: first.start, text: to.slice(0, to.length - from.length) };
  if (from.endsWith("/") && to.endsWith("/")) return headEdit(pieces, from.slice(0, -1), to.slice(0, -1), shown);
  if (!first.text.startsWith(from)) refuse("variable", { at: shown });
  return { start: first.start, end: first.start + from.length, text: to };
}

// registryEdit leads a registry that is written by itself through the proxy, as Helm's
// values have it.
export function registryEdit(text, slot, options) {
  const registry = text.slice(slot.start, slot.end).toLowerCase();
  if (registry === options.proxy || registry.startsWith(options.proxy + "/")) return null;
  parseName(`${registry}/x`, options);
  const after = `${options.proxy}/${inPath(registry, options.aliases)}`;
  return { start: slot.start, end: slot.end, text: after, before: registry, after };
}

// A Sheet collects what happens to the names in a text: edits, and names that are refused
// with the reason.
export class Sheet {
  constructor(text, options) {
    this.text = text;
    this.options = options;
    this.edits = new Map(); // by place
    this.images = []; // {line, before, after, exact} or {line, at, error}
    this.kept = 0; // names that lead through the proxy already
  }

  // lead leads the name in a slot through the proxy.
  lead(slot, values = new Map()) {
    this.#take(slot, () => ({ edit: change(this.text, slot, values, this.options) }));
  }

  leadRegistry(slot) {
    this.#take(slot, () => ({ edit: registryEdit(this.text, slot, this.options) }));
  }

  // skip notes why the name in a slot stays.
  skip(slot, key) {
    this.#note(slot, { error: { key: "error." + key, values: { at: this.#at(slot) } } });
  }

  #take(slot, make) {
    const { edit, error } = attempt(make);
    if (error) this.#note(slot, { error });
    else if (!edit) this.kept++;
    if (!edit) return;
    const other = this.edits.get(edit.start);
    if (other && (other.text !== edit.text || other.end !== edit.end)) {
      this.skip(slot, "variable");
      return;
    }
    this.edits.set(edit.start, edit);
    this.#note(slot, { before: edit.before, after: edit.after, exact: edit.exact === true });
  }

  #at(slot) {
    return this.text.slice(slot.start, slot.end);
  }

  #note(slot, what) {
    this.images.push({ line: this.text.slice(0, slot.start).split("\n").length, at: this.#at(slot), ...what });
  }

  // result returns {text, lines, images}: the new text, and each line as {before,
  // after}.
  result() {
    let text = "";
    let at = 0;
    for (const e of [...this.edits.values()].sort((a, b) => a.start - b.start)) {
      text += this.text.slice(at, e.start) + e.text;
      at = e.end;
    }
    text += this.text.slice(at);
    const after = text.split("\n"); // no edit has a line break
    return { text, lines: this.text.split("\n").map((before, i) => ({ before, after: after[i] })), images: this.images };
  }
}

// folded returns the lines to show: those that changed, with some around each. A gap of
// more than three is {skipped: how many}.
export function folded(lines, around = 2) {
  const near = lines.map((_, i) => lines.slice(Math.max(0, i - around), i + around + 1).some((l) => l.before !== l.after));
  const shown = [];
  for (let i = 0; i < lines.length; ) {
    const next = near.indexOf(true, i);
    const gap = (next < 0 ? lines.length : next) - i;
    if (gap > 3) shown.push({ skipped: gap });
    else shown.push(...lines.slice(i, i + gap));
    i += gap;
    if (i < lines.length) shown.push(lines[i++]);
  }
  return shown;
}
