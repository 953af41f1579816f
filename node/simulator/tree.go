package simulator

import (
	"strconv"
	"time"

	"oci-proxy/transfer/feed"
)

// A tree is the product's Plan: transfer/feed.
type tree struct {
	*feed.Tree
	seats map[int]int // by machine
}

func newTree(zone string) *tree { return &tree{feed.NewTree(zone), map[int]int{}} }

// Place implements Plan.
func (p *tree) Place(machine int, zone string, not []int, now time.Duration) int {
	a := feed.Asker{ID: strconv.Itoa(machine), Zone: zone, Seat: p.seats[machine], Usable: func(string) bool { return true }}
	for _, n := range not {
		a.Not = append(a.Not, strconv.Itoa(n))
	}
	number, by := p.Tree.Place(a, time.Unix(0, 0).Add(now))
	p.seats[machine] = number
	if by.Seat == 0 {
		return 0
	}
	feeder, _ := strconv.Atoi(by.ID)
	return feeder
}

// Told implements Plan.
func (p *tree) Told(machine int, came, owner int64, now time.Duration) (leave bool, next time.Duration) {
	return p.Tree.Told(strconv.Itoa(machine), p.seats[machine], came, owner, time.Unix(0, 0).Add(now))
}
