// The images in a Dockerfile.

// instructions returns the instructions: {name, start, end} of what follows the name,
// which may go over several lines. Heredocs and comments are left out.
function instructions(text, escape) {
  const list = [];
  const lines = [...text.matchAll(/[^\n]*\n?/g)].filter((m) => m[0] !== "");
  const continued = new RegExp(`\\${escape}[ \\t]*\\r?\\n?$`);
  for (let i = 0; i < lines.length; i++) {
    const m = /^(\s*)([A-Za-z]+)(?=\s|$)/.exec(lines[i][0]);
    if (!m) continue;
    const start = lines[i].index + m[0].length;
    while (i + 1 < lines.length && (continued.test(lines[i][0]) || /^\s*#/.test(lines[i][0]))) i++;
    const end = lines[i].index + lines[i][0].replace(/\r?\n$/, "").length;
    const name = m[2].toUpperCase();
    list.push({ name, start, end });
    if (["RUN", "COPY", "ADD"].includes(name)) i = skipHeredocs(lines, i, text.slice(start, end));
  }
  return list;
}

// skipHeredocs returns the line at which the heredocs of an instruction end.
function skipHeredocs(lines, at, instruction) {
  for (const m of instruction.matchAll(/<<(-?)(["']?)([A-Za-z_][A-Za-z0-9_]*)\2/g)) {
    const ends = (line) => line.replace(/\r?\n$/, "").replace(m[1] ? /^\t+/ : /^/, "") === m[3];
    const end = lines.findIndex((l, i) => i > at && ends(l[0]));
    if (end > 0) at = end;
  }
  return at;
}

// wordsOf returns an instruction's words as slots. Quotes around one do not belong to
// it. What continues a line is space, and so are comments between continued lines.
function wordsOf(text, { start, end }, escape) {
  const blank = (s) => " ".repeat(s.length);
  const joined = text
    .slice(start, end)
    .replace(new RegExp(`\\${escape}[ \\t]*\\r?\\n`, "g"), blank)
    .replace(/^[ \t]*#[^\n]*\n?/gm, (s, at) => (at === 0 ? s : blank(s)));
  return [...joined.matchAll(/\S+/g)].map((m) => {
    const quoted = /^(["'])(.*)\1$/.exec(m[0]);
    const from = start + m.index + (quoted ? 1 : 0);
    return { text: quoted ? quoted[2] : m[0], start: from, end: from + (quoted ? quoted[2] : m[0]).length };
  });
}

// directives returns the lines "# name=value" at the top.
function directives(text) {
  const found = new Map();
  let at = 0;
  for (const line of text.split("\n")) {
    const m = /^(\s*#\s*([a-z]+)\s*=\s*)(\S+)\s*$/i.exec(line);
    if (!m) break;
    found.set(m[2].toLowerCase(), { text: m[3], start: at + m[1].length, end: at + m[1].length + m[3].length });
    at += line.length + 1;
  }
  return found;
}

// isDockerfile reports whether a text is a Dockerfile, or a line of one.
export function isDockerfile(text) {
  const first = text.split("\n").find((l) => /\S/.test(l) && !/^\s*#/.test(l)) ?? "";
  return /^\s*(?:FROM\s+(?!\S+\s*:\s)|ARG\s+\w)/i.test(first) && /^\s*FROM\s/im.test(text);
}

// readDockerfile leads the images of a Dockerfile through the proxy: those of FROM,
// unless it is scratch or an earlier stage, of COPY --from and RUN --mount from=, and
// the syntax line. sheet is a Sheet over the text.
export function readDockerfile(text, sheet) {
  const top = directives(text);
  const escape = top.get("escape")?.text === "`" ? "`" : "\\";
  if (top.has("syntax")) sheet.lead(top.get("syntax"));
  const stages = new Set();
  const values = new Map(); // of ARGs before the first FROM
  let count = 0;
  for (const one of instructions(text, escape)) {
    const words = wordsOf(text, one, escape);
    if (one.name === "ARG" && count === 0) words.forEach((w) => declare(w, text, values));
    else if (one.name === "FROM") {
      from(words, stages, values, sheet);
      count++;
    } else if (one.name === "COPY" || one.name === "RUN") otherSources(words, stages, count, sheet);
  }
}

// declare notes an ARG's default: NAME=VALUE, with or without quotes.
function declare(word, text, values) {
  const m = /^([A-Za-z_][A-Za-z0-9_]*)=(["']?)(.*)\2$/.exec(word.text);
  if (!m) return;
  const start = word.start + m[1].length + 1 + m[2].length;
  if (!m[3].includes("$")) values.set(m[1], { text: m[3], start, end: start + m[3].length });
}

function from(words, stages, values, sheet) {
  const list = words.filter((w) => !w.text.startsWith("--"));
  if (list.length === 0) return;
  const name = list[0].text.toLowerCase();
  if (name !== "scratch" && !stages.has(name)) sheet.lead(list[0], values);
  if (list[1]?.text.toLowerCase() === "as" && list[2]) stages.add(list[2].text.toLowerCase());
}

// otherSources finds --from=IMAGE, and from=IMAGE in a --mount. A stage's name or number
// is no image.
function otherSources(words, stages, count, sheet) {
  for (const w of words) {
    const m = /^(--from=|--mount=(?:.*,)?from=)([^,]+)/.exec(w.text);
    if (!m || /^[0-9]+$/.test(m[2]) || stages.has(m[2].toLowerCase())) continue;
    const start = w.start + m[1].length;
    sheet.lead({ start, end: start + m[2].length });
  }
}
