// The Cache view: the images that the cluster holds, and what may be done with them.

import { el } from "./dom.js";
import { matching, sorted } from "./facts.js";
import { ago, bytes, count } from "./format.js";
import { readLines } from "./lines.js";
import { link } from "./place.js";
import { badge, bar, complaint, nothing, panel, table } from "./parts.js";

const page = 100; // images that are shown at first, and more at a time

export function start(section, context) {
  const { t } = context;
  const n = (value) => count(value, context.language());
  const work = panel(context, "work");
  const list = panel(context, "images", "wide");
  const warm = panel(context, "warm");
  const log = el("ul", { class: "log" });
  const search = el("input", { type: "text", id: "match", autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
  const order = el("select", { id: "order" }, ["name", "size", "used"].map((o) => el("option", { value: o })));
  const summary = el("p", { class: "hint", role: "status" });
  const shown = el("div");
  let answer = null; // of /_/images
  let failure = null;
  let many = page;
  let opened = ""; // the image whose row is open
  let started = false;
  let busy = false; // something is being done: one thing at a time

  work.root.hidden = true;
  work.body.append(log);
  section.append(work.root, list.root, warm.root);
  list.tools.append(button("refresh", look), button("verify", () => act("verify", "_/verify", {})));
  list.body.append(el("div", { class: "search" }, labelled(search, "search"), labelled(order, "order")), summary, shown);

  // labelled is a field with its name before it.
  function labelled(field, key) {
    const label = el("label", { for: field.id });
    const speak = () => {
      label.textContent = t(key);
      if (field === order) for (const o of order.options) o.textContent = t("order." + o.value);
      if (field === search) search.placeholder = t("search.hint");
    };
    context.onLanguage(speak);
    speak();
    return el("div", {}, label, field);
  }

  function button(key, f, kind = "small") {
    const b = el("button", { type: "button", class: kind, click: f }, t(key));
    context.onLanguage(() => (b.textContent = t(key)));
    return b;
  }

  // plain is a button that is drawn anew with its row.
  const plain = (key, f, kind = "small") => el("button", { type: "button", class: kind, click: f }, t(key));

  function drawList() {
    if (failure) return shown.replaceChildren(complaint(context, failure));
    if (!answer) return shown.replaceChildren(nothing(t("loading")));
    const some = sorted(matching(answer.images, search.value), order.value);
    const size = some.reduce((sum, one) => sum + one.held, 0);
    const silent = answer.missing.length > 0 ? " " + t("missing", { names: answer.missing.map((m) => m.name).join(", ") }) : "";
    summary.textContent = answer.images.length > 0 ? t("summary", { n: n(some.length), all: n(answer.images.length), size: bytes(size) }) + silent : silent;
    if (answer.images.length === 0) return shown.replaceChildren(teach());
    if (some.length === 0) return shown.replaceChildren(nothing(t("none.match")));
    const columns = [{ name: t("image") }, { name: t("platforms") }, { name: t("size"), number: true }, { name: t("used") }, { name: "" }];
    const made = table(columns, some.slice(0, many).map(row));
    const rows = [...made.querySelectorAll("tbody tr")];
    some.slice(0, many).forEach((one, i) => {
      if (keyOf(one) === opened) rows[i].after(el("tr", { class: "detail" }, el("td", { colspan: "5" }, detail(one))));
    });
    shown.replaceChildren(made, some.length > many ? plain("more", () => {
      many += page;
      drawList();
    }) : "");
  }

  function teach() {
    const host = document.documentElement.dataset.origin.replace(/^https?:\/\//, "") || location.host;
    return nothing(t("none"), el("p", { class: "hint" }, t("none.try")), el("pre", { class: "inline-code" }, `docker pull ${host}/docker.io/library/alpine`), el("p", {}, el("a", { href: link("setup") }, t("none.setup"))));
  }

  const keyOf = (one) => `${one.image}@${one.digest}`;

  function row(one) {
    const whole = one.held >= one.size;
    const size = whole ? bytes(one.size) : t("held", { held: bytes(one.held), size: bytes(one.size) });
    const open = el("button", { type: "button", class: "quiet", "aria-expanded": String(keyOf(one) === opened), click: () => toggle(one) }, t(keyOf(one) === opened ? "close" : "open"));
    open.setAttribute("aria-label", `${open.textContent}: ${one.image}`);
    return [
      el("span", { class: "who" }, el("span", { class: "name" }, one.image), one.pinned && badge(t("pinned"), "good"), one.stale && badge(t("stale"), "warn")),
      one.platforms.join(", ") || "–", whole ? size : [bar(one.held / Math.max(1, one.size), size), el("span", { class: "under" }, size)],
      one.used ? ago(one.used, context.language()) : t("never"), open,
    ];
  }

  function toggle(one) {
    opened = opened === keyOf(one) ? "" : keyOf(one);
    drawList();
    const open = shown.querySelector("[aria-expanded=true]");
    (open ?? search).focus();
  }

  function detail(one) {
    const holders = el("dd", {}, t("loading"));
    context.fetchJSON("_/owner/" + encodeURIComponent(one.digest)).then(
      (o) => (holders.textContent = o.holders.join(", ") || t("nobody")),
      (e) => (holders.textContent = e.key ? t(e.key, e.values) : e.message),
    );
    const facts = [["digest", el("a", { class: "name", href: link("cluster", { digest: one.digest }) }, one.digest)], ["holders", holders]];
    if (one.checked) facts.push(["checked", ago(one.checked, context.language())]);
    return el("div", {},
      el("dl", { class: "facts" }, facts.flatMap(([key, value]) => [el("dt", {}, t(key)), value.tagName === "DD" ? value : el("dd", {}, value)])),
      el("div", { class: "acts" },
        el("a", { href: link("pull", { image: one.image }) }, t("pull")),
        one.pinned ? plain("unpin", () => act("unpin", "_/unpin", { images: [one.image] })) : plain("pin", () => act("pin", "_/pin", { images: [one.image] })),
        plain("refetch", () => act("warm", "_/warm", { images: [one.image], platforms: one.platforms.filter((p) => p.includes("/")) })),
        plain("purge", () => purge(one.image), "small danger")));
  }

  // say writes a line about what is being done.
  function say(text, level = "") {
    work.root.hidden = false;
    log.append(el("li", { class: level }, text));
    log.lastChild.scrollIntoView({ block: "nearest" });
  }

  // act does something, shows the answer's lines as they come, and looks again.
  async function act(what, path, body) {
    if (busy) return say(t("busy"));
    busy = true;
    log.replaceChildren();
    work.tools.replaceChildren();
    say(t("begin." + what, { name: (body.images ?? []).join(", ") }));
    try {
      const progress = new Map();
      await readLines(await context.open(path, { body }), (l) => tell(l, progress));
    } catch (e) {
      say(refusal(e), "bad");
    }
    busy = false;
    look();
  }

  function refusal(e) {
    if (e.status === 403) return t("refused", { message: e.message });
    return e.key ? t(e.key, e.values) : t("broken", { message: e.message });
  }

  // tell shows a line of an answer. progress has the line of the log for each node.
  function tell(l, progress) {
    const about = l.image ?? l.digest ?? l.pattern ?? l.node ?? "";
    if (l.done) return say(t((l.failed ?? 0) + (l.bad ?? 0) > 0 ? "done.failed" : "done", { n: n(l.images ?? l.blobs ?? 0), failed: n((l.failed ?? 0) + (l.bad ?? 0)) }), (l.failed ?? 0) + (l.bad ?? 0) > 0 ? "bad" : "good");
    if (l.error) return say(`${about}: ${l.error}`, "bad");
    if (!l.node) return say(l.bytes ? `${about} · ${bytes(l.bytes)}` : about);
    const text = t("progress", { node: l.node, blobs: n(l.blobs), of: n(l.of ?? l.blobs), size: bytes(l.bytes) });
    if (!progress.has(l.node)) {
      say(text);
      progress.set(l.node, log.lastChild);
    }
    progress.get(l.node).textContent = text;
  }

  // purge shows first what would go.
  async function purge(image) {
    if (busy) return say(t("busy"));
    log.replaceChildren();
    say(t("begin.dry", { name: image }));
    const plan = [];
    try {
      await readLines(await context.open("_/purge", { body: { patterns: [image], dry_run: true } }), (l) => plan.push(l));
    } catch (e) {
      return say(refusal(e), "bad");
    }
    const end = plan.at(-1);
    for (const l of plan.slice(0, -1)) say(l.error ? `${l.image ?? l.pattern}: ${l.error}` : t("goes", { image: l.image, size: bytes(l.bytes) }), l.error ? "bad" : "");
    if (!end?.images) return work.tools.replaceChildren();
    say(t("dry", { images: n(end.images), blobs: n(end.blobs), size: bytes(end.bytes) }));
    const confirm = plain("confirm", () => act("purge", "_/purge", { patterns: [image] }), "small danger");
    work.tools.replaceChildren(confirm, plain("cancel", () => {
      work.root.hidden = true;
      work.tools.replaceChildren();
    }));
    confirm.focus();
  }

  function makeWarm() {
    const images = el("input", { type: "text", id: "warm-image", autocomplete: "off", autocapitalize: "none", spellcheck: "false", placeholder: "docker.io/library/nginx:1.27" });
    const platforms = el("input", { type: "text", id: "warm-platforms", autocomplete: "off", autocapitalize: "none", spellcheck: "false", value: "linux/amd64" });
    const go = el("button", { type: "submit" }, t("warm.go"));
    context.onLanguage(() => (go.textContent = t("warm.go")));
    const form = el("form", { class: "ask search" }, labelled(images, "warm.image"), labelled(platforms, "warm.platforms"), go);
    const words = (text) => text.split(/[\s,]+/).filter(Boolean);
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      if (words(images.value).length === 0) return images.focus();
      act("warm", "_/warm", { images: words(images.value), platforms: words(platforms.value) });
    });
    const hint = el("p", { class: "hint" }, t("warm.hint"));
    context.onLanguage(() => (hint.textContent = t("warm.hint")));
    warm.body.append(form, hint);
  }

  async function look() {
    try {
      answer = await context.fetchJSON("_/images");
      failure = null;
    } catch (e) {
      failure = e;
    }
    drawList();
  }

  search.addEventListener("input", () => {
    many = page;
    drawList();
  });
  order.addEventListener("change", drawList);
  makeWarm();
  drawList();
  context.onLanguage(drawList);
  return {
    show(query) {
      if (query.has("match") || !started) search.value = query.get("match") ?? "";
      started = true;
      look();
    },
  };
}
