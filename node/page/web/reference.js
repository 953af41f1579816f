// Turns a pasted image name or pull command into the commands that pull the image
// through the proxy. This file does not use the DOM, so tests can run it alone.
//
// Safety: a command is built only from words that match one of the patterns below
// as a whole, and no pattern accepts a character that a shell interprets.

const host = /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/;
const component = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/; // path-component, OCI distribution spec
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const platformPattern = /^[a-z0-9]+\/[a-z0-9_]+(?:\/[a-z0-9_.]+)?$/;
const digestLength = { sha256: 64, sha384: 96, sha512: 128 }; // hex digits
const loopback = /^(?:localhost|127\.[0-9.]+)(?::[0-9]+)?$/;
const hub = "registry-1.docker.io";
const longest = 255; // characters of a name with its registry, as clients count them
const longestText = 4096; // characters that may be pasted

export const tools = ["docker", "podman", "nerdctl"];

// A Refusal carries the key of a sentence in i18n.js, and the values for it.
class Refusal extends Error {
  constructor(key, values = {}) {
    super(key);
    this.key = key;
    this.values = values;
  }
}

function refuse(key, values) {
  throw new Refusal("error." + key, values);
}

// attempt runs f and turns a refusal into {error: {key, values}}.
function attempt(f) {
  try {
    return f();
  } catch (e) {
    if (e instanceof Refusal) return { error: { key: e.key, values: e.values } };
    throw e;
  }
}

// splitPort splits "host:port"; port is "" if there is none. It returns null if the
// text is not a host. It refuses IPv6 addresses: older clients don't accept them in a
// name, and a shell reads their brackets as a pattern.
function splitPort(text) {
  const m = /^(.*?)(?::([0-9]{1,5}))?$/.exec(text);
  if (!m || (m[2] !== undefined && (m[2] < 1 || m[2] > 65535))) return null;
  return host.test(m[1]) ? { host: m[1], port: m[2] ?? "" } : null;
}

