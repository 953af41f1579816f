package mirrors

import "time"

const (
	// within bounds every question, like upstream.Within: the caller has an answer, the
	// header of a blob or an error then.
	within = 38 * time.Second
	// ownPatience is how long the registry's answer may take to begin while a mirror can be
	// asked, and the others how long a mirror's may: one that was not used yet, and the
	// bounds for one that was, which gets ten times what it usually takes. Who is cut off is
	// asked once more, with more time, if nobody else answers.
	ownPatience   = 5 * time.Second
	newPatience   = 3 * time.Second
	leastPatience = 2 * time.Second
	mostPatience  = 5 * time.Second
	// walkFor is how long the first walk along the places may take: the rest of within is
	// for those that were slow.
	walkFor = 20 * time.Second
	// stillFor is how long a stream may stand still while another place is well.
	stillFor = 5 * time.Second
	// crawlFor is over how long a stream's speed is judged.
	crawlFor = 4 * time.Second
	// remeasure is after how long a place that is not used is measured again.
	remeasure = 10 * time.Minute
	// reread is after how long a place is asked again for the beginning of a blob that did
	// not send one.
	reread = time.Minute
	// probeFor bounds a probe.
	probeFor = 5 * time.Second
	// lackFor is for how long a mirror that did not have something comes after others for
	// that repository.
	lackFor = time.Minute
	// lieFor is for how long a place is not asked for what it sent wrong bytes of.
	lieFor = 10 * time.Minute
)
