// The colours that the visitor chose, before the first paint. This is no module,
// since modules run after it. dark.css is for all, for none, or as the system has it.
"use strict";

const themeMedia = { auto: "(prefers-color-scheme: dark)", light: "not all", dark: "all" };

function useTheme(name) {
  const theme = Object.hasOwn(themeMedia, name) ? name : "auto";
  document.querySelector("link[data-dark]").media = themeMedia[theme];
  return theme;
}

try {
  useTheme(localStorage.getItem("theme"));
} catch {
  // Storage is switched off: the system’s colours stay.
}
