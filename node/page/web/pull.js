// The Pull view: reads the fields, calls reference.js, and shows the result.

import { startAbout } from "./about.js";
import { copy, el } from "./dom.js";
import { folded } from "./edits.js";
import { pastedTool, proxyAddress, rewrite, tools } from "./reference.js";

const byID = (id) => document.getElementById(id);

// samples are what the buttons of files paste.
const samples = {
  compose: `services:
  web:
    image: nginx:1.27
    ports: ["8080:80"]
  database:
    image: docker.io/library/postgres:\${POSTGRES:-17}
  app:
    build: .
    image: example/app
`,
  dockerfile: `# syntax=docker/dockerfile:1
ARG GO=1.26
FROM --platform=$BUILDPLATFORM golang:\${GO} AS build
WORKDIR /src
COPY . .
RUN go build -o /app .

FROM gcr.io/distroless/static-debian12
COPY --from=build /app /app
ENTRYPOINT ["/app"]
`,
};

export function start(section, context) {
  const { t, onLanguage } = context;
  const data = document.documentElement.dataset;
  const image = byID("image");
  const proxy = byID("proxy");
  const radios = [...section.querySelectorAll("input[name=tool]")];
  const configured = { defaultRegistry: data.registry, aliases: JSON.parse(data.aliases) };
  // Without a base_url, the page uses the address that it was loaded from.
  const own = proxyAddress(data.origin || location.origin);
  const home = own.address ?? location.host;
  const about = startAbout(byID("about"), byID("about-body"), context);
  let rewritten = "";
  let linked = ""; // the query that was shown

  // complain shows why a field's text is refused, or hides the message.
  function complain(field, error) {
    const place = byID(field.id + "-error");
    field.setAttribute("aria-invalid", String(Boolean(error)));
    place.hidden = !error;
    place.textContent = error ? t(error.key, error.values) : "";
  }

  // update shows everything that depends on the fields.
  function update() {
    const address = proxyAddress(proxy.value);
    const scheme = address.scheme || (address.address === own.address ? own.scheme : "");
    const given = image.value.trim() !== "";
    // What is pasted is checked even if the proxy's address is bad.
    const result = given
      ? rewrite(image.value, {
          ...configured,
          tool: radios.find((r) => r.checked).value,
          proxy: address.address ?? "proxy.invalid",
          scheme,
        })
      : {};
    const shown = address.error ? {} : result;
    complain(proxy, address.error);
    complain(image, result.error);
    byID("proxy-reset").hidden = proxy.value === home;
    showCommand(shown.steps ?? [], !shown.document || shown.steps.length > 0);
    showNotes(shown.notes ?? []);
    showDocument(shown.document);
    about.show(address.address === home ? (result.names ?? []) : [], home); // this node knows nothing of others
    grow();
  }

  // grow makes the field as high as its text.
  function grow() {
    const lines = image.value.split("\n").length;
    image.rows = Math.min(lines, 14);
    image.classList.toggle("long", lines > 1);
  }

  function showCommand(steps, wanted) {
    const command = byID("command");
    // The command is one line to copy, but shows each step in its own block.
    command.replaceChildren(...steps.map((s, i) => el("span", {}, s + (i + 1 < steps.length ? " && " : ""))));
    byID("result").hidden = !wanted;
    byID("box").hidden = steps.length === 0;
    byID("empty").hidden = steps.length > 0;
    byID("explain").hidden = steps.length < 2;
    byID("copy").disabled = steps.length === 0;
    byID("copied").textContent = "";
  }

  function showNotes(notes) {
    const list = byID("notes");
    list.replaceChildren(...notes.map((n) => el("li", {}, t(n.key, n.values))));
    list.hidden = notes.length === 0;
  }

  function showDocument(document) {
    rewritten = document?.text ?? "";
    byID("rewritten").hidden = byID("rewritten-below").hidden = !document;
    byID("rewritten-copied").textContent = "";
    if (!document) return;
    const command = document.kind === "command"; // it is shown whole: who copies it runs it
    const lines = command ? document.lines : folded(document.lines);
    byID("diff").classList.toggle("wrapped", command);
    const changed = lines.some((l) => l.before !== l.after);
    byID("diff").replaceChildren(...(changed ? lines.flatMap(diffLines) : [el("p", { class: "empty" }, t("rewritten.same"))]));
    byID("rewritten-hint").textContent = changed ? t("rewritten.hint") : "";
    byID("refusals").replaceChildren(
      ...document.images.filter((i) => i.error).map((i) => el("li", {}, t("line", { line: i.line, reason: t(i.error.key, i.error.values) }))),
    );
  }

  function diffLines(line) {
    if (line.skipped) return [el("p", { class: "gap" }, t("gap", { n: line.skipped }))];
    const row = (sign, name, text) => el("p", { class: name }, el("span", { class: "sign", "aria-hidden": "true" }, sign), el(sign === "-" ? "del" : sign === "+" ? "ins" : "span", {}, text || " "));
    if (line.before === line.after) return [row(" ", "same", line.before)];
    return [row("-", "old", line.before), row("+", "new", line.after)];
  }

  async function copyCommand() {
    const done = await copy(byID("command").textContent, byID("command"));
    byID("copied").textContent = t(done ? "copied" : "copy.failed");
  }

  async function copyRewritten() {
    const done = await copy(rewritten, byID("diff"));
    byID("rewritten-copied").textContent = t(done ? "copied" : "copy.failed");
  }

  function choose(tool) {
    for (const r of radios) r.checked = r.value === tool;
  }

  // paste puts text into the field, and chooses the tool that it names.
  function paste(text) {
    image.value = text;
    const tool = pastedTool(text);
    if (tool) choose(tool);
    update();
  }

  function listen() {
    image.addEventListener("input", () => {
      const tool = pastedTool(image.value);
      if (tool) choose(tool);
      update();
    });
    image.addEventListener("keydown", (e) => {
      const whole = e.ctrlKey || e.metaKey || !image.value.includes("\n");
      if (e.key !== "Enter" || e.shiftKey || e.isComposing || !whole || byID("copy").disabled) return;
      e.preventDefault();
      copyCommand();
    });
    proxy.addEventListener("input", update);
    byID("proxy-reset").addEventListener("click", () => {
      proxy.value = home;
      update();
      proxy.focus();
    });
    for (const r of radios) r.addEventListener("change", update);
    byID("copy").addEventListener("click", copyCommand);
    byID("rewritten-copy").addEventListener("click", copyRewritten);
    for (const e of section.querySelectorAll("[data-example]")) e.addEventListener("click", () => paste(e.textContent));
    for (const e of section.querySelectorAll("[data-sample]")) e.addEventListener("click", () => paste(samples[e.dataset.sample]));
    onLanguage(update);
  }

  // show takes the fields from the address: #/pull?image=…&tool=…, or ?image=… as earlier
  // versions had it.
  function show(query) {
    const first = new URLSearchParams(location.search);
    const from = query.has("image") || query.has("tool") ? query : first;
    if (String(from) !== linked) {
      linked = String(from);
      image.value = from.get("image") ?? image.value;
      const tool = from.get("tool") ?? pastedTool(image.value);
      if (tools.includes(tool)) choose(tool);
    }
    update();
  }

  proxy.value = home;
  listen();
  return { show, hide: about.stop };
}
