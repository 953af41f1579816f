// The Doctor view: what is wrong with the node, and what happens on the way to a registry
// or an image, step by step.

import { el } from "./dom.js";
import { firstWrong, groups } from "./facts.js";
import { readLines } from "./lines.js";
import { badge, complaint, nothing, panel } from "./parts.js";

const levels = { ok: "good", warning: "warn", error: "bad", skipped: "calm" };

export function start(section, context) {
  const { t } = context;
  const health = panel(context, "health");
  const ask = panel(context, "ask");
  const result = panel(context, "result");
  const input = el("input", { type: "text", id: "target", autocomplete: "off", autocapitalize: "none", spellcheck: "false", placeholder: "ghcr.io · docker.io/library/nginx:1.27" });
  const label = el("label", { for: "target" });
  const go = el("button", { type: "submit" });
  const hint = el("p", { class: "hint" });
  let steps = [];
  let end = null; // the last line
  let failure = null;
  let target = null; // that is or was examined
  let running = null; // ends the examination

  result.root.hidden = true;
  const form = el("form", { class: "ask" }, label, el("div", { class: "field" }, input, go));
  ask.body.append(form, hint);
  section.append(ask.root, result.root, health.root);

  function speak() {
    label.textContent = t("target");
    go.textContent = t(running ? "stop" : "examine");
    hint.textContent = t("target.hint");
    if (target !== null) drawResult();
  }

  function drawStep(s) {
    return el("li", { class: `step ${levels[s.level] ?? "calm"}` },
      el("div", { class: "step-head" }, el("strong", {}, s.step), badge(t("level." + s.level), levels[s.level] ?? "calm"), el("span", { class: "soft number" }, t("took", { ms: String(s.took_ms) }))),
      el("p", {}, s.text), s.advice && el("p", { class: "advice" }, t("advice", { advice: s.advice })));
  }

  function drawGroup(group) {
    const who = group.node ? t("by", { node: group.node, about: group.about }) : group.about;
    const open = group.worst < 2 || groups(steps).length === 1;
    return el("details", { class: "group", open }, el("summary", {}, who, " ", t("steps", { n: String(group.steps.length) })), el("ol", { class: "step-list" }, group.steps.map(drawStep)));
  }

  function drawVerdict() {
    if (failure) return complaint(context, failure);
    const first = firstWrong(steps);
    if (first && (first.level === "error" || end)) {
      const bad = first.level === "error";
      return el("div", { class: `verdict ${bad ? "bad" : "warn"}`, role: "status" },
        el("p", {}, t(bad ? "fails" : "doubtful", { step: first.step, node: first.node || first.about }), " ", first.text),
        first.advice && el("p", { class: "advice" }, t("advice", { advice: first.advice })));
    }
    if (end) return el("p", { class: "verdict good", role: "status" }, t("well", { n: String(steps.length) }));
    return running ? el("p", { class: "hint", role: "status" }, t("running", { n: String(steps.length) })) : "";
  }

  function drawResult() {
    result.root.hidden = false;
    result.body.replaceChildren(drawVerdict(), ...groups(steps).map(drawGroup));
  }

  async function examine() {
    if (running) return running.abort();
    running = new AbortController();
    target = input.value.trim();
    steps = [];
    end = null;
    failure = null;
    speak();
    try {
      const answer = await context.open("_/doctor", { body: { target }, signal: running.signal });
      await readLines(answer, (line) => {
        if (line.done) end = line;
        else steps.push(line);
        drawResult();
      });
    } catch (e) {
      failure = e.name === "AbortError" ? null : refusal(e);
    }
    running = null;
    speak();
  }

  // refusal says why the node did not examine.
  function refusal(e) {
    if (e.status === 403) return { message: t("refused", { message: e.message }) };
    return e.status === 400 ? { message: t("bad", { message: e.message }) } : e;
  }

  async function look() {
    try {
      const state = await context.fetchJSON("_/health");
      const reasons = state.reasons ?? [];
      health.body.replaceChildren(
        el("p", { class: `verdict ${reasons.length > 0 ? "warn" : "good"}` }, t(reasons.length > 0 ? "degraded" : "healthy")),
        el("ul", { class: "troubles" }, reasons.map((r) => el("li", { class: "warn" }, r))),
      );
    } catch (e) {
      health.body.replaceChildren(complaint(context, e));
    }
  }

  form.addEventListener("submit", (e) => {
    e.preventDefault();
    examine();
  });
  health.body.replaceChildren(nothing(t("loading")));
  context.onLanguage(() => {
    speak();
    look();
  });
  speak();
  return {
    show(query) {
      if (query.has("target") && !running) input.value = query.get("target");
      look();
    },
  };
}
