package lanes

import (
	"time"

	"oci-proxy/transfer/oci"
)

const (
	// still is how long a leg may bring nothing before another lane takes it over.
	still = 2 * time.Second
	// slowStart is how many times as long as usual the first byte of a leg may take.
	slowStart = 4
	// wayLeg is how long a leg is at most that comes by another way, in bytes: other members
	// pass on no more at once.
	wayLeg = 1 << 20
	// crawl is how many times as fast other legs come than one that crawls.
	crawl = 4
	// crawlFor is how long a leg is looked at before it may be said to crawl, and how much
	// sooner than it another lane must be done for a change to be worth it.
	crawlFor = time.Second
	// maxMoves is how often bytes may be taken over. After each time, still doubles, up to
	// longestStill.
	maxMoves     = 6
	longestStill = 4 * still
)

// A leg is a range of the blob that one request is to bring. Its caller sees to it that
// one goroutine at a time uses it.
type leg struct {
	oci.Span
	owner    *lane  // that brings it; nil: nobody
	stop     func() // ends the owner's request
	got      int64  // how many bytes have come
	read     int64  // how many of them were read
	blocks   []*block
	passed   int // blocks that were read and given back
	failures int // requests in a row that brought nothing
	moves    int // how often its bytes were taken over

	asked time.Time // when its request was sent
	first time.Time // when the first byte of that came; zero: not yet
	last  time.Time // when the last byte came
	early int64     // how many bytes came with the first one
}

// complete reports whether all of the leg has come.
func (g *leg) complete() bool { return g.got == g.Length }

// own makes a lane the one that brings the leg.
func (g *leg) own(l *lane, now time.Time) {
	g.owner, g.stop, g.asked, g.first = l, func() {}, now, time.Time{}
}

// space returns where the next bytes go.
func (g *leg) space() []byte {
	at := g.got % blockSize
	if at == 0 && int(g.got/blockSize) == g.passed+len(g.blocks) {
		g.blocks = append(g.blocks, blocks.Get().(*block))
	}
	last := g.blocks[len(g.blocks)-1]
	return last[at:min(blockSize, at+g.Length-g.got)]
}

// came hears that n bytes have come, into the leg's space.
func (g *leg) came(n int64, now time.Time) {
	g.got += n
	g.last = now
	if g.first.IsZero() {
		g.first, g.early = now, n
	}
}

// unread returns bytes that have come and were not read, nil if there are none.
func (g *leg) unread() []byte {
	if g.read == g.got {
		return nil
	}
	at := g.read % blockSize
	return g.blocks[int(g.read/blockSize)-g.passed][at:min(blockSize, at+g.got-g.read)]
}

// took hears that n of those bytes were read. It reports whether that gave a block back.
// One that was not filled stays out of use: a lane that lost the leg may still be writing
// to the rest of it.
func (g *leg) took(n int64) bool {
	g.read += n
	if g.read%blockSize != 0 {
		return false
	}
	blocks.Put(g.blocks[0])
	g.blocks = g.blocks[1:]
	g.passed++
	return true
}

// silent returns since when the leg's request has brought nothing.
func (g *leg) silent() time.Time {
	if g.first.IsZero() {
		return g.asked
	}
	return g.last
}

// late reports whether another lane is to take the leg over, by what other legs took.
func (g *leg) late(p *pace, now time.Time) bool {
	if g.owner == nil || g.moves >= maxMoves || p.speed == 0 {
		return false
	}
	patience := min(still<<g.moves, longestStill)
	if g.first.IsZero() {
		patience = max(patience, slowStart*p.delay)
		if g.owner.way != nil { // which may get all of it before it passes anything on
			patience = max(patience, 2*p.takes(g.Length))
		}
	}
	if now.Sub(g.silent()) >= patience {
		return true
	}
	if g.first.IsZero() {
		return false
	}
	took := now.Sub(g.first)
	if took < crawlFor {
		return false
	}
	speed := float64(g.got) / took.Seconds()
	rest := g.Length - g.got
	left := time.Duration(float64(rest) / speed * float64(time.Second))
	return crawl*speed < p.speed && left > p.takes(rest)+crawlFor
}
