package peer

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// How a large blob spreads over the members is decided in transfer/feed. Here is what they
// say about it. A member of an earlier version reads nothing of it and sends the bytes.

const (
	maxSeat = 64     // bytes of a seat
	maxZone = 1 << 8 // bytes of a zone
	maxNot  = 8      // members that the asker does not want to be sent on to
)

// The values of the parameter feed.
const (
	feedAsks = "1"    // the asker may be sent on
	feedHere = "here" // it has a seat, but is to have the bytes from who is asked
)

// setFeed writes what is asked about the way a blob takes.
func setFeed(v url.Values, f mesh.Feed, came int64) {
	switch {
	case f.Here:
		v.Set("feed", feedHere)
	case f.Asks:
		v.Set("feed", feedAsks)
	}
	set(v, "zone", f.Zone)
	set(v, "seat", f.Seat)
	set(v, "by", f.By)
	not := strings.Fields(f.Not)
	set(v, "not", strings.Join(not[max(0, len(not)-maxNot):], " ")) // those that came first may be better now
	if came > 0 {
		v.Set("came", strconv.FormatInt(came, 10))
	}
}

// readFeed reads what setFeed wrote.
func readFeed(v url.Values) (f mesh.Feed, came int64, err error) {
	for _, key := range []string{"feed", "zone", "seat", "by", "came", "not"} {
		if len(v[key]) > 1 {
			return f, 0, errQuery
		}
	}
	how := v.Get("feed")
	f = mesh.Feed{Asks: how == feedAsks || how == feedHere, Here: how == feedHere, Zone: v.Get("zone"), Seat: v.Get("seat"), By: v.Get("by"), Not: v.Get("not")}
	if in := v.Get("came"); in != "" {
		if came, err = strconv.ParseInt(in, 10, 64); err != nil || came < 0 {
			return f, 0, errQuery
		}
	}
	not, wrong := strings.Fields(f.Not), func(id string) bool { return !isID(id) }
	if len(f.Zone) > maxZone || !isSeat(f.Seat) || !isSeat(f.By) || len(not) > maxNot || slices.ContainsFunc(not, wrong) {
		return f, 0, errQuery
	}
	f.Not = strings.Join(not, " ")
	return f, came, nil
}

// isSeat reports whether s has the form of a seat, or is none.
func isSeat(s string) bool { return s == "" || len(s) <= maxSeat && isID(s) }

// setFeeding tells a member how it is to get a blob.
func setFeeding(h http.Header, f oci.Feeding) {
	if f.Seat != "" {
		h.Set(headerSeat, f.Seat)
	}
	if f.Feeder != "" {
		h.Set(headerFeeder, f.Feeder+" "+f.By)
	}
}

var errFeeding = errors.New("what it says of who has the blob is malformed")

// readFeeding reads what setFeeding wrote, of an answer to a request that asked for it.
func readFeeding(h http.Header, asked mesh.Feed) (f oci.Feeding, err error) {
	f.Seat = h.Get(headerSeat)
	if feeder := h.Get(headerFeeder); feeder != "" {
		f.Feeder, f.By, _ = strings.Cut(feeder, " ")
		if !isID(f.Feeder) || f.By == "" || f.Seat == "" || asked.Here {
			return oci.Feeding{}, errFeeding
		}
	}
	if !isSeat(f.Seat) || !isSeat(f.By) || !asked.Asks && f != (oci.Feeding{}) {
		return oci.Feeding{}, errFeeding
	}
	return f, nil
}

// Report implements mesh.Peer. It takes at most 2 s.
func (p *remote) Report(ctx context.Context, ref oci.Ref, how mesh.Report) (mesh.Progress, error) {
	return p.progress(ctx, query{Ref: ref, Terms: mesh.Terms{Feed: mesh.Feed{Seat: how.Seat}}, came: how.Came})
}

// progress asks how far the peer is with a blob. It takes at most 2 s of what this node is awake.
func (p *remote) progress(ctx context.Context, q query) (got mesh.Progress, err error) {
	ctx, end := wait.Within(ctx, p.client.times.progress, errLate)
	defer end()
	a, err := p.client.small(ctx, p.id, ask{
		method: http.MethodGet, path: root + "progress/" + q.Digest.String(), query: q,
	}, maxJSON, 0)
	if err != nil {
		return mesh.Progress{}, err
	}
	if err := json.Unmarshal(a.body, &got); err != nil || got.Offset < 0 || got.Streams < 0 || got.Begun < 0 || got.Next < 0 {
		return mesh.Progress{}, p.client.garbled(a.link, errors.New("its progress is malformed"))
	}
	return got, nil
}
