// What happens now, from GET /_/events (server-sent events). All views share one
// connection, which is open while somebody listens.

const names = ["hello", "figures", "members", "upstreams", "evictions", "hour", "pulls"];
const listeners = new Set();
const last = new Map(); // what was heard of each name on this connection
let source = null;
let again = 0; // the timer that connects anew

function tell(name, data) {
  for (const handlers of [...listeners]) handlers[name]?.(data);
}

function connect() {
  clearTimeout(again);
  last.clear();
  source = new EventSource("_/events");
  source.addEventListener("open", () => tell("open"));
  source.addEventListener("error", lost);
  for (const name of names) {
    source.addEventListener(name, (e) => {
      last.set(name, JSON.parse(e.data));
      tell(name, last.get(name));
    });
  }
}

// lost hears that the connection broke. The browser connects anew by itself, unless the
// node refused: then it may do so later, when fewer listen or the node is up again.
function lost() {
  tell("error");
  if (source?.readyState !== EventSource.CLOSED) return;
  source = null;
  again = setTimeout(connect, 5000);
}

function close() {
  clearTimeout(again);
  source?.close();
  source = null;
}

// subscribe calls handlers[name] with the data of each event of that name, parsed as
// JSON, and at once with what was heard last. handlers.open and handlers.error hear of
// the connection. It returns the function that ends it.
export function subscribe(handlers) {
  listeners.add(handlers);
  if (listeners.size === 1) connect();
  else for (const [name, data] of last) handlers[name]?.(data);
  return () => {
    if (listeners.delete(handlers) && listeners.size === 0) close();
  };
}
