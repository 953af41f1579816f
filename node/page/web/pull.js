// The Pull view: reads the fields, calls reference.js, and shows the result.

import { copy, el } from "./dom.js";
import { pastedTool, proxyAddress, rewrite, tools } from "./reference.js";

const byID = (id) => document.getElementById(id);

export function start(section, { t, onLanguage }) {
  const data = document.documentElement.dataset;
  const image = byID("image");
  const proxy = byID("proxy");
  const radios = [...section.querySelectorAll("input[name=tool]")];
  const configured = { defaultRegistry: data.registry, aliases: JSON.parse(data.aliases) };
  // Without a base_url, the page uses the address that it was loaded from.
  const own = proxyAddress(data.origin || location.origin);
  const home = own.address ?? location.host;

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
    command.replaceChildren(...steps.map((s, i) => el("span", {}, s + (i + 1 < steps.length ? " && " : ""))));
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

  async function copyCommand() {
    const done = await copy(byID("command").textContent, byID("command"));
    byID("copied").textContent = t(done ? "copied" : "copy.failed");
  }

  function choose(tool) {
    for (const r of radios) r.checked = r.value === tool;
  }

  function listen() {
    image.addEventListener("input", () => {
      const tool = pastedTool(image.value);
      if (tool) choose(tool);
      update();
    });
    image.addEventListener("keydown", (e) => {
      if (e.key === "Enter" && !e.isComposing && !byID("copy").disabled) copyCommand();
    });
    proxy.addEventListener("input", update);
    byID("proxy-reset").addEventListener("click", () => {
      proxy.value = home;
      update();
      proxy.focus();
    });
    for (const r of radios) r.addEventListener("change", update);
    byID("copy").addEventListener("click", copyCommand);
    for (const e of section.querySelectorAll("[data-example]")) {
      e.addEventListener("click", () => {
        image.value = e.textContent;
        update();
      });
    }
    onLanguage(update);
  }

  proxy.value = home;
  listen();
  return {
    show(query) {
      const first = new URLSearchParams(location.search); // addresses of earlier versions
      const given = query.get("image") ?? first.get("image");
      if (given !== null && image.value === "") image.value = given;
      const tool = query.get("tool") ?? first.get("tool") ?? pastedTool(image.value);
      if (tools.includes(tool)) choose(tool);
      update();
    },
  };
}
