// Figures as people read them.

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

// bytes is a size in powers of 1024, with three digits at least: "1.25 GiB".
export function bytes(n) {
  let unit = 0;
  let value = Number(n) || 0;
  while (value >= 1023.95 && unit + 1 < units.length) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

const spans = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60]];

// ago is how long a time, a Date or its text, is from now: "3 hours ago".
export function ago(time, language, now = Date.now()) {
  const seconds = (new Date(time).getTime() - now) / 1000;
  if (Number.isNaN(seconds)) return "";
  const [unit, length] = spans.find(([, s]) => Math.abs(seconds) >= s) ?? ["second", 1];
  return new Intl.RelativeTimeFormat(language, { numeric: "auto" }).format(Math.round(seconds / length), unit);
}

// count is a number with its thousands marked.
export function count(n, language) {
  return new Intl.NumberFormat(language).format(n);
}
