// What a pasted command pulls, of docker, podman, nerdctl, ctr, crictl, helm, skopeo and
// crane.

import { craneOptions, engineOptions, takesValue } from "./options.js";
import { refuse } from "./refusal.js";
import { prompt } from "./shell.js";

const platformPattern = /^[a-z0-9]+\/[a-z0-9_]+(?:\/[a-z0-9_.]+)?$/;
const plainWord = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const endpoint = /^(?:unix:\/\/)?[A-Za-z0-9._/-]+$/;

// engines are the tools that pull, run and tag.
const engine = { groups: ["image", "container"], pull: ["pull"], run: ["run", "create"] };
// grammars say what each tool's commands look like. globals are the options before the
// verb that are kept, with what their values look like. find names how the image is
// found: see finders.
const grammars = {
  docker: { ...engine, globals: { "--context": plainWord } },
  podman: { ...engine, globals: { "--connection": plainWord, "-c": plainWord } },
  nerdctl: { ...engine, globals: { "-n": plainWord, "--namespace": plainWord, "-a": endpoint, "--address": endpoint } },
  ctr: { groups: ["images", "image", "i"], pull: ["pull"], run: [], globals: { "-n": plainWord, "--namespace": plainWord } },
  crictl: { groups: [], pull: ["pull"], run: [], globals: { "-r": endpoint, "--runtime-endpoint": endpoint, "-i": endpoint, "--image-endpoint": endpoint } },
  helm: { groups: ["show", "inspect"], pull: ["pull", "fetch"], run: ["install", "upgrade", "template", "all", "chart", "values", "readme", "crds"], globals: {}, marked: "oci" },
  skopeo: { groups: [], pull: [], run: ["copy", "inspect", "list-tags", "sync"], globals: {}, marked: "docker" },
  crane: { groups: [], pull: ["pull"], run: ["copy", "cp", "digest", "manifest", "config", "ls", "export", "validate", "flatten"], globals: {} },
};

// takeOption takes the value of an option off the list: "--name value" or "--name=value".
function takeOption(word, list) {
  const equals = word.indexOf("=");
  return equals < 0 ? (list.shift()?.text ?? "") : word.slice(equals + 1);
}

// takeGlobals takes the options before the verb.
function takeGlobals(tool, list) {
  const kept = [];
  while (list[0]?.text.startsWith("-")) {
    const word = list[0].text;
    const name = word.split("=")[0];
    const pattern = grammars[tool].globals[name];
    if (!pattern) refuse("notPull", { at: `${tool} ${word}` });
    list.shift();
    const value = takeOption(word, list);
    if (!pattern.test(value)) refuse("flag", { at: word });
    kept.push(name, value);
  }
  return kept;
}

// takeCommand takes "sudo", the tool and the verb off the front of the words, and
// returns {sudo, tool, globals, verb}. tool is "" for a bare name, verb "" for a pull.
function takeCommand(list) {
  const found = { sudo: false, tool: "", globals: [], verb: "" };
  if (list.length < 2) return found; // "docker" alone is an image name
  if (list[0].text === "sudo") {
    found.sudo = true;
    list.shift();
  }
  if (list.length > 1 && Object.hasOwn(grammars, list[0].text)) {
    found.tool = list.shift().text;
    const grammar = grammars[found.tool];
    found.globals = takeGlobals(found.tool, list);
    if (grammar.groups.includes(list[0]?.text) && list.length > 1) list.shift();
    const verb = list.shift()?.text ?? "";
    if (grammar.run.includes(verb)) found.verb = verb;
    else if (!grammar.pull.includes(verb)) refuse("notPull", { at: `${found.tool} ${verb}`.trim() });
  } else if (list[0].text === "pull" && list.length > 1) {
    list.shift();
  }
  return found;
}

// pulled finds the image of a pull. It accepts only these options: any other might
// change what is pulled, or how a shell reads the line.
function pulled(list) {
  const flags = { platform: "", quiet: "", all: "" };
  const rest = [];
  while (list.length > 0) {
    const word = list.shift();
    const name = word.text.split("=")[0];
    if (name === "--platform") flags.platform = platform(takeOption(word.text, list));
    else if (name === "-q" || name === "--quiet") flags.quiet = name;
    else if (name === "-a" || name === "--all-tags") flags.all = name;
    else if (name.startsWith("-")) refuse("flag", { at: word.text });
    else rest.push(word);
  }
  if (rest.length > 1) refuse("words", { at: rest.slice(1).map((w) => w.text).join(" ") });
  return { word: rest[0], flags };
}

function platform(value) {
  if (!platformPattern.test(value)) refuse("platform", { at: value });
  return value;
}

// ran finds the image of "run": the first word that is no option.
function ran(list) {
  const flags = { platform: "", quiet: "", all: "" };
  while (list.length > 0) {
    const word = list.shift();
    if (word.text === "--") return { word: list.shift(), flags };
    if (!word.text.startsWith("-")) return { word, flags };
    if (word.text.split("=")[0] === "--platform") flags.platform = platform(takeOption(word.text, list));
    else if (takesValue(word.text, engineOptions)) list.shift();
  }
  return { word: undefined, flags };
}

// marked finds the image that is written with a scheme before it, as helm and skopeo
// have it, and helm's --version.
function marked(scheme, list, tool) {
  const at = list.findIndex((w) => w.text.toLowerCase().startsWith(scheme + "://"));
  if (at < 0) refuse("scheme", { tool, at: scheme + "://" });
  const version = list.findIndex((w) => /^--version(?:=|$)/.test(w.text));
  const value = version < 0 ? "" : takeOption(list[version].text, list.slice(version + 1));
  return { word: list[at], flags: { platform: "", quiet: "", all: "" }, version: value };
}

// first finds the image that is the first word that is no option, as crane has it. Options
// may come after it too.
function first(list) {
  const flags = { platform: "", quiet: "", all: "" };
  let found;
  while (list.length > 0) {
    const word = list.shift();
    if (word.text.split("=")[0] === "--platform") flags.platform = platform(takeOption(word.text, list));
    else if (found) continue;
    else if (!word.text.startsWith("-")) found = word;
    else if (takesValue(word.text, craneOptions)) list.shift();
  }
  return { word: found, flags };
}

// readCommand reads a command's words, and returns {sudo, tool, globals, verb, word,
// flags, version}. word is the image as it is written, flags are the options that
// count. It may throw a Refusal.
export function readCommand(words) {
  const list = [...words];
  const command = takeCommand(list);
  const grammar = grammars[command.tool];
  let found;
  if (grammar?.marked) found = marked(grammar.marked, list, command.tool);
  else if (command.tool === "crane") found = first(list);
  else found = command.verb ? ran(list) : pulled(list);
  if (!found.word?.text) refuse("noName");
  return { version: "", ...command, ...found };
}

// pastedTool returns the tool at the start of a pasted command, or "".
export function pastedTool(text) {
  const m = /^(?:sudo\s+)?(docker|podman|nerdctl|ctr|crictl|helm|skopeo|crane)\s+[a-z-]/.exec(text.trim().replace(prompt, ""));
  return (m && (m[1] === "ctr" ? "nerdctl" : m[1])) ?? "";
}
