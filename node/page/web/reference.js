// Turns what a visitor pastes into the commands that pull it through the proxy, and
// into the same text with names that lead through it. This file and those that it
// imports do not use the DOM, so tests can run them alone.

import { fromAddress } from "./addresses.js";
import { readCommand } from "./commands.js";
import { isDockerfile, readDockerfile } from "./dockerfile.js";
import { Sheet } from "./edits.js";
import { hub, parseName, proxied, suffix } from "./names.js";
import { attempt, refuse } from "./refusal.js";
import { tidy, words } from "./shell.js";
import { remarks, tools, write } from "./steps.js";
import { isYAML, readYAML } from "./yaml.js";

export { pastedTool } from "./commands.js";
export { proxyAddress } from "./names.js";
export { tools };

const longestCommand = 4096; // characters of a command that may be pasted
const longestFile = 200_000; // of a file

const bare = { sudo: false, tool: "", globals: [], verb: "", version: "", flags: { platform: "", quiet: "", all: "" } };

// rewrite turns what was pasted into {steps, notes, path, document} or {error}.
//
// steps are commands; join them with " && ". They are empty for a file with several
// images. notes are sentences: keys of words-pull.js with values. names are the images'
// names behind the proxy, without its address. document is {kind, text, lines, images},
// see Sheet.result; it is there for files, and for commands that do more than pull.
//
// options: tool (one of tools), proxy and scheme (from proxyAddress), defaultRegistry,
// aliases (from a registry to the first part of a path).
export function rewrite(pasted, options) {
  return attempt(() => {
    const text = unfenced(pasted);
    const all = { defaultRegistry: hub, aliases: {}, ...options, tool: tools.includes(options.tool) ? options.tool : tools[0] };
    const kind = kindOf(text);
    if (text.length > (kind === "command" ? longestCommand : longestFile)) refuse("long");
    return kind === "command" ? command(tidy(text), all) : file(kind, text, all);
  });
}

// unfenced removes the fences that Markdown has around code.
function unfenced(text) {
  const m = /^\s*```[\w-]*[ \t]*\r?\n(.*?)\r?\n\s*```\s*$/s.exec(text);
  return m ? m[1] : text;
}

function kindOf(text) {
  if (isDockerfile(text)) return "dockerfile";
  return isYAML(text) ? "yaml" : "command";
}

// command is for a name, a web address or a command. Only the command that was read is
// rewritten: what follows it was not looked at, and a note says that it is left out.
function command(text, options) {
  const { list, cut } = words(text);
  const read = { ...readCommand(list), cut };
  const name = fromAddress(read.word.text);
  const result = forImage(name, read, options);
  if (read.verb) {
    const sheet = new Sheet(text.slice(0, list.at(-1).end), options);
    sheet.lead(slotOf(text, read.word));
    result.document = { kind: "command", ...sheet.result() };
  }
  return result;
}

// slotOf is where the name lies in a word: without quotes and a scheme.
function slotOf(text, word) {
  const raw = text.slice(word.start, word.end);
  const scheme = /^["']?(?:[a-z-]+:\/\/)?/i.exec(raw)[0].length;
  const end = /["',]*$/.exec(raw)[0].length;
  return { start: word.start + scheme, end: word.end - end };
}

// forImage returns the steps and notes for one image.
function forImage(name, read, options) {
  const image = parseName(name, options);
  if (read.flags.all && (image.tag || image.digest)) refuse("allTagsName", { at: read.flags.all });
  const names = proxied(image, options);
  return {
    steps: write(options.tool, read, image, names, options),
    notes: remarks(options.tool, read, image, names, options),
    names: [names.through.slice(options.proxy.length + 1) + suffix(image)],
  };
}

// file is for a file, or a line of one.
function file(kind, text, options) {
  const sheet = new Sheet(text, { ...options, file: true });
  (kind === "yaml" ? readYAML : readDockerfile)(text, sheet);
  const document = { kind, ...sheet.result() };
  const changed = document.images.filter((i) => i.after);
  const names = [...new Set(changed.filter((i) => i.exact).map((i) => i.after.slice(options.proxy.length + 1)))];
  const wrong = document.images.filter((i) => i.error);
  if (changed.length + sheet.kept === 0 && wrong.length === 1) refuse(wrong[0].error.key.replace("error.", ""), wrong[0].error.values);
  if (names.length !== 1 || changed.length !== 1) return { steps: [], notes: [], names, document };
  const { before, after } = changed[0];
  const hubs = after.startsWith(`${options.proxy}/docker.io/`) && !before.includes("docker.io/");
  return { ...forImage((hubs ? "docker.io/" : "") + before, { ...bare, cut: false }, options), names, document };
}
