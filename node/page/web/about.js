// What the node says of the images that were pasted: whether it would serve them, and
// what of them is cached. It asks GET /_/image, which tells a visitor no more than a
// pull would.

import { el } from "./dom.js";
import { bytes } from "./format.js";

const delay = 350; // ms without typing before the node is asked
const most = 40; // names in one question

// startAbout returns {show(names, proxy), stop()}. names are as behind the proxy: paths
// without its address.
export function startAbout(card, body, { t, fetchJSON }) {
  let asked = ""; // the names that are shown or on their way
  let timer = 0;
  let asking = null;
  let answer = null;
  let proxy = "";

  function show(names, address) {
    proxy = address;
    const wanted = names.slice(0, most);
    const question = new URLSearchParams(wanted.map((n) => ["name", n])).toString();
    if (question === asked) {
      draw();
      return;
    }
    stop();
    asked = question;
    answer = null;
    card.hidden = true;
    if (question) timer = setTimeout(() => ask(question), delay);
  }

  function stop() {
    clearTimeout(timer);
    asking?.abort();
    asking = null;
    asked = "";
  }

  async function ask(question) {
    asking = new AbortController();
    const mine = asking;
    card.hidden = false;
    body.replaceChildren(el("p", { class: "hint" }, t("about.asking")));
    try {
      answer = await fetchJSON("_/image?" + question, { signal: mine.signal });
    } catch (e) {
      if (e.name === "AbortError") return;
      answer = { problem: e };
    }
    if (mine === asking) draw();
  }

  function draw() {
    if (!answer) return;
    if (answer.problem) {
      const missing = answer.problem.status === 404;
      card.hidden = missing; // a node of an earlier version, or the page without a node
      const reason = t(answer.problem.key, answer.problem.values);
      body.replaceChildren(el("p", { class: "error" }, t("about.failed", { reason })));
      return;
    }
    if (answer.login) body.replaceChildren(...login());
    else body.replaceChildren(...visitor(), table(answer.names ?? []), ...remarks(answer.names ?? []));
  }

  // login says that nobody pulls here without one.
  function login() {
    return [el("p", {}, t("about.login", { command: `docker login ${proxy}` })), loginLine()];
  }

  function loginLine() {
    return el("p", { class: "hint" }, t("about.more"), " ", el("button", { type: "button", class: "plain", click: enter }, t("about.loginButton")));
  }

  // enter makes the browser ask for the login: this needs one.
  async function enter() {
    try {
      await fetchJSON("_/images?match=none.invalid/none");
    } catch {
      return; // the visitor gave none
    }
    const question = asked;
    stop();
    asked = question;
    ask(question);
  }

  function visitor() {
    if (answer.user) return [el("p", { class: "hint" }, t("about.user", { user: answer.user }))];
    return answer.auth && (answer.names ?? []).some((n) => n.refused) ? [loginLine()] : [];
  }

  function table(names) {
    const head = [t("about.image"), t("about.answer"), t("about.platforms"), t("about.size"), t("about.cached")];
    const rows = names.map((n) => {
      const cached = n.cached?.[0];
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, n.image || n.name),
        el("td", {}, verdict(n)),
        el("td", { "data-label": t("about.platforms") }, cached?.platforms?.join(", ") || "–"),
        el("td", { "data-label": t("about.size") }, cached ? bytes(cached.size) : "–"),
        el("td", { "data-label": t("about.cached") }, cached ? share(cached) : t("about.none")),
      );
    });
    return el(
      "div",
      { class: "scroll" },
      el("table", {}, el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, rows)),
    );
  }

  function verdict(n) {
    if (n.error || n.refused) return el("span", { class: "mark bad" }, t("about.refused"));
    if (n.offline) return el("span", { class: "mark warn" }, t("about.offline"));
    return el("span", { class: "mark good" }, t("about.ok"));
  }

  function share({ size, held }) {
    if (held >= size) return t("about.whole");
    return t("about.share", { percent: `${Math.floor((100 * held) / size)} %`, size: bytes(size) });
  }

  // remarks are the reasons, and what else is cached of a single image's repository.
  function remarks(names) {
    const list = [];
    const add = (n, text) => list.push(names.length > 1 ? `${n.image || n.name}: ${text}` : text);
    for (const n of names) {
      const reason = n.error ?? n.refused?.reason;
      if (reason) add(n, reason);
      else if (n.offline) add(n, t("about.offlineWhy"));
      if (!reason && n.without_login) {
        add(n, t("about.anonymous", { reason: n.without_login.why === "login" ? t("about.needsLogin") : n.without_login.reason }));
      }
      if (names.length === 1 && n.tags?.length) add(n, t("about.tags", { tags: n.tags.join(", ") }));
    }
    return list.length === 0 ? [] : [el("ul", { class: "notes" }, list.map((text) => el("li", {}, text)))];
  }

  return { show, stop };
}
