// What the page remembers between visits. Storage may be switched off: then it forgets.

export function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // Next time the page asks the browser again.
  }
}
