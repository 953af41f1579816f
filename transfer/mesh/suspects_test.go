package mesh

import (
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// trusts reports whether p may be asked for the content.
func trusts(m *Mesh, c oci.Content, p Peer) bool {
	return slices.Contains(m.Trusted(oci.Ref{Registry: c.Registry, Digest: c.Digest}, []Peer{p, nil}), p)
}

func contentOf(i int) oci.Content {
	return oci.Content{Registry: ref.Registry, Digest: digest.FromString(strconv.Itoa(i))}
}

func TestSuspicionIsForOneBlobAndExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &member{id: "a"}, &member{id: "b"}
		m, _ := newMesh(a, b, nil)
		m.Suspect(contentOf(1), []Peer{a})
		if trusts(m, contentOf(1), a) || !trusts(m, contentOf(1), b) || !trusts(m, contentOf(2), a) {
			t.Error("the wrong ones are suspected")
		}
		<-time.After(suspectFor - time.Second)
		m.Suspect(contentOf(1), []Peer{b}) // the mixture of both
		<-time.After(2 * time.Second)
		if trusts(m, contentOf(1), a) || trusts(m, contentOf(1), b) {
			t.Error("a suspicion ends too early")
		}
		<-time.After(suspectFor)
		if !trusts(m, contentOf(1), a) || !trusts(m, contentOf(1), b) {
			t.Error("the suspicion does not end")
		}
		m.Suspect(contentOf(1), []Peer{b})
		if !trusts(m, contentOf(1), a) {
			t.Error("a suspicion that has ended begins again with another")
		}
	})
}

// A node that may not ask the registry itself has to take what it can get.
func TestSuspicionIsOnlyForThoseWithAnotherWay(t *testing.T) {
	t.Parallel()
	a := &member{id: "a"}
	m, _ := newMesh(a)
	m.Suspect(contentOf(1), []Peer{a})
	if !trusts(m, contentOf(1), a) {
		t.Error("the only one who may be asked is not asked")
	}
}

func TestSuspectsAreForgottenOneAtATime(t *testing.T) {
	t.Parallel()
	a := &member{id: "a"}
	m, _ := newMesh(a, nil)
	for i := range maxSuspects + 1 {
		m.Suspect(contentOf(i), []Peer{a})
	}
	if !trusts(m, contentOf(0), a) {
		t.Error("the oldest case is not forgotten")
	}
	for _, i := range []int{1, 2, maxSuspects / 2, maxSuspects} {
		if trusts(m, contentOf(i), a) {
			t.Errorf("case %d is forgotten", i)
		}
	}
}
