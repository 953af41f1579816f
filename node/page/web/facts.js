// What answers of the node mean, without any drawing.

const away = ["down", "gone", "draining", "restarting"];

// troubles are what is wrong with a cluster, from the answer of /_/cluster: a list of
// {key, values, level}. The worst come first.
export function troubles(cluster) {
  const all = [];
  const add = (level, key, values = {}) => all.push({ level, key: "trouble." + key, values });
  const down = cluster.members.filter((m) => m.state === "down").map((m) => m.name);
  for (const m of cluster.missing) if (!down.includes(m.name)) add("bad", "silent", { name: m.name, reason: m.reason });
  const others = cluster.members.filter((m) => m.stats?.ring && m.stats.ring !== cluster.ring);
  if (others.length > 0) add("bad", "split", { names: others.map((m) => m.name).join(", ") });
  for (const m of cluster.members) {
    if (away.includes(m.state)) add(m.state === "down" ? "bad" : "warn", m.state, { name: m.name });
    if (m.state !== "down" && m.state !== "gone" && !m.healthy) add("warn", "passed", { name: m.name });
    if (m.old_secret) add("warn", "secret", { name: m.name });
    for (const reason of m.stats?.reasons ?? []) add("bad", "reason", { name: m.name, reason });
  }
  const versions = new Set(cluster.members.map((m) => m.version).filter(Boolean));
  if (versions.size > 1) add("warn", "versions", { versions: [...versions].sort().join(", ") });
  return all.sort((a, b) => (a.level === b.level ? 0 : a.level === "bad" ? -1 : 1));
}

// disk is what a member holds and may hold, in bytes; most is 0 without a bound.
export function disk(stats) {
  const used = Object.values(stats?.registries ?? {}).reduce((sum, r) => sum + (r.CurrentSize ?? 0), 0);
  return { used, most: stats?.max_size ?? 0 };
}

// served are the bytes that a member sent to clients within the last minutes, from the
// hour that it tells, whose minutes are [requests, hit, peer, miss, …].
export function served(stats, minutes) {
  const recent = (stats?.hour?.minutes ?? []).slice(-minutes);
  return recent.reduce((sum, m) => sum + (m[1] ?? 0) + (m[2] ?? 0) + (m[3] ?? 0), 0);
}

// seeds are the gossip addresses that a new member may ask.
export function seeds(cluster) {
  return cluster.members.filter((m) => m.gossip && m.state === "active").map((m) => m.gossip);
}

// joinConfig is the config of a new member. It never holds the secret.
export function joinConfig(cluster, host) {
  const known = seeds(cluster);
  const list = known.length > 0 ? known : [`${host}:7946`];
  return `cluster:\n  seeds: [${list.map((s) => JSON.stringify(s)).join(", ")}]\n  secret_file: /etc/oci-proxy/secret\n`;
}

// totals adds up the answer of /_/stats.
export function totals(stats) {
  const sum = {};
  for (const registry of Object.values(stats)) {
    for (const [name, n] of Object.entries(registry)) sum[name] = (sum[name] ?? 0) + n;
  }
  const bytes = (sum.HitBytes ?? 0) + (sum.PeerHitBytes ?? 0) + (sum.MissBytes ?? 0);
  const pulls = (sum.Hits ?? 0) + (sum.PeerHits ?? 0);
  const all = pulls + (sum.Misses ?? 0);
  return { bytes, saved: Math.max(0, bytes - (sum.FromUpstreamBytes ?? 0)), pulls, all, ratio: all > 0 ? pulls / all : 0 };
}

// byImage puts pulls of one image together, the earliest first: {name, parts, done, total
// (-1: not known), waiters, sources, hosts}.
export function byImage(pulls) {
  const images = new Map();
  for (const p of pulls) {
    const name = `${p.registry}/${p.repository}`;
    const one = images.get(name) ?? { name, parts: [], done: 0, total: 0, waiters: 0, sources: new Set(), hosts: new Set() };
    images.set(name, one);
    one.parts.push(p);
    one.done += p.done;
    one.total = p.total < 0 || one.total < 0 ? -1 : one.total + p.total;
    one.waiters = Math.max(one.waiters, p.waiters);
    one.sources.add(p.source);
    if (p.host) one.hosts.add(p.host);
  }
  return [...images.values()];
}

// matching are the images whose name, digest or platform contains every word.
export function matching(images, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return images.filter((one) => {
    const where = `${one.image} ${one.digest} ${one.platforms.join(" ")} ${one.pinned ? "pinned" : ""} ${one.stale ? "stale" : ""}`.toLowerCase();
    return words.every((w) => where.includes(w));
  });
}

// sorted are images in an order: by name, by size or by last use.
export function sorted(images, order) {
  const by = {
    name: (a, b) => a.image.localeCompare(b.image),
    size: (a, b) => b.size - a.size,
    used: (a, b) => (b.used ?? "").localeCompare(a.used ?? ""),
  };
  return [...images].sort(by[order] ?? by.name);
}

const rank = ["error", "warning", "ok", "skipped"];

// groups puts steps of a doctor together by who looked at what; what failed comes first,
// and within a group the order of the steps stays.
export function groups(steps) {
  const all = new Map();
  for (const s of steps) {
    const key = `${s.node}\n${s.about}`;
    if (!all.has(key)) all.set(key, { node: s.node, about: s.about, steps: [], worst: rank.length });
    const group = all.get(key);
    group.steps.push(s);
    group.worst = Math.min(group.worst, rankOf(s.level));
  }
  return [...all.values()].sort((a, b) => a.worst - b.worst);
}

function rankOf(level) {
  const i = rank.indexOf(level);
  return i < 0 ? 1 : i;
}

// firstWrong is the first step that failed, and else the first that is doubtful.
export function firstWrong(steps) {
  return steps.find((s) => s.level === "error") ?? steps.find((s) => s.level === "warning");
}
