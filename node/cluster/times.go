package cluster

import "time"

// How long things may take among the members. The order of these matters;
// TestTimesAreInOrder states it.
const (
	// fanTime bounds asking all members something, so that a report is complete
	// within the second that its reader waits. A member that hangs is then missing.
	fanTime = 900 * time.Millisecond
	// examineTime bounds the examination of all members, each of which looks at registries
	// and disks. It is longer than what a member allows itself.
	examineTime = 25 * time.Second
	// reportAge is for how long what members said is passed on. A round that was just
	// made is still fresh.
	reportAge = time.Second
	// listenTime is how often members are asked for reports, in a cluster of up to 20.
	listenTime = 10 * time.Second
	// silentTime is for how long a member that is alive may fail to answer before it is
	// told. It is longer than two rounds of questions (see Listen).
	silentTime = 30 * time.Second
	// unaskedTime is for how long no member may ask before it is told. It is longer than
	// it takes a member that could not ask to try again.
	unaskedTime = time.Minute
	// skewTime is after how long members of different versions are told of. It is longer
	// than an upgrade of a large cluster takes, one node after the other.
	skewTime = time.Hour
	// farewellTime bounds the last words to the others. It is longer than gossip
	// needs for them (2 s).
	farewellTime = 3 * time.Second
	// MeetTime bounds how long a node that starts looks for others before it is
	// ready. It is shorter than what orchestrators wait for readiness.
	MeetTime = 5 * time.Second
	// catchUpTime bounds how long a node waits, before it asks a registry, until it routes by
	// what gossip knows. That takes 50 ms, and longer in a large cluster.
	catchUpTime = 2 * time.Second
	// leaveListTime is how long a node that leaves waits until it knows what it holds.
	leaveListTime = 2 * time.Minute
	// offerTime bounds handing over one blob: a large one over a slow link.
	offerTime = 10 * time.Minute
	// leastRate is how many bytes a second a member takes at least of a copy, beyond that.
	leastRate = 1 << 20
	// copyAfter is how long after a blob has come others are asked whether they have it.
	// Members that want it have begun to get it by then.
	copyAfter = 3 * time.Second
	// settleTime is for how long the ring stays the same before what is held is looked at.
	// It is longer than members that start or leave together need.
	settleTime = 10 * time.Second
	// yieldTime is how long a copy waits at most while clients are served, and yieldStep
	// how often it looks.
	yieldTime = 5 * time.Second
	yieldStep = 250 * time.Millisecond
	// listTime is how long a shard is waited for that is being listed, and unlistedPause when
	// one that was not is looked at again.
	listTime      = 10 * time.Second
	unlistedPause = time.Minute
	// busyPause is when a member that took others' copies is offered one again, and busyTries
	// how often it is offered in all.
	busyPause = 10 * time.Second
	busyTries = 5
	// rescueBusyPause is busyPause for what may lie on one node alone. Members hold such
	// offers up for longer than that before they say that they take others.
	rescueBusyPause = time.Second
	// rescueApart is by how much, for each member, those that see to what a lost one held begin at
	// different moments, a second at most.
	rescueApart = 10 * time.Millisecond
	// mindStep is how often it is seen whether a member that was taken for lost is well.
	mindStep = 30 * time.Second
	// listenAgain is how often each member is asked for a sign of life, so that there is a
	// connection to it. It is shorter than such connections are kept (90 s).
	listenAgain = 45 * time.Second
	// aliveStep is how often a member that takes a copy is asked for a sign of life.
	aliveStep = 5 * time.Second
	// tellAfter is how long after a change of the ring the members are told what this node
	// holds of theirs, and up to twice that: more changes may follow.
	tellAfter = time.Second
	// tellTime bounds telling a member something. It is longer than one needs that hardly
	// ever gets a processor.
	tellTime = 10 * time.Second
	// tellStep is how often it is seen at least whether a member can be told again.
	tellStep = 10 * time.Second
	// longestRest bounds the rest between two blobs that are looked at.
	longestRest = time.Second
	// secureTime bounds the offers of a node that stops for a moment.
	secureTime = 10 * time.Second
)
