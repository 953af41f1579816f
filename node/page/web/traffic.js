// The Traffic view.

export function start(section, context) {
  return { show(query) {}, hide() {} };
}
