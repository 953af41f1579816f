package lanes

import "time"

const (
	// minLeg is how short a leg is at least, in bytes, unless the blob ends.
	minLeg = blockSize
	// maxLeg is how long a leg is at most, in bytes.
	maxLeg = 8 << 20
	// worth is how many times as long as the wait for its first byte a leg is to take, so
	// that waiting costs a twentieth.
	worth = 20
	// minTake is how long a leg is to take at least.
	minTake = 500 * time.Millisecond
)

// A pace is what the lanes of a download have measured, the latest legs counting most.
// Its caller sees to it that one goroutine at a time uses it.
type pace struct {
	speed float64       // of one lane from the first byte on, in bytes a second; 0: not known
	delay time.Duration // between a request and the first byte of its answer
}

// learn takes in a leg whose first byte came after delay, and which then brought n bytes
// more in that time.
func (p *pace) learn(delay time.Duration, n int64, took time.Duration) {
	if n <= 0 {
		return
	}
	speed := float64(n) / max(took, time.Millisecond).Seconds()
	if p.speed == 0 {
		p.speed, p.delay = speed, delay
		return
	}
	p.speed, p.delay = (p.speed+speed)/2, (p.delay+delay)/2
}

// length returns how many bytes a leg is to have, by what is known.
func (p *pace) length() int64 {
	if p.speed == 0 {
		return firstLeg
	}
	n := p.speed * max(worth*p.delay, minTake).Seconds()
	return whole(int64(min(max(n, minLeg), maxLeg)))
}

// takes returns how long another lane would need for n bytes, a request included.
func (p *pace) takes(n int64) time.Duration {
	return p.delay + time.Duration(float64(n)/p.speed*float64(time.Second))
}

// whole rounds n down to whole blocks, one at least.
func whole(n int64) int64 { return max(n/blockSize, 1) * blockSize }
