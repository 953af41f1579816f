package membership

import "time"

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
	defaultGrace = 120 * time.Second // how long a member that is down keeps its place in the ring
	remember     = 24 * time.Hour    // how long the address of a member that is down is tried

	// The views.
	debounce  = 50 * time.Millisecond // gathers changes; short, as lookups want the news
	formerFor = 10 * time.Minute      // how long View.Former lists a ring that was replaced

	// The address book on disk.
	saveEvery = 10 * time.Second // how often it is saved if it has changed
	renewed   = time.Hour        // how old the file may get while members live: it says when they were last seen

	// Looking for other members.
	lookupTime = 3 * time.Second        // how long a name may take to resolve
	firstPause = 500 * time.Millisecond // between tries while alone; doubles
	lastPause  = 10 * time.Second       // between tries at most

	// What Health reports.
	aloneFor     = 15 * time.Second // how long it may take to find a seed
	twiceFor     = 15 * time.Second // how long this node's id may live twice: its last boot may not be found dead yet
	contestedFor = time.Minute      // how long a conflict of names counts; it is seen again at each exchange

	logWindow = time.Minute // in which a message of gossip is logged once
)

// mingling says when, after its first join, a node joins further members. With
// gossip alone, some members of a mesh that starts at once stay unknown to
// others for more than a minute.
var mingling = []time.Duration{time.Second, 3 * time.Second, 8 * time.Second}
