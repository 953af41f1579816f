// The page itself: reads the fields, calls reference.js, and shows the result. It
// puts text into the document only as text nodes and values.

import { fill, known, languages } from "./i18n.js";
import { pastedTool, proxyAddress, rewrite, tools } from "./reference.js";

const byID = (id) => document.getElementById(id);
const root = document.documentElement;
const image = byID("image");
const proxy = byID("proxy");
const radios = [...document.querySelectorAll("input[name=tool]")];
const configured = {
  defaultRegistry: root.dataset.registry,
  aliases: JSON.parse(root.dataset.aliases),
};
// Without a base_url, the page uses the address that it was loaded from.
const own = proxyAddress(root.dataset.origin || location.origin);
const home = own.address ?? location.host;
let language = "en";

// remembered and remember store the language. Storage may be switched off.
function remembered() {
  try {
    return localStorage.getItem("language");
  } catch {
    return null;
  }
}

function remember(value) {
  try {
    localStorage.setItem("language", value);
  } catch {
    // Next time the page asks the browser again.
  }
}

function speak(next) {
  language = next;
  root.lang = languages[language];
  for (const e of document.querySelectorAll("[data-i18n]")) e.textContent = fill(language, e.dataset.i18n);
  for (const e of document.querySelectorAll("[data-i18n-label]")) {
    e.setAttribute("aria-label", fill(language, e.dataset.i18nLabel));
  }
  for (const e of document.querySelectorAll("[data-language]")) {
    e.setAttribute("aria-pressed", String(e.dataset.language === language));
  }
  show();
}

// complain shows why a field's text is refused, or hides the message.
function complain(field, error) {
  const place = byID(field.id + "-error");
  field.setAttribute("aria-invalid", String(Boolean(error)));
  place.hidden = !error;
  place.textContent = error ? fill(language, error.key, error.values) : "";
}

function textNode(tag, text, className = "") {
  const e = document.createElement(tag);
  e.textContent = text;
  e.className = className;
  return e;
}

// show updates everything that depends on the fields.
function show() {
  const address = proxyAddress(proxy.value);
  const scheme = address.scheme || (address.address === own.address ? own.scheme : "");
  const given = image.value.trim() !== "";
  // The image's name is checked even if the proxy's address is bad.
  const result = given
    ? rewrite(image.value, {
        ...configured,
        tool: radios.find((r) => r.checked).value,
        proxy: address.address ?? "proxy.invalid",
        scheme,
      })
    : {};
  complain(proxy, address.error);
  complain(image, result.error);
  byID("proxy-reset").hidden = proxy.value === home;
  showCommand((!address.error && result.steps) || []);
  showNotes((!address.error && result.notes) || []);
}

function showCommand(steps) {
  const command = byID("command");
  // The command is one line to copy, but shows each step in its own block.
  command.replaceChildren(...steps.map((s, i) => textNode("span", s + (i + 1 < steps.length ? " && " : ""))));
  byID("box").hidden = steps.length === 0;
  byID("empty").hidden = steps.length > 0;
  byID("explain").hidden = steps.length < 2;
  byID("copy").disabled = steps.length === 0;
  byID("copied").textContent = "";
}

function showNotes(notes) {
  const list = byID("notes");
  list.replaceChildren(...notes.map((n) => textNode("li", fill(language, n.key, n.values))));
  list.hidden = notes.length === 0;
}

// copyOld copies without navigator.clipboard, which pages over plain http lack. Most
// proxies are reached over plain http.
function copyOld(text) {
  const area = textNode("textarea", text, "offscreen");
  area.readOnly = true;
  document.body.append(area);
  area.select();
  let done = false;
  try {
    done = document.execCommand("copy");
  } catch {
    // The page selects the command, so the visitor can copy it.
  }
  area.remove();
  byID("copy").focus();
  return done;
}

async function copy() {
  const text = byID("command").textContent;
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    done = copyOld(text);
  }
  if (!done) getSelection().selectAllChildren(byID("command"));
  byID("copied").textContent = fill(language, done ? "copied" : "copy.failed");
}

function choose(tool) {
  for (const r of radios) r.checked = r.value === tool;
}

function listen() {
  image.addEventListener("input", () => {
    const tool = pastedTool(image.value);
    if (tool) choose(tool);
    show();
  });
  image.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && !e.isComposing && !byID("copy").disabled) copy();
  });
  proxy.addEventListener("input", show);
  byID("proxy-reset").addEventListener("click", () => {
    proxy.value = home;
    show();
    proxy.focus();
  });
  for (const r of radios) r.addEventListener("change", show);
  byID("copy").addEventListener("click", copy);
  for (const e of document.querySelectorAll("[data-example]")) {
    e.addEventListener("click", () => {
      image.value = e.textContent;
      show();
    });
  }
  for (const e of document.querySelectorAll("[data-language]")) {
    e.addEventListener("click", () => {
      remember(e.dataset.language);
      speak(e.dataset.language);
    });
  }
}

function start() {
  const query = new URLSearchParams(location.search);
  proxy.value = home;
  image.value = query.get("image") ?? "";
  const tool = query.get("tool") ?? pastedTool(image.value);
  if (tools.includes(tool)) choose(tool);
  listen();
  speak([query.get("lang"), remembered(), ...navigator.languages].map(known).find(Boolean) ?? "en");
}

start();
