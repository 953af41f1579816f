package upstream

import "time"

// Within bounds every request of a Client: when it is over, the caller has a
// manifest, a list, the header of a blob, or an error. Retries, tokens and
// redirects count. A client's request has 40 s, of which the facade of package
// transfer waits 39 s. So Within must be less than that: otherwise the client
// would hear of the facade's time-out instead of what the registry answered.
const Within = 38 * time.Second

// Patience is how long a request waits for a connection, on a node without others: the
// look-up of the name, TCP, a proxy's CONNECT and TLS. A HEAD and a GET together are to
// fail within 10 s where nothing can be reached, and a tag that is cached is to be
// served within 5 s.
const Patience = 4 * time.Second

// MeshPatience is Patience on a node among others, which may have another way out: three
// nodes fit into the time for a tag that is cached.
const MeshPatience = 1500 * time.Millisecond

// The time-outs inside it, the shortest first. Their order matters:
// TestTimeoutsAreInOrder states it.
const (
	// probeTimeout bounds the TLS handshake with an insecure registry. If that
	// speaks plain HTTP, it may wait for the rest of a request for ever. Shorter
	// than a try, so that plain HTTP is tried in the same one.
	probeTimeout = 4 * time.Second
	// leftoverTime is how long the rest of an answer may take that is read for the sake of its
	// connection alone, and errorTime how long the text of an error may.
	leftoverTime = time.Second
	errorTime    = 3 * time.Second
	// attemptDelay is how long one address of a name is tried alone (RFC 8305,
	// Connection Attempt Delay).
	attemptDelay = 250 * time.Millisecond
	// familyGrace is how much longer than one family of a name's addresses the other
	// may take to look up.
	familyGrace = 300 * time.Millisecond
	// resolverTry bounds one question to one resolver. Several of them fit into
	// Patience, so that the second or third resolver is asked in time.
	resolverTry = time.Second
	// unreachableBudget: where nothing listens, no try begins later. What took as
	// long as Patience is not tried again.
	unreachableBudget = time.Second
	// lossTime is how long what is sent may stay unacknowledged.
	lossTime = 2 * time.Second
	// dialTimeout bounds a look-up and a TCP connection. Nobody waits for it that
	// long; a slow line gets its connection all the same, and the next request has it.
	dialTimeout = 8 * time.Second
	// headTimeout bounds a HEAD, challenges and redirects included: what it does not
	// tell a GET does. Short enough that a GET of a whole try and the beginning of
	// another fit into Within.
	headTimeout = 8 * time.Second
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
