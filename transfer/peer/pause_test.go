package peer

import (
	"testing"
	"time"
)

// A member hears for how long a registry asks to be left alone, and believes an hour at most.
func TestPausesAreTold(t *testing.T) {
	t.Parallel()
	type pause struct {
		registry string
		d        time.Duration
	}
	var heard []pause
	r := newRig(t, setup{pause: func(registry string, d time.Duration) { heard = append(heard, pause{registry, d}) }})
	for _, d := range []time.Duration{90 * time.Second, 1500 * time.Millisecond, 30 * time.Hour, 0} {
		if err := r.Pause(t.Context(), "b", "reg.example.com:5000", d); err != nil {
			t.Fatal(err)
		}
	}
	want := []pause{{"reg.example.com:5000", 90 * time.Second}, {"reg.example.com:5000", 2 * time.Second}, {"reg.example.com:5000", longestPause}}
	if len(heard) != len(want) {
		t.Fatalf("heard %v, want %v", heard, want)
	}
	for i := range want {
		if heard[i] != want[i] {
			t.Errorf("heard %v, want %v", heard[i], want[i])
		}
	}
	for _, raw := range []string{"registry=a.io&pause=-1", "registry=a.io&pause=1&pause=2", "registry=a.io&pause=99999999999", "registry=a.io&pause=x"} {
		if _, err := parseQuery(raw); err == nil {
			t.Errorf("%s is understood", raw)
		}
	}
}

// A member that does not care answers all the same.
func TestPausesNobodyWants(t *testing.T) {
	t.Parallel()
	if err := newRig(t, setup{}).Pause(t.Context(), "b", "reg.example.com", time.Minute); err != nil {
		t.Error(err)
	}
}
