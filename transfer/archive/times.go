package archive

import "time"

const (
	// hedge is how long the bucket's answer may take to begin until the registry is asked
	// side by side.
	hedge = 250 * time.Millisecond
	// patience is how long the bucket's answer may take altogether while the registry fails,
	// too.
	patience = 5 * time.Second
	// lastFor is how long a bucket that is out of use is asked all the same when the registry
	// has failed. Upstream may have taken 38 s by then, of the 40 s that are promised.
	lastFor = 1500 * time.Millisecond
	// probeFor bounds a probe of a bucket that is out of use.
	probeFor = 5 * time.Second
	// firstRest is for how long a bucket is left alone that failed once; each further
	// failure doubles it, up to longestRest.
	firstRest   = 5 * time.Second
	longestRest = 5 * time.Minute
	// stillFor is how long a download from the bucket may stand still.
	stillFor = 2 * time.Second
	// crawlFor is over how long the speed of a download is judged.
	crawlFor = 2 * time.Second
	// wrongFor is for how long the bucket is not asked for an object with wrong bytes.
	wrongFor = 10 * time.Minute
	// putStill is how long an upload may stand still.
	putStill = 20 * time.Second
	// putLeast and putLeastRate bound an upload: it may take putLeast, and a second more for
	// each putLeastRate bytes.
	putLeast     = 2 * time.Minute
	putLeastRate = 256 << 10
	// closeWithin is how long uploads under way may go on when the node ends.
	closeWithin = 2 * time.Second
	// quietFor is the time between two lines of the log about content that was not put.
	quietFor = time.Minute
)
