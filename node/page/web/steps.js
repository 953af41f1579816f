// Writing commands that pull an image through the proxy.
//
// Safety: a command is built only from words that match one of the patterns of
// names.js and commands.js as a whole, and no pattern accepts a character that a shell
// interprets.

import { hub, splitPort } from "./names.js";
import { refuse } from "./refusal.js";

const loopback = /^(?:localhost|127\.[0-9.]+)(?::[0-9]+)?$/;

export const tools = ["docker", "podman", "nerdctl", "crictl", "skopeo", "helm", "crane"];

// lacks are the options that a tool does not have.
const lacks = {
  nerdctl: ["all"],
  crictl: ["all", "platform"],
  skopeo: ["all"],
  helm: ["all", "platform"],
  crane: ["all"],
};

const join = (...words) => words.flat().filter(Boolean).join(" ");

// engineSteps are those of docker, podman and nerdctl: pull, tag, and rmi.
//
// With a digest, the proxied name has no tag: older podman refuses both together, and
// the digest alone decides what is pulled. No tool can tag with a digest, so without a
// tag the image keeps its proxied name.
function engineSteps({ flags, image, run, from, own }) {
  const pull = join(run, "pull", flags.platform && `--platform ${flags.platform}`, flags.quiet, flags.all, from);
  if (flags.all || (image.digest && !image.tag)) return [pull];
  const to = own + (image.tag && `:${image.tag}`);
  return [pull, join(run, "tag", from, to), join(run, "rmi", from)];
}

// skopeoSteps write an archive that docker and podman load under the usual name.
function skopeoSteps({ flags, image, run, from, own, http }) {
  const [os, arch, variant] = flags.platform.split("/");
  const over = [os && `--override-os ${os}`, arch && `--override-arch ${arch}`, variant && `--override-variant ${variant}`];
  const to = image.digest && !image.tag ? "" : `:${own}:${image.tag || "latest"}`;
  return [join(run, over, "copy", http && "--src-tls-verify=false", `docker://${from}`, `docker-archive:${archive(image)}${to}`)];
}

function helmSteps({ image, run, from, through, http, version }) {
  const chart = `oci://${image.digest ? from : through}`;
  const wanted = version || image.tag.replaceAll("_", "+"); // as Helm turns versions into tags
  return [join(run, "pull", chart, !image.digest && wanted && `--version ${wanted}`, http && "--plain-http")];
}

function craneSteps({ flags, image, run, from, http }) {
  return [join(run, "pull", flags.platform && `--platform ${flags.platform}`, http && "--insecure", from, archive(image))];
}

// archive is the name of a file for an image.
function archive(image) {
  return image.repository.split("/").at(-1) + ".tar";
}

const writers = {
  docker: engineSteps,
  podman: engineSteps,
  nerdctl: engineSteps,
  crictl: ({ run, from }) => [join(run, "pull", from)],
  skopeo: skopeoSteps,
  helm: helmSteps,
  crane: craneSteps,
};

// write returns the commands to run, in order. command is what readCommand returned,
// image what parseName did, and the names what proxied did. It may throw a Refusal.
export function write(tool, command, image, { through, own }, { scheme }) {
  const { flags } = command;
  for (const name of lacks[tool] ?? []) {
    if (flags[name]) refuse("flagTool", { tool, at: name === "all" ? flags.all : "--platform" });
  }
  const version = tool === "helm" ? command.version : "";
  if (version && !/^[A-Za-z0-9][A-Za-z0-9.+_-]*$/.test(version)) refuse("tag", { at: version });
  const globals = command.tool === tool ? command.globals : [];
  const from = through + (image.digest ? `@${image.digest}` : image.tag && `:${image.tag}`);
  const run = join(command.sudo && "sudo", tool, globals);
  return writers[tool]({ flags, image, run, from, own, through, http: scheme === "http", version });
}

// remarks returns the notes to show with the command: keys of words-pull.js with
// values.
export function remarks(tool, command, image, { through, own }, options) {
  const list = [];
  const note = (key, values = {}) => list.push({ key: "note." + key, values });
  const tags = ["docker", "podman", "nerdctl"].includes(tool);
  if (command.cut) note("first");
  if (command.flags.all) note("allTags");
  else if (tags && image.digest && !image.tag) note("digest", { tool });
  else if (tags && image.digest) note("digestTag", { tag: image.tag });
  if (splitPort(image.registry || "localhost").port) {
    note("port", { registry: image.registry, path: through.slice(options.proxy.length + 1).split("/")[0] });
  }
  if (!image.registry && options.defaultRegistry !== hub) {
    note("default", { registry: options.defaultRegistry, fix: "docker.io/" + own });
  }
  const tagged = !command.flags.all && (image.tag || !image.digest);
  if (tool === "podman" && tagged && !image.registry && options.defaultRegistry === hub) {
    note("podman", { fix: "docker.io/" + (own.includes("/") ? own : "library/" + own) });
  }
  if (tool === "crictl") note("crictl");
  if (tool === "skopeo" || tool === "crane") note("archive", { file: archive(image) });
  if (options.scheme === "http") noteHTTP(tool, options.proxy, note);
  return list;
}

// noteHTTP says what to set for plain HTTP. Docker and nerdctl trust loopback anyway;
// skopeo, helm and crane have an option in the command.
function noteHTTP(tool, proxy, note) {
  const trusted = tool !== "podman" && loopback.test(proxy);
  if (!trusted && ["docker", "podman", "nerdctl", "crictl"].includes(tool)) note("http." + tool, { proxy });
}
