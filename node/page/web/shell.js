// Pasted commands, word by word.

// prompt is what a shell writes before a command: "$", "root@host:~#", "[user@host ~]$",
// or "PS C:\>".
export const prompt = /^(?:(?:\[?[\w.-]+@[\w.-]+(?::[~/][^\n$#>]*| [~/][^\n\]$#>]*\]))?[$#>%]|PS [A-Z]:[^\n>]*>)\s+/;

// tidy removes characters that nobody sees, and what stands around the text.
export function tidy(text) {
  return text.replace(/[\u200b-\u200d\u2060\ufeff]/g, "").trim();
}

// firstCommand returns where the first command of a tidy text lies: from start to end.
// It leaves out a prompt, and ends at the end of a line or at a shell's separator
// outside quotes and web addresses; continued lines are one. cut reports that something
// other than a comment follows.
function firstCommand(text) {
  const joined = joinLines(text);
  const start = prompt.exec(joined)?.[0].length ?? 0;
  const separator = /https?:\/\/[^\s"';|]+|"[^"\r\n]*"|'[^'\r\n]*'|[\r\n;&|]|\s#/g;
  separator.lastIndex = start;
  for (let m = separator.exec(joined); m; m = separator.exec(joined)) {
    if (/^["'h]/.test(m[0])) continue;
    const rest = joined.slice(m.index);
    const cut = !/^\s*#/.test(rest) && /\S/.test(rest.replace(/^[;&|\s]+/, ""));
    return { start, end: m.index, cut };
  }
  return { start, end: joined.length, cut: false };
}

// joinLines joins continued lines, and keeps the place of every character.
function joinLines(text) {
  return text.replace(/\\\r?\n/g, (s) => " ".repeat(s.length));
}

// words returns {list, cut} of a tidy text: the words of its first command, as {text,
// start, end}. A word's text is without quotes and without a comma at its end.
export function words(text) {
  const { start, end, cut } = firstCommand(text);
  const list = [];
  for (const m of joinLines(text).slice(start, end).matchAll(/(?:"[^"]*"|'[^']*'|\S)+/g)) {
    const plain = m[0].replace(/["'`\u2018\u2019\u201c\u201d]/g, "").replace(/[,\uff0c\u3002]+$/, "");
    if (plain) list.push({ text: plain, start: start + m.index, end: start + m.index + m[0].length });
  }
  return { list, cut };
}
