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

func TestQuarantineIsForOneBlobAndExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &member{id: "a"}, &member{id: "b"}
		m, _ := newMesh(a, b, nil)
		m.Quarantine(contentOf(1), []Peer{a})
		if trusts(m, contentOf(1), a) || !trusts(m, contentOf(1), b) || !trusts(m, contentOf(2), a) {
			t.Error("the wrong ones are in quarantine")
		}
		<-time.After(quarantineFor - time.Second)
		m.Quarantine(contentOf(1), []Peer{b}) // the mixture of both
		<-time.After(2 * time.Second)
		if trusts(m, contentOf(1), a) || trusts(m, contentOf(1), b) {
			t.Error("who is in quarantine has left it too early")
		}
		<-time.After(quarantineFor)
		if !trusts(m, contentOf(1), a) || !trusts(m, contentOf(1), b) {
			t.Error("the quarantine does not end")
		}
		m.Quarantine(contentOf(1), []Peer{b})
		if !trusts(m, contentOf(1), a) {
			t.Error("a quarantine that has ended begins again with another's")
		}
	})
}

// A node that may not ask the registry itself has to take what it can get.
func TestQuarantineIsOnlyForThoseWithAnotherWay(t *testing.T) {
	t.Parallel()
	a := &member{id: "a"}
	m, _ := newMesh(a)
	m.Quarantine(contentOf(1), []Peer{a})
	if !trusts(m, contentOf(1), a) {
		t.Error("the only one who may be asked is not asked")
	}
}

func TestQuarantineForgetsOneAtATime(t *testing.T) {
	t.Parallel()
	a := &member{id: "a"}
	m, _ := newMesh(a, nil)
	for i := range maxQuarantined + 1 {
		m.Quarantine(contentOf(i), []Peer{a})
	}
	if !trusts(m, contentOf(0), a) {
		t.Error("the oldest case is not forgotten")
	}
	for _, i := range []int{1, 2, maxQuarantined / 2, maxQuarantined} {
		if trusts(m, contentOf(i), a) {
			t.Errorf("case %d is forgotten", i)
		}
	}
}
