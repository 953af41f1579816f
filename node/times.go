package node

import "time"

// How long clients may take, and how long the node waits for them. The order of
// these matters; TestTimesAreInOrder states it.
const (
	// betweenLayers is how long a client may take from one request of a pull to the
	// next. A drain takes a longer pause for the pull's end.
	betweenLayers = time.Second
	// headerTime is how long a client may take to send a request's header. It is
	// longer than a body that nobody reads may take (gate.BodyTimeout).
	headerTime = 10 * time.Second
	// pingAfter is how long an HTTP/2 connection may be silent before it is asked
	// whether it lives. HTTP/1 has TCP's keep-alive, and a deadline for each piece.
	pingAfter = 30 * time.Second
	// idleTime is how long a connection may be without a request. It is longer than
	// clients keep theirs (90 s in Go), so that a request rarely meets its end.
	idleTime = 2 * time.Minute
	// pieceTime is how long a client may take for the next piece of an answer. It is
	// the longest: a client that writes a layer to a slow disk is not cut.
	pieceTime = 5 * time.Minute
	// defaultRetry is what a client is told if an upstream that limits us does not
	// say for how long.
	defaultRetry = time.Minute
	// evictionsEvery is how often the log hears what was evicted.
	evictionsEvery = time.Minute
	// troubleEvery is how often the node looks for what the log has to hear of as broken.
	troubleEvery = 15 * time.Second
)