// proxyAddress parses the proxy's address as typed, with or without a scheme. It
// returns {address, scheme} or {error}. A host without a dot or port gets its scheme's
// port, because clients take "mirror/nginx" for a name on Docker Hub.
export function proxyAddress(text) {
  return attempt(() => {
    const m = /^(?:(https?):\/\/)?(.*?)\/*$/is.exec(text.trim());
    const scheme = (m?.[1] ?? "").toLowerCase();
    const name = (m?.[2] ?? "").toLowerCase();
    if (name === "") refuse("proxyEmpty");
    if (name.startsWith("[")) refuse("proxy6");
    const parts = splitPort(name);
    if (!parts) refuse("proxy", { at: m[2] });
    const clear = parts.port || parts.host.includes(".") || parts.host === "localhost";
    if (clear) return { address: name, scheme };
    if (!scheme) refuse("proxyShort", { at: name, fix: name + ":80" });
    return { address: name + (scheme === "http" ? ":80" : ":443"), scheme };
  });
}

// firstLine returns the first command of a text. It joins continued lines, and cuts
// at the end of a line or at a shell's separator. cut reports that something other
// than a comment was cut off.
function firstLine(text) {
  const line = text
    .replace(/[\u200b-\u200d\u2060\ufeff]/g, "")
    .replace(/\\\r?\n/g, " ")
    .trim()
    .replace(/^[$#>%]\s+/, "");
  const end = line.search(/[\r\n;&|]|\s#/);
  const first = end < 0 ? line : line.slice(0, end).trim();
  const comment = end >= 0 && /^\s*#/.test(line.slice(end));
  return { first, cut: end >= 0 && !comment && /\S/.test(line.slice(end).replace(/^[;&|\s]+/, "")) };
}

// words splits a line into words, without quotes and trailing commas.
function words(line) {
  return line
    .replace(/["'`\u2018\u2019\u201c\u201d]/g, "")
    .split(/\s+/)
    .map((w) => w.replace(/[,\uff0c\u3002]+$/, ""))
    .filter(Boolean);
}

// skipCommand removes "sudo", the tool and "pull" from the front of list.
function skipCommand(list) {
  const found = { sudo: false, tool: "" };
  if (list.length < 2) return found; // "docker" alone is an image name
  if (list[0] === "sudo") {
    found.sudo = true;
    list.shift();
  }
  if (list.length > 1 && tools.includes(list[0])) {
    found.tool = list.shift();
    if (list[0] === "image") list.shift();
    if (list[0] !== "pull") refuse("notPull", { at: `${found.tool} ${list[0] ?? ""}`.trim() });
  }
  if (list[0] === "pull" && (found.tool || list.length > 1)) list.shift();
  return found;
}

// takeFlags removes the options from list. It accepts only these: any other might
// change what is pulled, or how a shell reads the line.
function takeFlags(list) {
  const flags = { platform: "", quiet: "", all: "" };
  const rest = [];
  while (list.length > 0) {
    const word = list.shift();
    if (word === "--platform" || word.startsWith("--platform=")) {
      const value = word === "--platform" ? (list.shift() ?? "") : word.slice("--platform=".length);
      if (!platformPattern.test(value)) refuse("platform", { at: value });
      flags.platform = value;
    } else if (word === "-q" || word === "--quiet") {
      flags.quiet = word;
    } else if (word === "-a" || word === "--all-tags") {
      flags.all = word;
    } else if (word.startsWith("-")) {
      refuse("flag", { at: word });
    } else {
      rest.push(word);
    }
  }
  return { flags, rest };
}

// plainName removes what browsers and other tools put around a name.
function plainName(word) {
  const m = /^(https?|docker|oci):\/\/(.*)$/i.exec(word);
  if (!m) return word;
  const name = m[1].toLowerCase().startsWith("http") ? m[2].replace(/[?#].*$/, "").replace(/\/+$/, "") : m[2];
  const page = /^hub\.docker\.com\/(?:_|r)\/([^/]+(?:\/[^/]+)?)(?:\/tags)?$/.exec(name);
  return page ? page[1].replace(/\/tags$/, "") : name;
}

// splitReference splits name[:tag][@digest], and checks the tag and the digest.
function splitReference(word) {
  if (word.startsWith("[")) refuse("registry6", { at: word.split("/")[0] });
  const strange = /[^A-Za-z0-9._:/@-]/u.exec(word);
  if (strange) refuse("character", { at: strange[0] });
  const at = word.indexOf("@");
  const digest = at < 0 ? "" : word.slice(at + 1);
  let name = at < 0 ? word : word.slice(0, at);
  if (at >= 0) checkDigest(digest);
  let tag = "";
  const colon = name.indexOf(":", name.lastIndexOf("/") + 1);
  if (colon >= 0) {
    tag = name.slice(colon + 1);
    name = name.slice(0, colon);
    if (tag === "") refuse("tagEmpty");
    if (!tagPattern.test(tag)) refuse("tag", { at: tag });
  }
  return { name, tag, digest };
}

function checkDigest(digest) {
  const m = /^([a-z0-9]+):([0-9a-f]+)$/.exec(digest);
  if (!m || digestLength[m[1]] !== m[2].length) refuse("digest", { at: digest });
}

// splitName splits a name into registry ("" if there is none) and repository. The
// first part is a registry if it has a dot or a colon, or is localhost.
function splitName(name, tag) {
  const slash = name.indexOf("/");
  const first = slash < 0 ? name : name.slice(0, slash);
  const isRegistry = /[.:]/.test(first) || first.toLowerCase() === "localhost";
  if (!isRegistry) return { registry: "", repository: name };
  if (slash < 0) refuse("onlyRegistry", { at: tag ? `${first}:${tag}` : first });
  const registry = first.toLowerCase(); // hosts ignore case, but a path must be lower case
  if (!splitPort(registry)) refuse("registry", { at: first });
  if (slash === name.length - 1) refuse("onlyRegistry", { at: first });
  return { registry, repository: name.slice(slash + 1) };
}

function checkRepository(repository, registry) {
  if (/[A-Z]/.test(repository)) refuse("upper", { at: repository, fix: repository.toLowerCase() });
  for (const part of repository.split("/")) {
    if (part === "") refuse("emptyPart");
    if (!component.test(part)) refuse("part", { at: part });
  }
  if (!registry && /^[0-9a-f]{64}$/.test(repository)) refuse("imageID");
}

// fromProxy returns the usual name of a name that already leads through the proxy, so
// a command that is pasted back does not get the proxy's address twice.
function fromProxy(name, proxy, aliases) {
  if (!name.toLowerCase().startsWith(proxy + "/")) return name;
  const rest = name.slice(proxy.length + 1);
  const slash = rest.indexOf("/");
  if (slash < 0) return rest;
  const first = rest.slice(0, slash);
  const registry = Object.keys(aliases).find((r) => aliases[r] === first) ?? first.replace(/_([0-9]+)$/, ":$1");
  return registry + rest.slice(slash);
}

// inPath returns a registry as the first part of a path, in which clients allow no
// port.
function inPath(registry, aliases) {
  const parts = splitPort(registry);
  if (parts && !parts.port) return registry;
  const alias = Object.hasOwn(aliases, registry) ? aliases[registry] : "";
  if (component.test(alias)) return alias;
  if (!parts) refuse("registry6", { at: registry });
  return `${parts.host}_${parts.port}`;
}

// parse parses what was pasted and returns {tool, sudo, flags, registry, repository,
// tag, digest, cut}. It may throw a Refusal.
function parse(text, proxy, aliases) {
  if (text.length > longestText) refuse("long");
  const { first, cut } = firstLine(text);
  const list = words(first);
  const { tool, sudo } = skipCommand(list);
  const { flags, rest } = takeFlags(list);
  if (rest.length === 0) refuse("noName");
  if (rest.length > 1) refuse("words", { at: rest.slice(1).join(" ") });
  const word = plainName(rest[0]);
  if (word.toLowerCase().replace(/\/+$/, "") === proxy) refuse("onlyRegistry", { at: proxy });
  const { name, tag, digest } = splitReference(word);
  if (name === "") refuse("noName");
  const { registry, repository } = splitName(fromProxy(name, proxy, aliases), tag);
  checkRepository(repository, registry);
  if (flags.all && (tag || digest)) refuse("allTagsName", { at: flags.all });
  return { tool, sudo, flags, registry, repository, tag, digest, cut };
}

// pastedTool returns the tool at the start of a pasted command, or "".
export function pastedTool(text) {
  const m = /^\s*(?:[$#>%]\s+)?(?:sudo\s+)?(docker|podman|nerdctl)\s+(?:image\s+)?pull\s/.exec(text);
  return m ? m[1] : "";
}

// names returns the image's proxied name and its usual one.
function names(image, proxy, defaultRegistry, aliases) {
  let path = image.repository;
  if (image.registry) {
    path = `${inPath(image.registry, aliases)}/${path}`;
  } else if (path.includes("/") && Object.values(aliases).includes(path.split("/")[0])) {
    // Behind the proxy, this first part would mean another registry.
    path = `${defaultRegistry === hub ? "docker.io" : inPath(defaultRegistry, aliases)}/${path}`;
  }
  const through = `${proxy}/${path}`;
  if (through.length > longest) refuse("long");
  const own = image.registry ? `${image.registry}/${image.repository}` : image.repository;
  return { through, own };
}

// remarks returns the notes to show with the command: keys of i18n.js with values.
function remarks(image, tool, through, own, options) {
  const list = [];
  const note = (key, values = {}) => list.push({ key: "note." + key, values });
  if (image.cut) note("first");
  if (image.flags.all) note("allTags");
  else if (image.digest && !image.tag) note("digest", { tool });
  else if (image.digest) note("digestTag", { tag: image.tag });
  if (splitPort(image.registry || "localhost").port) {
    note("port", { registry: image.registry, path: through.slice(options.proxy.length + 1).split("/")[0] });
  }
  if (!image.registry && options.defaultRegistry !== hub) {
    note("default", { registry: options.defaultRegistry, fix: "docker.io/" + own });
  }
  const tagged = !image.flags.all && (image.tag || !image.digest);
  if (tool === "podman" && tagged && !image.registry && options.defaultRegistry === hub) {
    note("podman", { fix: "docker.io/" + (own.includes("/") ? own : "library/" + own) });
  }
  if (options.scheme === "http" && (tool === "podman" || !loopback.test(options.proxy))) {
    note("http." + tool, { proxy: options.proxy }); // docker and nerdctl trust loopback anyway
  }
  return list;
}

// steps returns the commands to run, in order.
//
// With a digest, the proxied name has no tag: older podman refuses both together, and
// the digest alone decides what is pulled. No tool can tag with a digest, so without a
// tag the image keeps its proxied name.
function steps(image, tool, through, own) {
  const { flags, tag, digest } = image;
  const options = [flags.platform && `--platform ${flags.platform}`, flags.quiet, flags.all].filter(Boolean);
  const run = (image.sudo ? "sudo " : "") + tool;
  const from = through + (digest ? `@${digest}` : tag && `:${tag}`);
  const pull = [run, "pull", ...options, from].join(" ");
  if (flags.all || (digest && !tag)) return [pull];
  const to = own + (tag && `:${tag}`);
  return [pull, `${run} tag ${from} ${to}`, `${run} rmi ${from}`];
}

// rewrite turns text, a pasted image name or pull command, into {steps, notes} or
// {error}. Join the steps with " && ". options: tool (one of tools), proxy and scheme
// (from proxyAddress), defaultRegistry, aliases (from a registry to the first part of
// a path).
export function rewrite(text, options) {
  return attempt(() => {
    const tool = tools.includes(options.tool) ? options.tool : tools[0];
    const all = { defaultRegistry: hub, aliases: {}, ...options };
    const image = parse(text, all.proxy, all.aliases);
    if (tool === "nerdctl" && image.flags.all) refuse("allTagsTool", { tool, at: image.flags.all });
    const { through, own } = names(image, all.proxy, all.defaultRegistry, all.aliases);
    return {
      steps: steps(image, tool, through, own),
      notes: remarks(image, tool, through, own, all),
    };
  });
}
