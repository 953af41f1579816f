package upstream

import "time"

// Within bounds every request of a Client: when it is over, the caller has a
// manifest, a list, the header of a blob, or an error. Retries, tokens and
// redirects count. A client's request has 40 s, of which the facade of package
// transfer waits 39 s. So Within must be less than that: otherwise the client
// would hear of the facade's time-out instead of what the registry answered.
const Within = 38 * time.Second

// The time-outs inside it, the shortest first. Their order matters:
// TestTimeoutsAreInOrder states it.
const (
	// probeTimeout bounds the TLS handshake with an insecure registry. If that
	// speaks plain HTTP, it may wait for the rest of a request for ever. Shorter
	// than a try, so that plain HTTP is tried in the same one.
	probeTimeout = 4 * time.Second
	// dialTimeout bounds one TCP connection. Less than unreachableBudget, so that a
	// lost packet gets its second try.
	dialTimeout = 5 * time.Second
	// headTimeout bounds a HEAD, challenges and redirects included: what it does not
	// tell a GET does. Short enough that a GET of a whole try and the beginning of
	// another fit into Within.
	headTimeout = 8 * time.Second
	// unreachableBudget: where nothing listens, no try begins later. A client soon
	// hears of a registry that is down, and stale content is served soon.
	unreachableBudget = 8 * time.Second
	// handshakeTimeout bounds a TLS handshake. With dialTimeout it fits into a try.
	handshakeTimeout = 10 * time.Second
	// longestRetryAfter is the longest Retry-After that is waited out. Less than
	// retryBudget, or no try would follow it.
	longestRetryAfter = 10 * time.Second
	// headerTimeout bounds the wait for an answer's header, once the request is
	// sent. Little more than half of Within: after a request that hangs there is
	// time for another.
	headerTimeout = 20 * time.Second
	// tryTimeout bounds one try for a document, the body included, and one token
	// request.
	tryTimeout = 20 * time.Second
	// turnWithin bounds the wait for a turn at the registry. The rest of Within is for
	// the request, and another node that waits for ours hears of it before it gives us
	// up (mesh.DripFor).
	turnWithin = 25 * time.Second
	// retryBudget: no try begins later. The rest of Within is for the last try.
	retryBudget = 30 * time.Second
)

// busyRetry is when a request that got no turn may come again.
const busyRetry = 10 * time.Second

// How often a request is tried.
const (
	maxRequests      = 3 // of one answer, a HEAD and the GET that stands in for it together
	maxTries         = 4 // those counted that fail before a request, for want of a token
	unreachableTries = 2 // where nothing listens
)
