// What happens now, from GET /_/events (server-sent events). All views share one
// connection, which is open while somebody listens.

const listeners = new Set();
let source = null;

// subscribe calls handlers[name] with the data of each event of that name, parsed as
// JSON. handlers.open and handlers.error hear of the connection. It returns the
// function that ends it.
export function subscribe(handlers) {
  listeners.add(handlers);
  source ??= new EventSource("_/events");
  const heard = Object.entries(handlers).map(([name, handle]) => {
    const hear = (e) => handle(e.data === undefined ? undefined : JSON.parse(e.data));
    source.addEventListener(name, hear);
    return [name, hear];
  });
  return () => {
    for (const [name, hear] of heard) source?.removeEventListener(name, hear);
    listeners.delete(handlers);
    if (listeners.size > 0) return;
    source?.close();
    source = null;
  };
}
