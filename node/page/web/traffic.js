// The Traffic view: what flows now, the last hour, and how the registries do.

import { ceiling, line, stack, svg } from "./chart.js";
import { el } from "./dom.js";
import { byImage, totals } from "./facts.js";
import { ago, bytes, count } from "./format.js";
import { link } from "./place.js";
import { badge, bar, complaint, light, nothing, panel, table, tile } from "./parts.js";

const every = 10000; // ms from one look at the whole cluster to the next
const series = ["hit_bytes", "peer_hit_bytes", "miss_bytes"]; // from the bottom
const kinds = { hit_bytes: "hit", peer_hit_bytes: "peer", miss_bytes: "miss" };
const sources = { hit: "good", checked: "good", peer: "peer", miss: "miss", collapsed: "miss", stale: "warn", waiting: "calm" };

// milliseconds is a time as people read it.
function milliseconds(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10000 ? 0 : 1)} s`;
  return `${ms >= 10 ? Math.round(ms) : ms.toFixed(1)} ms`;
}

// drawHour draws the bars of an hour. It returns a figure.
export function drawHour(context, hour) {
  const { t } = context;
  const width = 720;
  const height = 160;
  const columns = hour.requests.length;
  const sums = hour.requests.map((_, i) => series.reduce((sum, name) => sum + hour[name][i], 0));
  const top = ceiling(Math.max(...sums, 1024));
  const step = width / columns;
  const bars = stack(series.map((name) => hour[name]), top, height).map((parts, i) => {
    const made = parts.filter((p) => p.height > 0).map((p) => svg("rect", { x: i * step + 1, width: step - 2, y: p.y, height: Math.max(1, p.height), class: kinds[series[p.series]] }));
    const minutes = columns - 1 - i;
    const figures = { ago: count(minutes, context.language()), sent: bytes(sums[i]), requests: count(hour.requests[i], context.language()), first: hour.requests[i] ? milliseconds(hour.first_byte_p50_ms[i]) : "–" };
    const about = svg("rect", { x: i * step, width: step, y: 0, height, class: "touch" }, svg("title", {}, t(minutes === 0 ? "hour.now" : "hour.minute", figures)));
    return svg("g", {}, made, about);
  });
  const lines = [0, 0.5, 1].map((part) => svg("line", { x1: 0, x2: width, y1: height - part * height, y2: height - part * height, class: "grid" }));
  const total = sums.reduce((a, b) => a + b, 0);
  const label = t("hour.label", { total: bytes(total), requests: count(hour.whole.requests, context.language()) });
  return el("figure", { class: "chart" },
    el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, bytes(top)), el("span", {}, bytes(top / 2)), el("span", {}, "0")),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, lines, bars),
    el("div", { class: "times", "aria-hidden": "true" }, ["60", "45", "30", "15"].map((n) => el("span", {}, t("hour.back", { n }))), el("span", {}, t("now"))));
}

// drawFirst draws the times to the first byte.
function drawFirst(context, hour) {
  const { t } = context;
  const width = 720;
  const height = 60;
  const top = Math.max(1, ...hour.first_byte_p95_ms);
  const label = t("first.label", { half: milliseconds(hour.whole.first_byte_p50_ms), slow: milliseconds(hour.whole.first_byte_p95_ms) });
  const dots = (values, kind) => values.map((v, i) => (v > 0 ? svg("path", { d: `M${(i + 0.5) * (width / values.length)} ${height - (v / top) * height}h0`, class: `dot-of ${kind}` }) : null)).filter(Boolean);
  return el("figure", { class: "chart low" },
    el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, milliseconds(top)), el("span", {}, "0")),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
      svg("line", { x1: 0, x2: width, y1: height, y2: height, class: "grid" }),
      svg("path", { d: line(hour.first_byte_p95_ms, top, width, height), class: "line p95" }), dots(hour.first_byte_p95_ms, "p95"),
      svg("path", { d: line(hour.first_byte_p50_ms, top, width, height), class: "line p50" }), dots(hour.first_byte_p50_ms, "p50")));
}

export function start(section, context) {
  const { t } = context;
  const n = (value) => count(value, context.language());
  const live = light(context);
  const now = panel(context, "now.title");
  const pulls = panel(context, "pulls");
  const hour = panel(context, "hour");
  const registries = panel(context, "registries");
  const state = { figures: null, rate: 0, hour: null, pulls: null, upstreams: null, stats: null, nodes: "", node: "", admin: false, failure: null };
  let stop = null;
  let timer = 0;

  section.querySelector(".lead").after(live.root);
  section.append(now.root, pulls.root, hour.root, registries.root);

  function drawNow() {
    if (state.failure) return now.body.replaceChildren(complaint(context, state.failure));
    if (!state.figures || !state.stats) return now.body.replaceChildren(nothing(t("loading")));
    const all = totals(state.stats);
    const whole = state.hour?.whole;
    const percent = new Intl.NumberFormat(context.language(), { style: "percent", maximumFractionDigits: 1 }).format(all.ratio);
    now.body.replaceChildren(el("dl", { class: "tiles" },
      tile(t("rate"), `${bytes(state.rate)}/s`, t("rate.node", { node: state.node })),
      tile(t("active"), n(state.figures.pulls), state.figures.waiting > 0 ? t("active.waiting", { n: n(state.figures.waiting) }) : t(state.figures.downloads === 1 ? "active.downloads.one" : "active.downloads", { n: n(state.figures.downloads) })),
      tile(t("saved"), bytes(all.saved), t("saved.of", { sent: bytes(all.bytes), nodes: state.nodes })),
      tile(t("hits"), all.all > 0 ? percent : "–", t("hits.of", { hits: n(all.pulls), all: n(all.all) })),
      tile(t("first"), whole?.requests ? milliseconds(whole.first_byte_p50_ms) : "–", whole?.requests ? t("first.p95", { slow: milliseconds(whole.first_byte_p95_ms) }) : t("first.none")),
    ));
  }

  function drawPulls() {
    const images = byImage(state.pulls?.pulls ?? []);
    if (images.length === 0) {
      const host = document.documentElement.dataset.origin.replace(/^https?:\/\//, "") || location.host;
      const idle = state.stats && totals(state.stats).all > 0;
      pulls.body.replaceChildren(nothing(t(idle ? "pulls.idle" : "pulls.never"), idle ? el("p", { class: "hint" }, t("pulls.here", { node: state.node })) : [
        el("p", { class: "hint" }, t("pulls.try")), el("pre", { class: "inline-code" }, `docker pull ${host}/docker.io/library/alpine`), el("p", {}, el("a", { href: link("setup") }, t("pulls.setup"))),
      ]));
      return;
    }
    const rows = images.map((one) => el("li", { class: "pull" },
      el("div", { class: "pull-head" }, el("strong", { class: "name" }, one.name), el("span", {}, [...one.sources].map((s) => badge(t("source." + s), sources[s] ?? "calm")))),
      one.total > 0 ? bar(one.done / one.total, t("progress", { done: bytes(one.done), total: bytes(one.total) })) : bar(0, t("progress.unknown", { done: bytes(one.done) }), "unknown"),
      el("div", { class: "pull-foot" },
        el("span", {}, one.total >= 0 ? t("progress", { done: bytes(one.done), total: bytes(one.total) }) : t("progress.unknown", { done: bytes(one.done) })),
        el("span", {}, t(one.parts.length === 1 ? "parts.one" : "parts", { n: n(one.parts.length) })),
        el("span", {}, t(one.waiters === 1 ? "clients.one" : "clients", { n: n(one.waiters) })),
        one.hosts.size > 0 && el("span", {}, t("from", { hosts: [...one.hosts].join(", ") })))));
    const more = state.pulls.more > 0 ? el("p", { class: "hint" }, t("pulls.more", { n: n(state.pulls.more) })) : "";
    pulls.body.replaceChildren(el("ul", { class: "pulls" }, rows), more);
  }

  function drawHours() {
    if (!state.hour) return hour.body.replaceChildren(nothing(t("loading")));
    const key = (kind, text) => el("li", {}, el("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), text);
    const partial = state.hour.nodes < state.hour.known ? t("hour.partial", { nodes: n(state.hour.nodes), known: n(state.hour.known) }) : t(state.hour.known === 1 ? "hour.one" : "hour.all", { known: n(state.hour.known) });
    hour.body.replaceChildren(
      el("ul", { class: "legend flat" }, ["hit", "peer", "miss"].map((kind) => key(kind, t("kind." + kind)))),
      drawHour(context, state.hour),
      el("p", { class: "hint" }, partial),
      el("h3", {}, t("first.title")),
      el("ul", { class: "legend flat" }, key("p50", t("first.half")), key("p95", t("first.most"))),
      drawFirst(context, state.hour));
  }

  function drawRegistries() {
    const rows = state.upstreams;
    if (!rows) return registries.body.replaceChildren(nothing(t("loading")));
    if (rows.length === 0) return registries.body.replaceChildren(nothing(t("registries.none"), el("p", { class: "hint" }, t("registries.when"))));
    const columns = [{ name: t("registry") }, { name: t("state") }, { name: t("latency"), number: true }, { name: t("limit") }, { name: t("error") }];
    registries.body.replaceChildren(table(columns, rows.map(registryRow)));
  }

  function registryRow(r) {
    const level = { up: "good", limited: "warn", down: "bad" }[r.state] ?? "calm";
    const name = [el("strong", {}, r.registry), r.host !== r.registry && el("span", { class: "under" }, t("mirror", { host: r.host }))];
    const known = r.rate_limit !== null && r.rate_limit !== undefined;
    const reset = known ? new Date(r.rate_reset).getTime() : 0;
    const limit = known ? [
      bar(r.rate_remaining / r.rate_limit, t("limit.left", { left: n(r.rate_remaining), limit: n(r.rate_limit) }), r.rate_remaining * 5 < r.rate_limit ? "full" : ""),
      el("span", { class: "under" }, t("limit.left", { left: n(r.rate_remaining), limit: n(r.rate_limit) }), reset > Date.now() ? " · " + t("limit.reset", { when: ago(reset, context.language()) }) : ""),
    ] : el("span", { class: "soft" }, t("limit.none"));
    const examine = el("a", { href: link("doctor", { target: r.host }) }, t("examine"));
    return [
      el("span", { class: "who" }, name), [badge(t("state." + r.state), level), el("span", { class: "under" }, ago(r.since, context.language()))],
      r.latency_ms > 0 ? milliseconds(r.latency_ms) : "–", limit,
      el("span", { class: "wrong" }, r.last_error || el("span", { class: "soft" }, t("error.none")), " ", r.state === "up" ? "" : examine),
    ];
  }

  function draw() {
    drawNow();
    drawPulls();
    drawHours();
    drawRegistries();
  }

  // hearFigures computes the rate from the counters of two moments.
  function hearFigures(f) {
    const before = state.figures;
    const sent = (x) => x.hit_bytes + x.peer_hit_bytes + x.miss_bytes;
    const seconds = before ? (new Date(f.time) - new Date(before.time)) / 1000 : 0;
    state.rate = seconds > 0 ? Math.max(0, sent(f) - sent(before)) / seconds : 0;
    state.figures = f;
    drawNow();
  }

  const heard = {
    open: live.open,
    error: live.error,
    hello(h) {
      live.open();
      Object.assign(state, { node: h.node, admin: h.admin, figures: null });
    },
    figures: hearFigures,
    pulls(p) {
      state.pulls = p;
      drawPulls();
    },
    hour(h) {
      state.hour = h;
      drawNow();
      drawHours();
    },
    upstreams(rows) {
      state.upstreams = rows;
      drawRegistries();
    },
  };

  async function look() {
    clearTimeout(timer);
    try {
      const answer = await context.open("_/stats");
      state.nodes = answer.headers.get("X-Cluster-Nodes") ?? "";
      state.stats = await answer.json();
      state.failure = null;
    } catch (e) {
      state.failure = e;
    }
    for (const p of [pulls, hour, registries]) p.root.hidden = !state.stats;
    draw();
    if (stop) timer = setTimeout(look, every);
  }

  now.body.replaceChildren(nothing(t("loading")));
  context.onLanguage(draw);
  return {
    async show() {
      if (stop) return;
      stop = () => {};
      await look(); // first, so that a browser asks for a login once
      if (stop) stop = context.subscribe(heard);
    },
    hide() {
      stop?.();
      stop = null;
      clearTimeout(timer);
    },
  };
}
