package certs

import "time"

// How long things take. The order of these matters; TestTimesAreInOrder states it.
const (
	// askTime bounds one question to another member.
	askTime = 3 * time.Second
	// syncEvery is how often members ask the keeper what is new, and the keeper them.
	syncEvery = 10 * time.Second
	// stepTime is how long a node waits before it tries again to get a lock, or to reach the
	// keeper.
	stepTime = time.Second
	// renewTime is how often the holder of a lock says that it still needs it.
	renewTime = 3 * time.Second
	// leaseTime is how long a lock stays with a holder that is not heard of. It is longer than
	// a few failed words of a holder that lives.
	leaseTime = 12 * time.Second
	// patience is how long a node tries to reach the keeper before it does without. It is
	// longer than gossip takes to find a keeper dead.
	patience = 20 * time.Second
	// orderTime bounds getting one certificate, with all waiting for a lock.
	orderTime = 10 * time.Minute
	// pollTime bounds the authority's part of it.
	pollTime = 2 * time.Minute
	// challengeTime bounds a handshake's question for a challenge. The authority waits longer.
	challengeTime = 5 * time.Second
	// challengeRest is how long the answer to it holds, for all who ask meanwhile.
	challengeRest = time.Second
	// After a failure nobody asks for firstRest, then twice as long each time, lastRest at most:
	// Let's Encrypt allows five failures an hour for a name.
	firstRest = time.Minute
	lastRest  = time.Hour
	// A certificate is looked at firstLook after another, if it is valid for a minute only, and
	// lastLook after another if it is valid for long.
	firstLook = time.Second
	lastLook  = 10 * time.Minute
	// alarmTime before its end a certificate that was not renewed is told of.
	alarmTime = 7 * 24 * time.Hour
)
