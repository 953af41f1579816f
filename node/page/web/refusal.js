// Refusals: why what was pasted, or a part of it, becomes nothing.

// A Refusal carries the key of a sentence in words-pull.js, and the values for it.
export class Refusal extends Error {
  constructor(key, values = {}) {
    super(key);
    this.key = key;
    this.values = values;
  }
}

export function refuse(key, values) {
  throw new Refusal("error." + key, values);
}

// attempt runs f and turns a refusal into {error: {key, values}}.
export function attempt(f) {
  try {
    return f();
  } catch (e) {
    if (e instanceof Refusal) return { error: { key: e.key, values: e.values } };
    throw e;
  }
}
