package gate

import "time"

// How long clients may take, and how long they are made to wait. The order of
// these matters; TestTimesAreInOrder states it.
const (
	// refusalDelay is how long a refusal is held back: long enough to slow down a
	// guesser, short enough for a person.
	refusalDelay = time.Second
	// BodyTimeout is how long a client may take to send a body, which no request
	// needs.
	BodyTimeout = time.Second
	// busyDelay is how long the answer to a client that would come again at once is
	// held back.
	busyDelay = 2 * time.Second
	// busyRetry is when a client that was refused may come again.
	busyRetry = 10 * time.Second
	// failureSpan is how long failures count together, from the first one. It is
	// longer than the refusals held back within it.
	failureSpan = time.Minute
	// hashTime bounds one computation of a hash, the wait for its turn included. It is
	// shorter than a right login is believed.
	hashTime = time.Minute
	// loginAge is how long a right login is believed without computing its hash
	// again: clients send it with each layer.
	loginAge = 5 * time.Minute
)
