package cluster

import "time"

// How long things may take among the members. The order of these matters;
// TestTimesAreInOrder states it.
const (
	// fanTime bounds asking all members something, so that a report is complete
	// within the second that its reader waits. A member that hangs is then missing.
	fanTime = 900 * time.Millisecond
	// farewellTime bounds the last words to the others. It is longer than gossip
	// needs for them (2 s).
	farewellTime = 3 * time.Second
	// MeetTime bounds how long a node that starts looks for others before it is
	// ready. It is shorter than what orchestrators wait for readiness.
	MeetTime = 5 * time.Second
	// offerTime bounds handing over one blob: a large one over a slow link.
	offerTime = 10 * time.Minute
)
