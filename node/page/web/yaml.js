// The images in a compose file, a Kubernetes manifest or Helm's values. It reads line by
// line, so it works for pieces of files too; JSON is read the same way.

// A key with a scalar value. Groups: indent and dashes, key, space, an anchor, the value.
const pair = /^(\s*(?:-\s+)*)(["']?)([A-Za-z_][\w.-]*)\2(\s*:)(?:(\s*)(&\S+\s+)?(.*))?$/;
// "image: x" inside of braces.
const inBraces = /([{,]\s*)(["']?)image\2(\s*:\s*)("[^"]*"|'[^']*'|[^,}\s]+)/g;

// valueOf returns the slot of a scalar that begins at start: without quotes, comment and
// comma. It returns null for an empty one, an alias, and what is no scalar.
function valueOf(raw, start) {
  const quoted = /^(["'])(.*?)\1\s*,?\s*(?:#.*)?\r?$/.exec(raw);
  if (quoted) return quoted[2] === "" ? null : { start: start + 1, end: start + 1 + quoted[2].length, text: quoted[2] };
  const plain = raw.replace(/\s+#.*$/, "").replace(/\s*,?\s*$/, "");
  if (plain === "" || /^[*{[|>"'#!]/.test(plain)) return null;
  return { start, end: start + plain.length, text: plain };
}

// linesOf returns the lines with a key: {indent, key, value, opens, dash}. opens means that
// the value, if any, is on the lines below. Comments and block scalars are left out.
function linesOf(text) {
  const list = [];
  let at = 0;
  let block = -1; // the indent of the key that has a block scalar
  for (const line of text.split("\n")) {
    const start = at;
    at += line.length + 1;
    if (/^\s*(?:#.*)?\r?$/.test(line)) continue;
    const depth = /^\s*/.exec(line)[0].length;
    if (block >= 0 && depth > block) continue;
    block = -1;
    const m = pair.exec(line.replace(/\r$/, ""));
    if (!m || (m[2] === "" && m[5] === "" && m[7])) { // no pair, or one without a space: a:b
      list.push({ start, line, indent: /^\s*(?:-\s+)*/.exec(line)[0].length, key: "", dash: /^\s*-(?:\s|$)/.test(line) });
      continue;
    }
    const raw = m[7] ?? "";
    const from = start + m[1].length + m[2].length * 2 + m[3].length + m[4].length + (m[5] ?? "").length + (m[6] ?? "").length;
    if (/^[|>][-+0-9]*\s*(?:#.*)?$/.test(raw)) block = depth;
    const opens = raw.replace(/^#.*/, "").trim() === "" || raw.trim() === "{";
    list.push({ start, line, indent: m[1].length, key: m[3], value: opens ? null : valueOf(raw, from), opens, dash: m[1].includes("-") });
  }
  return list;
}

// siblings returns the lines of the same mapping as line i, without those inside of its
// values.
function siblings(lines, i) {
  const { indent } = lines[i];
  const found = [lines[i]];
  for (let j = i - 1; j >= 0 && !lines[i].dash && lines[j].indent >= indent; j--) {
    if (lines[j].indent === indent) found.unshift(lines[j]);
    if (lines[j].indent === indent && lines[j].dash) break;
  }
  for (let j = i + 1; j < lines.length && lines[j].indent >= indent; j++) {
    if (lines[j].indent === indent && lines[j].dash) break;
    if (lines[j].indent === indent) found.push(lines[j]);
  }
  return found;
}

// parentKey is the key whose value line i is in.
function parentKey(lines, i) {
  for (let j = i - 1; j >= 0; j--) if (lines[j].indent < lines[i].indent && lines[j].key) return lines[j].key;
  return "";
}

const byKey = (list, key) => list.find((l) => l.key === key);

// isYAML reports whether a text names images as YAML or JSON does.
export function isYAML(text) {
  return /(?:^|[{,])\s*(?:-\s+)*(?:(["'])image\1\s*:|image\s*:(?=\s|$))/m.test(text) || /^\s*(?:-\s+)*(["']?)repository\1\s*:\s+\S/m.test(text);
}

// readYAML leads the images through the proxy: the values of "image", and of "registry"
// and "repository" as Helm's values have them. An image that a compose file builds
// stays. sheet is a Sheet over the text.
export function readYAML(text, sheet) {
  const lines = linesOf(text);
  for (const [i, l] of lines.entries()) {
    if (l.key === "image" && l.value) image(lines, i, sheet);
    else if (l.key === "repository" && l.value) repository(lines, i, sheet);
    else braces(l, sheet);
  }
}

function image(lines, i, sheet) {
  const slot = lines[i].value;
  if (slot.text.includes("{{")) sheet.skip(slot, "variable");
  else if (byKey(siblings(lines, i), "build")) sheet.skip(slot, "built");
  else sheet.lead(slot);
}

// repository is one of Helm's values: the registry may stand beside it.
function repository(lines, i, sheet) {
  const slot = lines[i].value;
  const beside = siblings(lines, i);
  const registry = byKey(beside, "registry")?.value;
  const isImage = /image$/i.test(parentKey(lines, i)) || registry || byKey(beside, "tag") || byKey(beside, "pullPolicy") || byKey(beside, "digest");
  if (!isImage || /:\/\//.test(slot.text)) return;
  if ([slot, registry].some((s) => s?.text.includes("{{"))) sheet.skip(slot, "variable");
  else if (registry) sheet.leadRegistry(registry);
  else sheet.lead(slot);
}

function braces({ line, start }, sheet) {
  for (const m of line.matchAll(inBraces)) {
    const at = start + m.index + m[1].length + 2 * m[2].length + "image".length + m[3].length;
    const slot = valueOf(m[4], at);
    const mapping = line.slice(line.lastIndexOf("{", m.index + 1), line.indexOf("}", m.index));
    if (slot && /[{,]\s*(["']?)build\1\s*:/.test(mapping)) sheet.skip(slot, "built");
    else if (slot) sheet.lead(slot);
  }
}
