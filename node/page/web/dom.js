// Building and copying. Text goes into the document only as text nodes and values.

// el makes an element. A property that is a function listens to the event of its
// name ({click: f}); true and false set and leave out an attribute; all others are
// attributes. Children are nodes or text; null, undefined and false are left out.
export function el(tag, properties = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") e.addEventListener(name, value);
    else if (value !== false && value !== null && value !== undefined) e.setAttribute(name, value === true ? "" : String(value));
  }
  e.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

// copyOld copies without navigator.clipboard, which pages over plain http lack. Most
// proxies are reached over plain http.
function copyOld(text) {
  const focused = document.activeElement;
  const area = el("textarea", { class: "offscreen", readonly: true });
  area.value = text;
  document.body.append(area);
  area.select();
  let done = false;
  try {
    done = document.execCommand("copy");
  } catch {
    // The caller selects the text, so that the visitor can copy it.
  }
  area.remove();
  focused?.focus();
  return done;
}

// copy puts text on the clipboard. If the browser does not allow it, it selects what
// is in shown, and returns false.
export async function copy(text, shown) {
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    done = copyOld(text);
  }
  if (!done && shown) getSelection().selectAllChildren(shown);
  return done;
}

// download gives the visitor a file.
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  URL.revokeObjectURL(url);
}
