package membership

import (
	"math"
	"time"
)

// foundDead returns how long memberlist takes at most to find a member dead that died,
// in a mesh of n. Beyond ten members, a suspicion takes longer by their logarithm.
func foundDead(n int) time.Duration {
	suspected := suspicionMult * suspicionMaxMult * max(1, math.Log10(float64(n)))
	return probeInterval + time.Duration(suspected*float64(probeInterval))
}

// gather returns how long changes are gathered among n members. Beyond a hundred, a ring takes tens of
// milliseconds to build, and what happens to several members at once comes from others one by one,
// over half a second: each would make a ring that hardly another node has.
func gather(n int) time.Duration {
	return min(max(debounce, time.Duration(n-100)*gatherStep), gatherMost)
}

// All times of this package. TestTimesAreInOrder states which must be shorter
// than which, and why.
const (
	// Gossip, see settings. This is memberlist's timing for a LAN, with more
	// gossip: its defaults let one of seven updates miss a member in a mesh of nine.
	gossipInterval   = 100 * time.Millisecond // between rounds of gossip
	probeTimeout     = 500 * time.Millisecond // for the answer of a probed member
	probeInterval    = time.Second            // one member is probed per interval
	streamTimeout    = 3 * time.Second        // to dial a member, and for its answer
	pushPullInterval = 10 * time.Second       // between exchanges of all that two members know
	gossipToDead     = 30 * time.Second       // how long a member that died is still told of changes
	reclaimAfter     = time.Second            // after which a dead member's name may be used at another address

	// This node's own changes.
	announceTime = 2 * time.Second // how long a change waits until the others are told
	leaveTime    = 2 * time.Second // how long a good-bye may take

	// Members that are lost.
	lateFor      = 8 * time.Second        // how long one counts as alive that was found dead and takes connections
	firstKnock   = 100 * time.Millisecond // between two tries of whether it does; doubles
	knockTime    = 2 * time.Second        // how long that may take
	defaultGrace = 120 * time.Second      // how long a member that is down keeps its place in the ring
	remember     = 24 * time.Hour         // how long the address of a member that is down is tried

	// The views.
	debounce = 50 * time.Millisecond // gathers changes; short, as lookups want the news. See gather
	// Those of a large cluster.
	gatherStep = 5 * time.Millisecond
	gatherMost = 500 * time.Millisecond
	formerFor  = 10 * time.Minute // how long View.Former lists a ring that was replaced
	stoodFor   = 2 * time.Second  // how long a ring was in use that others are told of
	sameLoss   = 30 * time.Second // by how much two nodes may differ on when a ring was replaced

	// The address book on disk.
	saveEvery = 10 * time.Second // how often it is saved if it has changed, and so are the rings
	renewed   = time.Hour        // how old the file may get while members live: it says when they were last seen
	aged      = time.Minute      // how old the file of the rings may get while there are former ones: it tells their ages

	// Looking for other members.
	lookupTime = 3 * time.Second        // how long a name may take to resolve
	firstPause = 500 * time.Millisecond // between tries while alone; doubles
	lastPause  = 10 * time.Second       // between tries at most

	// What Health reports.
	aloneFor     = 15 * time.Second // how long it may take to find a seed
	twiceFor     = 15 * time.Second // how long this node's id may live twice: its last boot may not be found dead yet
	lookAgain    = 2 * time.Second  // between two looks at a node that may have this node's id
	clashFor     = 30 * time.Second // how long a node tells of other nodes that have one title
	sameStart    = time.Second      // of two nodes with one id: they started at about the same time
	replaceTime  = time.Minute      // how long before a loss is noticed a node of that name may have taken the place
	tryAgain     = 30 * time.Second // between two tries of an address that does not answer
	toldFor      = 90 * time.Second // how long it counts that an address does not answer
	contestedFor = time.Minute      // how long a conflict of names counts; it is seen again at each exchange

	logWindow = time.Minute // in which a message of gossip is logged once
	udpAfter  = time.Minute // how long packets are lost before it is logged
)

// mingling says when, after its first join, a node joins further members. With
// gossip alone, some members of a mesh that starts at once stay unknown to
// others for more than a minute.
var mingling = []time.Duration{time.Second, 3 * time.Second, 8 * time.Second}
