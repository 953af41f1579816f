package peer

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"oci-proxy/transfer/mesh"
)

// maxLatency and maxRate bound what a node says of its way out.
const (
	maxLatency = time.Minute
	maxRate    = 1 << 50
)

// encodeWay writes what headerWay says, "" for a way of which nothing is known.
func encodeWay(w mesh.Way) string {
	switch w.State {
	case mesh.WayUp:
		return fmt.Sprintf("up %d %d", min(w.Latency, maxLatency).Milliseconds(), min(w.Rate, maxRate))
	case mesh.WayDown:
		return "down"
	default:
		return ""
	}
}

// parseWay reads what encodeWay wrote. It takes what it can't read for nothing: it is a hint.
func parseWay(s string) mesh.Way {
	if s == "down" {
		return mesh.Way{State: mesh.WayDown}
	}
	parts := strings.Split(s, " ")
	if len(parts) != 3 || parts[0] != "up" {
		return mesh.Way{}
	}
	ms, err := strconv.ParseUint(parts[1], 10, 32)
	rate, wrong := strconv.ParseUint(parts[2], 10, 63)
	if err != nil || wrong != nil || rate > maxRate || time.Duration(ms)*time.Millisecond > maxLatency {
		return mesh.Way{}
	}
	return mesh.Way{State: mesh.WayUp, Latency: time.Duration(ms) * time.Millisecond, Rate: int64(rate)}
}
