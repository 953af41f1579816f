// The Set up view: the files that a client needs to pull through this proxy, as the node
// writes them at /_/setup/CLIENT.

import { copy, download, el } from "./dom.js";
import { link } from "./place.js";

const clients = ["docker", "containerd", "podman", "cri-o", "k3s", "buildkit"];
const registryList = /^[a-z0-9][a-z0-9.:_-]*(?:,[a-z0-9][a-z0-9.:_-]*)*$/i;

export function start(section, { t, fetchJSON, onLanguage }) {
  const tabs = document.getElementById("setup-clients");
  const registries = document.getElementById("setup-registries");
  const complaint = document.getElementById("setup-registries-error");
  const body = document.getElementById("setup-body");
  let client = clients[0];
  let chosen = ""; // registries, with commas
  let plan = null;
  let problem = null;
  let asking = null;

  async function ask() {
    asking?.abort();
    asking = new AbortController();
    const mine = asking;
    plan = problem = null;
    draw();
    const query = new URLSearchParams({ format: "json" });
    if (chosen) query.set("registries", chosen);
    try {
      plan = await fetchJSON(`_/setup/${client}?${query}`, { signal: mine.signal });
    } catch (e) {
      if (e.name === "AbortError") return;
      problem = e;
    }
    if (mine === asking) draw();
  }

  function draw() {
    tabs.replaceChildren(
      ...clients.map((c) => {
        const query = chosen ? { client: c, registries: chosen } : { client: c };
        return el("li", {}, el("a", { href: link("setup", query), "aria-current": c === client && "true" }, c));
      }),
    );
    if (problem) body.replaceChildren(el("p", { class: "card error", role: "alert" }, reason()));
    else if (plan) body.replaceChildren(...drawPlan());
    else body.replaceChildren(el("p", { class: "hint", role: "status" }, t("loading")));
  }

  function reason() {
    return problem.status === 404 ? t("missing", { client }) : t(problem.key, problem.values);
  }

  function drawPlan() {
    const line = plan.command ?? "";
    const piped = line.endsWith("| sh");
    return [
      ...(line ? [el("h2", {}, t("oneLine")), el("p", { class: "hint" }, t("oneLine.hint", { client })), box(t("command"), line)] : []),
      ...(piped ? [el("p", { class: "hint gap" }, t("dry")), box(t("dry.label"), `${line} -s -- -n`)] : []),
      ...(piped ? [el("p", { class: "hint gap" }, t("undo")), box(t("undo.label"), `${line} -s -- -undo`)] : []),
      ...(plan.files?.length ? [el("h2", {}, t("byHand")), ...plan.files.flatMap(file)] : []),
      ...(plan.restart ? [el("h2", {}, t("restart")), box(t("command"), plan.restart)] : []),
      ...(plan.notes?.length ? [el("h2", {}, t("notes")), el("ul", { class: "notes" }, plan.notes.map((n) => el("li", { lang: "en" }, n)))] : []),
    ];
  }

  function file({ path, content, merge, note }) {
    const name = path.split("/").at(-1);
    const give = el("button", { type: "button", class: "second", click: () => download(name, content) }, t("download"));
    return [
      box(path, content, give),
      merge && el("p", { class: "hint below" }, t("merge")),
      note && el("p", { class: "hint below", lang: "en" }, note), // the node's words
    ].filter(Boolean);
  }

  // box shows a text with a button that copies it.
  function box(title, text, ...buttons) {
    const code = el("code", {}, text);
    const said = el("p", { class: "copied", role: "status", "aria-live": "polite" });
    const take = async () => {
      said.textContent = t((await copy(text, code)) ? "copied" : "copy.failed");
    };
    return el(
      "div",
      { class: "result", role: "group", "aria-label": title },
      el("div", { class: "bar" }, el("h3", {}, title), said, buttons, el("button", { type: "button", click: take }, t("copy"))),
      el("pre", { tabindex: "0", role: "region", "aria-label": title }, code),
    );
  }

  function choose() {
    const given = registries.value.replaceAll(/[\s,]+/g, ",").replaceAll(/^,|,$/g, "");
    const wrong = given !== "" && !registryList.test(given);
    complaint.hidden = !wrong;
    complaint.textContent = wrong ? t("registries.wrong") : "";
    registries.setAttribute("aria-invalid", String(wrong));
    if (!wrong) location.hash = link("setup", given ? { client, registries: given } : { client });
  }

  registries.addEventListener("change", choose);
  onLanguage(draw);
  return {
    show(query) {
      const wanted = query.get("client");
      client = clients.includes(wanted) ? wanted : clients[0];
      const given = query.get("registries") ?? "";
      chosen = registryList.test(given) ? given : "";
      registries.value = chosen.replaceAll(",", ", ");
      ask();
    },
    hide: () => asking?.abort(),
  };
}
