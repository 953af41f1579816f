package live

import (
	"context"
	"encoding/json"
	"time"
)

// Run looks at what happens and tells it, until ctx ends. While nobody listens it looks once a
// minute, for the hour.
func (l *Live) Run(ctx context.Context) {
	s := &sampler{live: l, heard: make([]heard, len(l.cfg.Topics))}
	for {
		now := time.Now()
		l.hour.record(now, l.cfg.Sent())
		s.tell(now)
		select {
		case <-time.After(l.pause(now)):
		case <-l.listeners.came:
		case <-ctx.Done():
			return
		}
	}
}

// pause is how long the sampler may rest: to the end of the second if somebody listens, else to
// just before the end of the minute.
func (l *Live) pause(now time.Time) time.Duration {
	if l.listeners.many() > 0 {
		return tick
	}
	end := now.Truncate(time.Minute).Add(time.Minute - tick)
	if left := end.Sub(now); left > 0 {
		return left
	}
	return tick
}

// A sampler tells listeners what has changed.
type sampler struct {
	live  *Live
	heard []heard // by topic
}

// heard is what was last told of a topic.
type heard struct {
	at   time.Time // of the look
	text string    // JSON
}

// tell looks at all topics that are due, and tells listeners what they have not heard.
func (s *sampler) tell(now time.Time) {
	all := s.live.listeners.now()
	if len(all) == 0 {
		return
	}
	fresh := make([]bool, len(s.heard))
	for i, topic := range s.live.cfg.Topics {
		fresh[i] = s.look(now, topic, &s.heard[i])
	}
	pulls := s.live.cfg.Pulls()
	for _, li := range all {
		for i, topic := range s.live.cfg.Topics {
			if fresh[i] || !li.greeted {
				li.hear(event(topic.Name, []byte(s.heard[i].text)))
			}
		}
		li.greeted = true
		li.hearPulls(pulls)
	}
}

// look looks at a topic if it is due, and reports whether there is something new.
func (s *sampler) look(now time.Time, topic Topic, last *heard) bool {
	if now.Sub(last.at) < time.Duration(topic.Every)*tick-tick/2 && last.text != "" {
		return false
	}
	last.at = now
	text, err := json.Marshal(topic.Look())
	if err != nil || string(text) == last.text { // what is told always encodes
		return false
	}
	last.text = string(text)
	return true
}

// seen is what a listener hears of the pulls.
type seen struct {
	Pulls []Pull `json:"pulls"`
	More  int    `json:"more"` // that it may see beside those
}

// hearPulls tells a listener of the pulls that it may see, if they are others than before.
func (li *listener) hearPulls(all []Pull) {
	text, err := json.Marshal(li.viewer.look(all))
	if err != nil || string(text) == li.pulls { // texts and numbers always encode
		return
	}
	li.pulls = string(text)
	li.hear(event("pulls", text))
}

// look is what a viewer hears of pulls. It looks at maxSeen of them at most.
func (v *Viewer) look(all []Pull) seen {
	told := seen{Pulls: []Pull{}}
	for i, p := range all[:min(len(all), maxSeen)] {
		if v.All && i >= maxPulls {
			told.More = len(all) - i // none is refused
			break
		}
		p, ok := v.See(p)
		switch {
		case !ok:
		case len(told.Pulls) < maxPulls:
			told.Pulls = append(told.Pulls, p)
		default:
			told.More++
		}
	}
	return told
}
