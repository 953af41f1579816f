package cluster

import (
	"testing"
	"time"
)

// Each time-out has to be longer than the one before it. times.go says why.
func TestTimesAreInOrder(t *testing.T) {
	t.Parallel()
	const (
		farewell = 2 * time.Second // what gossip needs to tell that a node leaves
		stopping = 10 * time.Second
	)
	last := time.Duration(0)
	for _, one := range []struct {
		name string
		time time.Duration
	}{
		{"fanTime", fanTime},
		{"reportAge", reportAge},
		{"gossip's last words", farewell},
		{"farewellTime", farewellTime},
		{"MeetTime", MeetTime},
		{"what engines wait for a container to stop", stopping},
		{"two rounds of questions and what they take", 2*listenTime + 2*fanTime},
		{"examineTime", examineTime},
		{"silentTime", silentTime},
		{"unaskedTime", unaskedTime},
		{"offerTime", offerTime},
	} {
		if one.time <= last {
			t.Errorf("%s is %v, want more than %v", one.name, one.time, last)
		}
		last = one.time
	}
}
