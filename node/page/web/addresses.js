// Web addresses of registries: which image a page of theirs shows.

import { refuse } from "./refusal.js";

// sites are the sites whose pages are not at an image's name. Each turns the parts of
// a path and the query into a name, or "" if the page shows no single image.
const sites = {
  "hub.docker.com": hubPage,
  "quay.io": quayPage,
  "github.com": githubPage,
  "gallery.ecr.aws": (parts) => (parts.length > 1 ? `public.ecr.aws/${parts.slice(0, 2).join("/")}` : ""),
};

function hubPage(parts, query) {
  const tag = query.get("tag") ?? "";
  const named = (name, version) => name + (version ? `:${version}` : "");
  switch (parts[0]) {
    case "_":
      return parts[1] ? named(parts[1], tag) : "";
    case "r":
      return parts[2] && parts[2] !== "tags" ? named(`${parts[1]}/${parts[2]}`, tag) : named(parts[1] ?? "", tag);
    case "repository": // repository/docker/USER/NAME
      return parts[3] ? named(`${parts[2]}/${parts[3]}`, tag) : "";
    case "layers": { // layers/USER/NAME/TAG/images/sha256-…
      if (!parts[2]) return "";
      return named(parts[1] === "library" ? parts[2] : `${parts[1]}/${parts[2]}`, parts[3]);
    }
    default:
      return "";
  }
}

function quayPage(parts, query) {
  if (parts[0] !== "repository") return null; // quay.io/ORG/NAME is a plain name
  const at = parts.findIndex((p, i) => i > 2 && (p === "manifest" || p === "tag"));
  const name = parts.slice(1, at < 0 ? undefined : at);
  if (name.length < 2) return "";
  if (at > 0 && parts[at] === "manifest" && parts[at + 1]) return `quay.io/${name.join("/")}@${parts[at + 1]}`;
  const tag = (at > 0 ? parts[at + 1] : query.get("tag")) ?? "";
  return `quay.io/${name.join("/")}${tag && ":" + tag}`;
}

// githubPage knows ORG/REPO/pkgs/container/NAME, and [orgs|users]/ORG/packages/
// container/[package/]NAME. NAME has %2F for a slash.
function githubPage(parts, query) {
  const at = parts.indexOf("container");
  if (at < 1 || (parts[at - 1] !== "pkgs" && parts[at - 1] !== "packages")) return "";
  const owner = parts[0] === "orgs" || parts[0] === "users" ? parts[1] : parts[0];
  const name = parts[parts[at + 1] === "package" ? at + 2 : at + 1];
  if (!owner || !name) return "";
  const tag = query.get("tag") ?? "";
  return `ghcr.io/${owner}/${name}`.toLowerCase() + (tag && `:${tag}`); // packages are lower case
}

// plainPage knows a registry's API: /v2/NAME/manifests/TAG; else the path is a name.
function plainPage(host, parts) {
  const at = parts.findLastIndex((p) => p === "manifests" || p === "blobs" || p === "tags");
  if (parts[0] !== "v2" || at < 2) return [host, ...parts].join("/");
  const name = [host, ...parts.slice(1, at)].join("/");
  const reference = parts[at] === "manifests" ? (parts[at + 1] ?? "") : "";
  return name + (reference && (reference.includes(":") ? "@" : ":") + reference);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// fromAddress returns the name in a web address, or in a name with docker:// or oci://
// before it. It may throw a Refusal. Anything else it returns as it is.
export function fromAddress(word) {
  const m = /^(https?|docker|oci|docker-pullable):\/\/(.*)$/is.exec(word);
  const web = m !== null && m[1].toLowerCase().startsWith("http");
  const rest = m ? m[2] : word;
  if (m && !web) return rest;
  const [, host, path, search] = /^([^/?#]*)([^?#]*)(?:\?([^#]*))?/s.exec(rest);
  const site = host.toLowerCase().replace(/^www\./, "");
  if (!web && (!Object.hasOwn(sites, site) || path === "")) return word;
  const parts = path.split("/").filter(Boolean).map(decoded);
  const name = Object.hasOwn(sites, site) ? sites[site](parts, new URLSearchParams(search ?? "")) : null;
  if (name === "") refuse("page", { at: host });
  if (name !== null) return name;
  return web ? plainPage(host, parts) : word;
}
