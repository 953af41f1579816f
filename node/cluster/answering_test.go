package cluster

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/node/health"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/mesh"
)

// meshOf is a view of this node and others that have been alive since.
func meshOf(since time.Time, names ...string) *membership.View {
	v := &membership.View{Self: membership.Member{ID: "self", Peer: "10.0.0.1:7947"}}
	for _, name := range append([]string{"self"}, names...) {
		v.Members = append(v.Members, membership.Member{ID: name, Name: name, Peer: name + ":7947", Up: true, Since: since})
	}
	return v
}

func TestMembersThatDoNotAnswerAreNamed(t *testing.T) {
	t.Parallel()
	refused := &mesh.PeerError{Peer: "b", Err: errors.New("connection refused")}
	busy := &mesh.PeerError{Peer: "b", Busy: true, Err: errors.New("busy")}
	for name, test := range map[string]struct {
		others []string
		errs   []error // of each round, by member
		rounds int
		asked  time.Duration // ago; 0: never
		want   string        // "": healthy
	}{
		"all answer":                    {[]string{"b", "c"}, []error{nil, nil}, 10, time.Second, ""},
		"none, but not for long":        {[]string{"b", "c"}, []error{refused, refused}, 2, time.Second, ""},
		"none":                          {[]string{"b", "c"}, []error{refused, refused}, 5, time.Second, "no other member answers on the peers' port, so this node fetches for itself: b (b:7947: peer b: connection refused), c (c:7947"},
		"none of many":                  {[]string{"b", "c", "d", "e", "f", "g"}, []error{refused, refused, refused, refused, refused, refused}, 5, time.Second, "and 2 more"},
		"one of two":                    {[]string{"b", "c"}, []error{nil, refused}, 5, time.Second, "some members are alive but do not answer on the peers' port: c (c:7947"},
		"busy ones answer":              {[]string{"b"}, []error{busy}, 10, time.Second, ""},
		"those down are not asked":      {[]string{"b"}, []error{errDown}, 10, time.Second, ""},
		"nobody asks":                   {[]string{"b", "c"}, []error{nil, nil}, 10, 0, "no other member has reached this node on the peers' port (10.0.0.1:7947) for 1m40s"},
		"nobody asks any more":          {[]string{"b", "c"}, []error{nil, nil}, 10, 70 * time.Second, "for 1m10s"},
		"nobody asks, but not for long": {[]string{"b", "c"}, []error{nil, nil}, 5, 0, ""},
		"alone":                         {nil, nil, 10, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a, v := newAnswering(), meshOf(time.Now(), test.others...)
				for range test.rounds {
					var said []Report
					for i, err := range test.errs {
						said = append(said, Report{Member: &v.Members[i+1], Err: err})
					}
					a.note(said)
					time.Sleep(10 * time.Second) // in the bubble
				}
				asked := time.Time{}
				if test.asked > 0 {
					asked = time.Now().Add(-test.asked)
				}
				err := a.health(v, asked, time.Now())
				if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || health.CodeOf(err) != health.PeerPort) {
					t.Fatalf("%v, want %q", err, test.want)
				}
				// One answer, and one question, mend it.
				var said []Report
				for i := range test.others {
					said = append(said, Report{Member: &v.Members[i+1]})
				}
				a.note(said)
				if err := a.health(v, time.Now(), time.Now()); err != nil {
					t.Errorf("all answer and ask: %v", err)
				}
			})
		})
	}
}

// A member that has just come is given the time to ask.
func TestANewMemberNeedNotHaveAsked(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a := &answering{began: now.Add(-time.Hour), silent: map[string]silence{}}
	for age, healthy := range map[time.Duration]bool{time.Second: true, 59 * time.Second: true, 61 * time.Second: false} {
		if err := a.health(meshOf(now.Add(-age), "b"), time.Time{}, now); (err == nil) != healthy {
			t.Errorf("a member of %v: %v", age, err)
		}
	}
}

// A member that advertises a wrong address is down and back again and again. Those who can't reach
// it are well.
func TestAMemberThatWasDownIsGivenTimeToAnswer(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a := &answering{began: now.Add(-time.Hour), silent: map[string]silence{"b": {since: now.Add(-time.Hour), last: errors.New("no route")}}}
	for back, healthy := range map[time.Duration]bool{time.Second: true, 29 * time.Second: true, 31 * time.Second: false} {
		if err := a.health(meshOf(now.Add(-back), "b"), now, now); (err == nil) != healthy {
			t.Errorf("back for %v: %v", back, err)
		}
	}
}
