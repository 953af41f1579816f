// The Cluster view: the members, the ring, where a digest lives, and how to add a node.

import { slice, slices, svg } from "./chart.js";
import { el } from "./dom.js";
import { disk, joinConfig, served, troubles } from "./facts.js";
import { ago, bytes, count } from "./format.js";
import { badge, bar, code, complaint, light, nothing, panel, table } from "./parts.js";

const levels = { active: "good", restarting: "warn", draining: "warn", down: "bad", gone: "bad" };
const every = 10000; // ms from one look to the next
const recent = 5; // minutes of traffic that are shown

export function start(section, context) {
  const { t } = context;
  const live = light(context);
  const health = panel(context, "health");
  const ring = panel(context, "ring");
  const members = panel(context, "members", "wide");
  const where = panel(context, "where");
  const add = panel(context, "add");
  const finder = makeFinder();
  let cluster = null;
  let failure = null;
  let found = null; // the answer about a digest
  let stop = null;
  let timer = 0;
  let marked = "";

  section.querySelector(".lead").after(live.root);
  section.append(health.root, el("div", { class: "pair" }, ring.root, where.root), members.root, add.root);
  where.body.append(finder.form, finder.answer);

  // lone reports whether this node is no member of any cluster.
  const lone = () => cluster.ring === "";

  function drawHealth() {
    if (failure) return health.body.replaceChildren(complaint(context, failure));
    const all = troubles(cluster);
    const answered = cluster.members.filter((m) => m.stats).length;
    const known = cluster.members.filter((m) => m.state !== "gone").length;
    const words = lone() ? t("lone") : t("answer", { answered: count(answered, context.language()), known: count(known, context.language()) });
    const level = all.some((x) => x.level === "bad") ? "bad" : all.length > 0 ? "warn" : "good";
    health.body.replaceChildren(
      el("p", { class: `verdict ${level}` }, el("span", {}, words), all.length === 0 && !lone() && el("span", {}, t("agree"))),
      el("ul", { class: "troubles" }, all.map((x) => el("li", { class: x.level }, t(x.key, x.values)))),
    );
  }

  function drawRing() {
    const shown = cluster.members.filter((m) => m.share > 0);
    const parts = slices(shown.map((m) => m.share));
    const holds = (m) => found && (found.holders ?? []).includes(m.name);
    const paths = shown.map((m, i) => {
      const owns = found && found.owner === m.name;
      const p = svg("path", { d: slice(parts[i].from, parts[i].to, owns ? 100 : 92, 62), class: `member m${i % 8}${shown.length === 1 ? " whole" : ""}${found && !owns && !holds(m) ? " dim" : ""}` });
      p.append(svg("title", {}, `${m.name}: ${percent(m.share)}`));
      return p;
    });
    const label = t("ring.label", { names: shown.map((m) => `${m.name} ${percent(m.share)}`).join(", ") });
    const middle = [
      svg("text", { y: "-2", class: "ring-number" }, count(shown.length, context.language())),
      svg("text", { y: "18", class: "ring-word" }, t(shown.length === 1 ? "ring.one" : "ring.many")),
    ];
    const legend = shown.map((m, i) => el("li", {}, el("span", { class: `swatch m${i % 8}`, "aria-hidden": "true" }), el("span", { class: "name" }, m.name), el("span", { class: "number" }, percent(m.share))));
    ring.body.replaceChildren(
      el("div", { class: "ring" }, svg("svg", { viewBox: "-104 -104 208 208", role: "img", "aria-label": label }, paths, middle), el("ul", { class: "legend" }, legend)),
      el("p", { class: "hint" }, lone() ? t("ring.lone") : t("ring.hint", { ring: cluster.ring })),
    );
  }

  function percent(share) {
    return new Intl.NumberFormat(context.language(), { style: "percent", maximumFractionDigits: 1 }).format(share);
  }

  function drawMembers() {
    const columns = [
      { name: t("member") }, { name: t("state") }, { name: t("version") }, { name: t("zone") },
      { name: t("share"), number: true }, { name: t("disk") }, { name: t("traffic", { minutes: recent }), number: true }, { name: t("pulls"), number: true },
    ];
    members.body.replaceChildren(table(columns, cluster.members.map(row)));
  }

  function row(m) {
    const { used, most } = disk(m.stats);
    const size = !m.stats ? "–" : most > 0 ? t("disk.of", { used: bytes(used), most: bytes(most) }) : bytes(used);
    const diskCell = m.stats && most > 0 ? [bar(used / most, size, used / most > 0.95 ? "full" : ""), el("span", { class: "under" }, size)] : size;
    const since = ago(m.since, context.language());
    return [
      el("span", { class: "who" }, el("strong", {}, m.name), m.self && el("span", { class: "under" }, t("self"))),
      el("span", {}, badge(t("state." + m.state), levels[m.state] ?? "calm"), el("span", { class: "under" }, since)),
      m.version || "–", m.zone || "–", m.share > 0 ? percent(m.share) : "–", diskCell,
      m.stats?.hour ? bytes(served(m.stats, recent)) : "–", m.stats ? count(m.stats.pulls ?? 0, context.language()) : "–",
    ];
  }

  function drawAdd() {
    const steps = lone() ? ["add.lone", "add.secret", "add.config", "add.open"] : ["add.same", "add.config", "add.open"];
    add.body.replaceChildren(
      el("ol", { class: "steps" }, steps.map((key) => el("li", {}, t(key)))),
      code(context, joinConfig(cluster, location.hostname)),
      code(context, "oci-proxy check -live -c /etc/oci-proxy/config.yaml\noci-proxy serve -c /etc/oci-proxy/config.yaml"),
    );
  }

  function makeFinder() {
    const input = el("input", { type: "text", id: "digest", autocomplete: "off", autocapitalize: "none", spellcheck: "false", placeholder: "sha256:…" });
    const label = el("label", { for: "digest" });
    const button = el("button", { type: "submit" });
    const answer = el("div", { class: "found", role: "status" });
    const form = el("form", { class: "ask" }, label, el("div", { class: "field" }, input, button));
    const speak = () => {
      label.textContent = t("digest");
      button.textContent = t("find");
    };
    context.onLanguage(speak);
    speak();
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      location.hash = `#/cluster?digest=${encodeURIComponent(input.value.trim())}`;
    });
    return { form, input, answer };
  }

  async function find(digest) {
    marked = digest;
    finder.input.value = digest;
    found = null;
    if (digest === "") finder.answer.replaceChildren(el("p", { class: "hint" }, t("find.hint")));
    try {
      if (digest) found = await context.fetchJSON("_/owner/" + encodeURIComponent(digest));
      if (marked === digest) drawFound();
    } catch (e) {
      if (marked === digest) finder.answer.replaceChildren(e.status === 400 ? el("p", { class: "complaint" }, t("find.bad")) : complaint(context, e));
    }
    if (cluster) drawRing();
  }

  function drawFound() {
    if (!found) return;
    const names = (list) => (list.length > 0 ? list.join(", ") : t("find.nobody"));
    const rows = [["find.owner", found.owner], ["find.next", names(found.next)], ["find.holders", names(found.holders)]];
    if (found.missing.length > 0) rows.push(["find.missing", found.missing.map((m) => m.name).join(", ")]);
    finder.answer.replaceChildren(el("dl", { class: "facts" }, rows.flatMap(([key, value]) => [el("dt", {}, t(key)), el("dd", {}, value)])));
  }

  function draw() {
    drawHealth();
    if (!cluster) return;
    drawRing();
    drawMembers();
    drawAdd();
    drawFound();
  }

  async function look() {
    clearTimeout(timer);
    try {
      cluster = await context.fetchJSON("_/cluster");
      failure = null;
    } catch (e) {
      failure = e;
    }
    for (const p of [ring, where, members, add]) p.root.hidden = !cluster;
    draw();
    if (stop) timer = setTimeout(look, every);
  }

  health.body.replaceChildren(nothing(t("loading")));
  context.onLanguage(() => {
    if (cluster || failure) draw();
    if (marked === "") find("");
  });
  return {
    async show(query) {
      if (!stop) {
        stop = () => {};
        await look(); // first, so that a browser asks for a login once
        if (stop) stop = context.subscribe({ open: live.open, error: live.error, hello: live.open, members: () => look() });
      }
      find(query.get("digest") ?? "");
    },
    hide() {
      stop?.();
      stop = null;
      clearTimeout(timer);
    },
  };
}
