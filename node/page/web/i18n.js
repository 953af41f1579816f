// Languages. The sentences lie beside the views: words-shell.js has what all share,
// words-NAME.js what view NAME says.

// languages maps each language to its tag for <html lang>.
export const languages = { en: "en", zh: "zh-CN" };

// known returns the language that a tag such as "zh-TW" stands for, or "".
export function known(tag) {
  const language = String(tag ?? "").toLowerCase().split("-")[0];
  return Object.hasOwn(languages, language) ? language : "";
}

// fill returns the key’s sentence with {name} replaced by values, as plain text. The
// first of several tables of words that has the key counts; without any it is the key.
export function fill(language, key, values = {}, ...tables) {
  const table = tables.find((t) => Object.hasOwn(t[language], key));
  const sentence = table ? table[language][key] : key;
  return sentence.replace(/\{([a-zA-Z]+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? values[name] : whole));
}
