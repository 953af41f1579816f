package egress

import "time"

// The times of this room. TestTimesAreInOrder states which of them have to be in an order.
const (
	// within bounds each request, whatever ways are tried: until all of it is there, or
	// the header of a blob. It is less than a client's 39 s, so that it is told why.
	within = 38 * time.Second
	// otherWays is for how long other ways are begun once this node's own has failed. A
	// client whose tag is cached waits 5 s at most, and has the cached one then.
	otherWays = 3250 * time.Millisecond
	// stagger is how long one member has before the next is asked, too.
	stagger = 100 * time.Millisecond
	// searchWithin bounds a search. With the time in which this node's own way fails it
	// fits into the 5 s of a client whose tag is cached.
	searchWithin = 3 * time.Second
	// probeEvery is how often this node's own way is tried while members' are taken
	// instead. Nobody waits for that.
	probeEvery = 5 * time.Second
	// measuredFor is how long a measured speed counts. After that the way is tried, and
	// measured, again.
	measuredFor = 5 * time.Minute
	// toldFor is how long it counts what a member's way was found or told to be, and
	// downFor is how long one that was found down is not asked again.
	toldFor = 5 * time.Minute
	downFor = 250 * time.Millisecond
	// broughtFor is how long it is remembered which member brought a whole blob.
	broughtFor = time.Minute
	// patient: a member is not left because little comes through it, since that may be
	// the registry's fault.
	patient = 24 * time.Hour
)
