// Drawings, as SVG elements. Colours are classes of views.css.

const space = "http://www.w3.org/2000/svg";

// svg makes an SVG element, as el of dom.js makes one of HTML.
export function svg(tag, attributes = {}, ...children) {
  const e = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, String(value));
  e.append(...children.flat());
  return e;
}

const round = (n) => Math.round(n * 100) / 100;

// slice is the path of a part of a ring, from one part of the circle (0 to 1, from the
// top and clockwise) to another.
export function slice(from, to, outer, inner) {
  const whole = to - from >= 1;
  const end = whole ? from + 0.9999 : to;
  const at = (part, r) => `${round(r * Math.sin(2 * Math.PI * part))} ${round(-r * Math.cos(2 * Math.PI * part))}`;
  const large = end - from > 0.5 ? 1 : 0;
  return `M${at(from, outer)}A${outer} ${outer} 0 ${large} 1 ${at(end, outer)}L${at(end, inner)}A${inner} ${inner} 0 ${large} 0 ${at(from, inner)}Z`;
}

// slices are where the parts of a ring begin and end, for shares that add up to 1 at
// most.
export function slices(shares) {
  let from = 0;
  return shares.map((share) => {
    const one = { from, to: from + share };
    from = one.to;
    return one;
  });
}

// ceiling is the next round number of bytes: 1, 2 or 5 times 1, 10 or 100 of a unit.
export function ceiling(n) {
  let unit = 1;
  while (n > 1000 * unit) unit *= 1024;
  for (const step of [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]) if (n <= step * unit) return step * unit;
  return 1024 * unit;
}

// stack is where the bars of a chart stand: for each column a list of {series, y,
// height}, from the bottom, in a chart of that height in which top is the largest sum.
export function stack(series, top, height) {
  return series[0].map((_, column) => {
    let y = height;
    return series.map((values, i) => {
      const h = top > 0 ? (values[column] / top) * height : 0;
      y -= h;
      return { series: i, y: round(y), height: round(h) };
    });
  });
}

// line is the path of a line through values, with gaps where there are none (0).
export function line(values, top, width, height) {
  const step = width / values.length;
  let pen = "M";
  let path = "";
  values.forEach((v, i) => {
    if (!(v > 0)) {
      pen = "M";
      return;
    }
    path += `${pen}${round((i + 0.5) * step)} ${round(height - (Math.min(v, top) / top) * height)}`;
    pen = "L";
  });
  return path;
}
