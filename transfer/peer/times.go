package peer

import "time"

// The time-outs of the protocol. TestTimesAreInOrder states which of them have to
// be in an order.
const (
	// clientTime is how long a client of the proxy may wait for a failure, whatever
	// nodes are asked.
	clientTime = 40 * time.Second
	// callTime bounds a call with a small answer, body included. It is shorter than
	// clientTime, so that the client is still told.
	callTime = clientTime - time.Second
	// answerTime is how long a node waits for the registry before it tells the
	// asker that the registry is late. It is shorter than callTime, so that the
	// asker hears it in time and does not blame the node.
	answerTime = callTime - time.Second
	// examineTime bounds an examination. It is longer than what is looked at takes, and
	// shorter than callTime, so that the asker hears of it.
	examineTime = 20 * time.Second
	// pieceTime is how long a peer may take for the next piece of an answer. It is
	// longer than callTime: who waits for a small answer gives up first.
	pieceTime = time.Minute

	// peekTime bounds a peek. A client waits for it before its download begins, if nobody
	// has the blob. It is longer than a member needs that gets 20 ms of each 400 ms of a
	// processor: what it holds does not come from the registry again. One that has been
	// late is waited for as long as for a sign of life.
	peekTime = time.Second
	// hungTime bounds the peek at a member in quarantine that did not answer its last ping.
	hungTime = 100 * time.Millisecond
	// progressTime bounds the wait for a sign of life, and a peek at a member that was late.
	progressTime = 2 * time.Second
	// busyTime is how long a busy peer is asked again. It is shorter than
	// answerTime, so that there is time left to ask another node.
	busyTime = 10 * time.Second
	// busyStep is how long a busy peer can make the asker wait at a time.
	busyStep = 200 * time.Millisecond

	// strangeTime is how long a peer that does not know this node yet is asked again, from when
	// the link to it was made: what it holds does not come from the registry again. It is
	// longer than gossip needs to tell all members of a new one. strangeStep is how long
	// is waited each time.
	strangeTime = 3 * time.Second
	strangeStep = 100 * time.Millisecond

	// dialTime and handshakeTime bound the making of a connection. Three nodes that
	// can't be reached cost a client less than the 10 s it may wait for them.
	dialTime      = time.Second
	handshakeTime = 2 * time.Second
	// lookStep is after how long it is looked again whether a member listens that has ended
	// a connection. It is longer than a process takes to end.
	lookStep = 200 * time.Millisecond
	// deadTime is how long a connection may go without an acknowledgement. It is
	// shorter than answerTime, so that a dead connection fails before its call does.
	deadTime = 10 * time.Second

	// headerTime and bodyTime bound the reading of a request's header and body. A
	// node sends both at once.
	headerTime = 10 * time.Second
	bodyTime   = 10 * time.Second
	// clientIdle is how long a client keeps an idle connection, serverIdle how long
	// the server does. The client's is shorter, so that it hardly ever asks over a
	// connection that the server is closing.
	clientIdle = 90 * time.Second
	serverIdle = 120 * time.Second

	// A peer that failed is quarantined for firstQuarantine, and for twice as long
	// each time it fails again, up to lastQuarantine.
	firstQuarantine = 2 * time.Second
	lastQuarantine  = 30 * time.Second
	// Minor failures count together if they happen within strikeTime.
	strikeTime = 30 * time.Second
)
