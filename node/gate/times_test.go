package gate

import (
	"testing"
	"time"
)

// No time-out may be shorter than the one before it, and most are longer. times.go
// says why.
func TestTimesAreInOrder(t *testing.T) {
	t.Parallel()
	last := time.Duration(0)
	for _, one := range []struct {
		name string
		time time.Duration
	}{
		{"refusalDelay", refusalDelay},
		{"busyDelay", busyDelay},
		{"busyRetry", busyRetry},
		{"failuresSlow refusals", (failuresSlow - failuresFree) * refusalDelay},
		{"failureSpan", failureSpan},
		{"hashTime", hashTime},
		{"loginAge", loginAge},
	} {
		if one.time < last {
			t.Errorf("%s is %v, want at least %v", one.name, one.time, last)
		}
		last = one.time
	}
	if refusalDelay >= busyDelay || hashTime >= loginAge {
		t.Error("refusalDelay must be shorter than busyDelay, and hashTime than loginAge")
	}
}
