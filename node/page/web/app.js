// The page’s shell: the views and their addresses, the language and the colours.
//
// A view is a file of its own, NAME.js, beside its sentences in words-NAME.js and its
// <section data-view="NAME"> in index.html. It exports start(section, context), which
// runs when the view is first shown, and may return {show(query), hide()}: show runs
// each time that the view or its query in the address changes, hide when another view
// takes its place. The address is #/NAME?query, so every view can be linked to.

import * as cache from "./cache.js";
import * as cluster from "./cluster.js";
import * as doctor from "./doctor.js";
import * as pull from "./pull.js";
import * as setup from "./setup.js";
import * as traffic from "./traffic.js";
import { fetchJSON, open } from "./ask.js";
import { fill, known, languages } from "./i18n.js";
import { place } from "./place.js";
import { subscribe } from "./live.js";
import { remember, remembered } from "./store.js";
import { words as cacheWords } from "./words-cache.js";
import { words as clusterWords } from "./words-cluster.js";
import { words as doctorWords } from "./words-doctor.js";
import { words as pullWords } from "./words-pull.js";
import { words as setupWords } from "./words-setup.js";
import { words as shellWords } from "./words-shell.js";
import { words as trafficWords } from "./words-traffic.js";

const views = {
  pull: { module: pull, words: pullWords },
  setup: { module: setup, words: setupWords },
  cluster: { module: cluster, words: clusterWords },
  traffic: { module: traffic, words: trafficWords },
  cache: { module: cache, words: cacheWords },
  doctor: { module: doctor, words: doctorWords },
};
const root = document.documentElement;
const heard = []; // what runs when the language changes
let language = "en";
let current = "";

// say is a sentence of the view, or of the shell.
function say(view, key, values) {
  const own = views[view] ? [views[view].words] : [];
  return fill(language, key, values, ...own, shellWords);
}

// contextOf is what a view is given: t(key, values) is a sentence in the language of
// the moment, language() its name, onLanguage(f) runs f when it changes; the rest is
// in ask.js and live.js.
function contextOf(view) {
  return {
    t: (key, values) => say(view, key, values),
    language: () => language,
    onLanguage: (f) => heard.push(f),
    fetchJSON,
    open,
    subscribe,
  };
}

// translate fills in what stands in index.html: data-i18n="VIEW/key" is an element’s
// text, data-i18n-label its aria-label and data-i18n-placeholder its placeholder.
function translate() {
  const sentence = (path) => {
    const [view, key] = path.split("/");
    return say(view, key);
  };
  for (const e of document.querySelectorAll("[data-i18n]")) e.textContent = sentence(e.dataset.i18n);
  for (const e of document.querySelectorAll("[data-i18n-label]")) e.setAttribute("aria-label", sentence(e.dataset.i18nLabel));
  for (const e of document.querySelectorAll("[data-i18n-placeholder]")) e.placeholder = sentence(e.dataset.i18nPlaceholder);
}

function press(buttons, chosen) {
  for (const [name, button] of buttons) button.setAttribute("aria-pressed", String(name === chosen));
}

// buttons are the buttons of a switch, by what they stand for.
function buttons(name) {
  return [...document.querySelectorAll(`[data-${name}]`)].map((b) => [b.dataset[name], b]);
}

function speak(next) {
  language = next;
  root.lang = languages[language];
  translate();
  press(buttons("language"), language);
  if (current) document.title = `${say(current, "title")} · OCI-Proxy`;
  for (const f of heard) f();
}

function section(view) {
  return document.querySelector(`[data-view="${view}"]`);
}

// go shows the view that the address names. A change of view moves the focus to its
// heading; a view that the page opens with has it in its field data-first.
function go() {
  const { view, query } = place(location.hash, Object.keys(views), current || "pull");
  const before = current;
  const started = views[view].running !== undefined;
  if (before && before !== view) views[before].running.hide?.();
  current = view;
  for (const name of Object.keys(views)) section(name).hidden = name !== view;
  for (const a of document.querySelectorAll(".views a")) {
    if (a.hash === `#/${view}`) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  document.title = `${say(view, "title")} · OCI-Proxy`;
  if (!started) views[view].running = views[view].module.start(section(view), contextOf(view)) ?? {};
  views[view].running.show?.(query);
  if (!before) section(view).querySelector("[data-first]")?.focus({ preventScroll: true });
  if (!before || before === view) return;
  scrollTo(0, 0);
  section(view).querySelector("h1").focus({ preventScroll: true });
}

function listen() {
  for (const [name, button] of buttons("language")) {
    button.addEventListener("click", () => {
      remember("language", name);
      speak(name);
    });
  }
  for (const [name, button] of buttons("theme")) {
    button.addEventListener("click", () => {
      remember("theme", name);
      press(buttons("theme"), useTheme(name)); // of theme.js
    });
  }
  document.querySelector(".skip").addEventListener("click", (e) => {
    e.preventDefault(); // the address keeps naming the view
    section(current).querySelector("h1").focus();
  });
  addEventListener("hashchange", go);
}

function start() {
  const query = new URLSearchParams(location.search);
  press(buttons("theme"), useTheme(remembered("theme")));
  listen();
  speak([query.get("lang"), remembered("language"), ...navigator.languages].map(known).find(Boolean) ?? "en");
  go();
}

start();
