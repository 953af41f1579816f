// Names of images: what they are made of, and what they are called behind the proxy.
// This file does not use the DOM, so tests can run it alone.

import { attempt, refuse } from "./refusal.js";

const host = /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/;
const component = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/; // path-component, OCI distribution spec
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const digestLength = { sha256: 64, sha384: 96, sha512: 128 }; // hex digits
const longest = 255; // characters of a name with its registry, as clients count them

export const hub = "registry-1.docker.io";

// splitPort splits "host:port"; port is "" if there is none. It returns null if the
// text is not a host. It refuses IPv6 addresses: older clients don't accept them in a
// name, and a shell reads their brackets as a pattern.
export function splitPort(text) {
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
export function inPath(registry, aliases) {
  const parts = splitPort(registry);
  if (parts && !parts.port) return registry;
  const alias = Object.hasOwn(aliases, registry) ? aliases[registry] : "";
  if (component.test(alias)) return alias;
  if (!parts) refuse("registry6", { at: registry });
  return `${parts.host}_${parts.port}`;
}

// parseName parses an image's name and returns {registry, repository, tag, digest}. It
// may throw a Refusal. options: proxy, aliases (see rewrite in reference.js).
export function parseName(word, { proxy, aliases }) {
  if (word.toLowerCase().replace(/\/+$/, "") === proxy) refuse("onlyRegistry", { at: proxy });
  const { name, tag, digest } = splitReference(word);
  if (name === "") refuse("noName");
  const { registry, repository } = splitName(fromProxy(name, proxy, aliases), tag);
  checkRepository(repository, registry);
  return { registry, repository, tag, digest };
}

// proxied returns the image's name behind the proxy (through) and its usual one (own),
// both without tag and digest.
export function proxied(image, { proxy, defaultRegistry, aliases }) {
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

// suffix is what follows a name: [:tag][@digest].
export function suffix({ tag, digest }) {
  return (tag && `:${tag}`) + (digest && `@${digest}`);
}
