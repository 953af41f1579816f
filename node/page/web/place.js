// Where in the page an address leads.

// place reads "#/NAME?query" and returns {view, query}. What is no view’s name leads
// to other.
export function place(hash, views, other) {
  const m = /^#\/([a-z]+)\/?(?:\?(.*))?$/s.exec(hash);
  const known = m !== null && views.includes(m[1]);
  return { view: known ? m[1] : other, query: new URLSearchParams(known ? (m[2] ?? "") : "") };
}

// link is the address of a view: link("cache", {match: "nginx"}).
export function link(view, query = {}) {
  const text = new URLSearchParams(query).toString();
  return `#/${view}${text && "?" + text}`;
}
