package node

import (
	"testing"
	"time"

	"oci-proxy/node/cluster"
	"oci-proxy/node/config"
	"oci-proxy/node/gate"
)

// Each time-out has to be longer than the one before it. times.go, node/gate and
// node/cluster say why.
func TestTimesAreInOrder(t *testing.T) {
	t.Parallel()
	cfg, err := config.Parse("test.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	const keptAlive = 90 * time.Second // Go's clients keep idle connections
	last := time.Duration(0)
	for _, one := range []struct {
		name string
		time time.Duration
	}{
		{"gate.BodyTimeout", gate.BodyTimeout}, {"cluster.MeetTime", cluster.MeetTime}, {"headerTime", headerTime}, {"pingAfter", pingAfter},
		{"shutdown_timeout", cfg.ShutdownTimeout}, {"clients' idle connections", keptAlive}, {"idleTime", idleTime}, {"pieceTime", pieceTime},
	} {
		if one.time <= last {
			t.Errorf("%s is %v, want more than %v", one.name, one.time, last)
		}
		last = one.time
	}
	if betweenLayers >= cfg.ShutdownTimeout/2 {
		t.Errorf("a pull may pause for %v, and a drain waits for pulls only for %v", betweenLayers, cfg.ShutdownTimeout/2)
	}
}
