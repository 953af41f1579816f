// Pasted commands, word by word.

// prompt is what a shell writes before a command: "$", "root@host:~#", "[user@host ~]$",
// or "PS C:\>".
export const prompt = /^(?:(?:\[?[\w.-]+@[\w.-]+(?::[~/][^\n$#>]*| [~/][^\n\]$#>]*\]))?[$#>%]|PS [A-Z]:[^\n>]*>)\s+/;

// tidy removes characters that nobody sees, and what stands around the text.
export function tidy(text) {
  return text.replace(/[\u200b-\u200d\u2060\ufeff]/g, "").trim();
}

// What a shell takes as one piece: a character after a backslash, what stands in quotes, and
// the output of a command.
const piece = String.raw`\\[^\r\n]|"(?:\\[^\r\n]|[^"\\\r\n])*"|'[^'\r\n]*'|\$\([^()\r\n]*\)`;

// firstCommand returns where the first command of a tidy text lies: from start to end.
// It leaves out a prompt, and ends at the end of a line or at a shell's separator
// outside quotes and web addresses; continued lines are one. cut reports that something
// other than a comment follows.
function firstCommand(text) {
  const joined = joinLines(text);
  const start = prompt.exec(joined)?.[0].length ?? 0;
  const separator = new RegExp(String.raw`https?:\/\/[^\s"';|]+|${piece}|[\r\n;&|]|\s#`, "g");
  separator.lastIndex = start;
  for (let m = separator.exec(joined); m; m = separator.exec(joined)) {
    if (/^["'h\\$]/.test(m[0])) continue;
    return { start, end: m.index, cut: follows(text.slice(m.index)) };
  }
  return { start, end: joined.length, cut: false };
}

// follows reports whether a text has more than separators and comments. A comment ends with
// its line, whatever the line ends with.
function follows(text) {
  return text.split(/[\r\n]+/).some((line) => /[^;&|\s]/.test(line.replace(/(?:^|\s)#.*$/, "")));
}

// joinLines joins continued lines, and keeps the place of every character.
function joinLines(text) {
  return text.replace(/\\\r?\n/g, (s) => " ".repeat(s.length));
}

// words returns {list, cut} of a tidy text: the words of its first command, as {text,
// start, end}. A word's text is without quotes and without a comma at its end. It is empty
// for a pair of quotes alone, which is a word too.
export function words(text) {
  const { start, end, cut } = firstCommand(text);
  const list = [];
  for (const m of joinLines(text).slice(start, end).matchAll(new RegExp(String.raw`(?:${piece}|\S)+`, "g"))) {
    const plain = m[0].replace(/["'`\u2018\u2019\u201c\u201d]/g, "").replace(/[,\uff0c\u3002]+$/, "");
    if (plain || /^(?:""|'')$/.test(m[0])) list.push({ text: plain, start: start + m.index, end: start + m.index + m[0].length });
  }
  return { list, cut };
}
