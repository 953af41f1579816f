// Requests to the node that served the page.

// A Problem is why a request failed. key and values are a sentence of words-shell.js;
// status is 0 if the node did not answer, code is that of the OCI error.
export class Problem extends Error {
  constructor(key, { status = 0, code = "", message = "" } = {}) {
    super(message || key);
    this.key = "problem." + key;
    this.status = status;
    this.code = code;
    this.values = { status: String(status), message };
  }
}

function problemKey(status) {
  if (status === 401) return "login";
  if (status === 403) return "denied";
  return status === 404 ? "missing" : "other";
}

// problemOf reads why the node refused, from an answer that is not ok.
export async function problemOf(answer) {
  const text = await answer.text().catch(() => "");
  let first = {};
  try {
    first = JSON.parse(text).errors[0];
  } catch {
    // No OCI error: something in between answered.
  }
  const message = first.message ?? (text.trim().split("\n")[0].slice(0, 200) || answer.statusText);
  return new Problem(problemKey(answer.status), { status: answer.status, code: first.code ?? "", message });
}

// open sends a request and returns the Response. It throws a Problem. A body is sent
// by POST as JSON. Paths are relative to the page: "_/cluster".
export async function open(path, { body, signal } = {}) {
  const options = { signal, cache: "no-store" };
  if (body !== undefined) {
    Object.assign(options, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Problem("offline");
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

// fetchJSON is open for an answer in JSON, which it returns.
export async function fetchJSON(path, options) {
  const answer = await open(path, options);
  try {
    return await answer.json();
  } catch {
    throw new Problem("other", { status: answer.status, message: "no JSON" });
  }
}
