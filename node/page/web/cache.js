// The Cache view.

export function start(section, context) {
  return { show(query) {}, hide() {} };
}
