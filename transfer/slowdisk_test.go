package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

const (
	// stuckFor is how long the call takes that the disk delays.
	stuckFor = 3 * time.Second
	// atOnce bounds what everything else may take meanwhile, in the bubble's time.
	atOnce = 100 * time.Millisecond
)

// A stall delays the first file call that matches.
type stall struct {
	op, name string // the call matches this op, and its file's name contains this name
	full     bool   // the disk has no room when bytes are reserved for the first time
	filled   atomic.Bool
	met      atomic.Bool
	reached  chan struct{} // closed when the call begins to wait
}

func newStall(op, name string) *stall {
	return &stall{op: op, name: name, reached: make(chan struct{})}
}

// hold is for cache.Options.Fault.
func (s *stall) hold(op, name string) error {
	if s == nil {
		return nil
	}
	if op == s.op && strings.Contains(name, s.name) && s.met.CompareAndSwap(false, true) {
		close(s.reached)
		time.Sleep(stuckFor) // in the bubble's time
	}
	if s.full && op == "allocate" && s.filled.CompareAndSwap(false, true) {
		return syscall.ENOSPC
	}
	return nil
}

// A catalog is an upstream with any number of blobs, and a manifest for each tag.
type catalog struct {
	fake
	blobs map[digest.Digest][]byte
	cut   digest.Digest // the blob that breaks off for good after 3/4
}

const catalogTags = "one two three"

func newCatalog(blobs ...[]byte) *catalog {
	c := &catalog{blobs: map[digest.Digest][]byte{}}
	for _, b := range blobs {
		c.blobs[digest.FromBytes(b)] = b
	}
	for tag := range strings.FieldsSeq(catalogTags) {
		m := manifestOf(tag)
		c.blobs[digest.FromBytes(m)] = m
	}
	return c
}

// manifestOf returns the manifest that a tag of a catalog means.
func manifestOf(tag string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"annotations":{"tag":%q}}`, tag)
}

// find returns the content that ref names.
func (c *catalog) find(ref oci.Ref) (digest.Digest, []byte, error) {
	d := ref.Digest
	if ref.Tag != "" && strings.Contains(catalogTags, ref.Tag) {
		d = digest.FromBytes(manifestOf(ref.Tag))
	}
	if b, ok := c.blobs[d]; ok {
		return d, b, nil
	}
	absent := failure(oci.NotFound)
	absent.By = oci.Registry
	return "", nil, absent
}

func (c *catalog) Open(_ context.Context, ref oci.Ref, off int64) (*oci.Stream, error) {
	d, b, err := c.find(ref)
	if err != nil || d == c.cut && off > 0 {
		return nil, errors.Join(err, failure(oci.NotFound))
	}
	s := &oci.Stream{Body: endsWith(b[off:], io.EOF), Offset: off, Size: int64(len(b)), Host: ref.Registry}
	if d == c.cut {
		s.Body = endsWith(b[:len(b)/4*3], io.ErrUnexpectedEOF)
	}
	return s, nil
}

func (c *catalog) Stat(_ context.Context, ref oci.Ref, _ bool, _ []string) (oci.Descriptor, error) {
	d, b, err := c.find(ref)
	return oci.Descriptor{Digest: d, MediaType: manifestType, Size: int64(len(b))}, err
}

func (c *catalog) Manifest(_ context.Context, ref oci.Ref, _ []string) (oci.Manifest, error) {
	d, b, err := c.find(ref)
	return oci.Manifest{Digest: d, MediaType: manifestType, Bytes: b}, err
}

// A slowDisk is a mesh of two nodes. The disk of the first one is slow.
type slowDisk struct {
	*meshRig
	dir string
	up  *catalog
	// The first node holds two large blobs, a small one and the manifest of the tag
	// "one". It does not hold cold and other.
	victim, held, small, cold, other []byte
}

func newSlowDisk(t *testing.T, dir string) *slowDisk {
	t.Helper()
	s := &slowDisk{
		dir:    dir + "0",
		victim: random(1, 1800*kib), held: random(2, 900*kib), small: random(3, 10*kib), cold: random(4, 1500*kib), other: random(5, 500*kib),
	}
	s.up = newCatalog(s.victim, s.held, s.small, s.cold, s.other)
	s.meshRig = fakeMeshOf(t, dir, 2, s.up, grants.Site{}, cache.Options{Bound: 3 * mib})
	s.nodes[1].policy.Offline = true // it can ask only the first node
	for _, b := range [][]byte{s.victim, s.held, s.small} {
		if err := s.get(0, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.tag(0, "one"); err != nil {
		t.Fatal(err)
	}
	return s
}

// get pulls a blob through a node.
func (s *slowDisk) get(node int, content []byte) error {
	_, _, err := s.nodes[node].pull(fakeRef(digest.FromBytes(content)), content, 0, -1)
	return err
}

// tag pulls a manifest by tag through a node.
func (s *slowDisk) tag(node int, tag string) error {
	found, err := s.nodes[node].Manifest(context.Background(), oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: tag}, nil, false)
	if err == nil && !bytes.Equal(found.Bytes, manifestOf(tag)) {
		err = errWrong
	}
	return err
}

// questions lists what the first node is asked while its disk is slow. The questions
// about slow are about the content that waits for the disk.
func (s *slowDisk) questions(slow []byte) map[string]func() error {
	h := s.nodes[0].Holder()
	signs := func(content []byte) func() error {
		return func() error {
			ref := fakeRef(digest.FromBytes(content))
			h.Progress(ref)
			h.Presence(ref, s.nodes[1].name())
			return nil
		}
	}
	return map[string]func() error{
		"signs of life about what is slow":  signs(slow),
		"signs of life about what is held":  signs(s.held),
		"signs of life about what is not":   signs(s.other),
		"a blob from memory":                func() error { return s.get(0, s.small) },
		"a blob from the disk":              func() error { return s.get(0, s.held) },
		"a blob that another node asks for": func() error { return s.get(1, s.small) },
		"a tag that is known":               func() error { return s.tag(0, "one") },
		"a tag that is new":                 func() error { return s.tag(0, "three") },
		"a blob that is new":                func() error { return s.get(0, s.other) },
		"figures": func() error {
			store := s.nodes[0].store
			store.Stats()
			store.Size()
			_ = store.Health() // it may name the stall as the reason
			return nil
		},
	}
}

// wantAtOnce fails the test unless each question is answered at once, in whatever order
// they are asked.
func (s *slowDisk) wantAtOnce(slow []byte) {
	s.t.Helper()
	for what, ask := range s.questions(slow) {
		var err error
		if d := took(func() { err = ask() }); err != nil || d >= atOnce {
			s.t.Errorf("%s: %v after %v", what, err, d)
		}
	}
}

// A slowCall says which calls of the disk are slow, and what leads to them.
type slowCall struct {
	name    string        // part of the file's name
	ops     string        // the calls that are slow, one after the other
	full    bool          // as stall.full
	wait    time.Duration // how long to wait before the disk is slow
	about   func(s *slowDisk) []byte
	provoke func(s *slowDisk) error
}

var slowCalls = map[string]slowCall{
	"a download":                 {name: "tmp/", ops: "create allocate write open stat", about: cold, provoke: getCold},
	"the response to a download": {ops: "send", about: cold, provoke: getCold},
	"a commit":                   {name: "blobs/", ops: "rename mkdir close", about: cold, provoke: getCold},
	"an eviction":                {name: "blobs/", ops: "remove", about: cold, provoke: getCold},
	"a full disk":                {ops: "statfs", full: true, about: cold, provoke: getCold},
	"a download that breaks off": {name: "tmp/", ops: "truncate", about: cold, provoke: func(s *slowDisk) error {
		s.up.cut = digest.FromBytes(s.cold)
		if err := s.get(0, s.cold); err == nil {
			return errors.New("it did not break off")
		}
		return nil
	}},
	"a hit":         {name: "blobs/", ops: "open stat read touch", wait: 2 * time.Minute, about: victim, provoke: func(s *slowDisk) error { return s.get(0, s.victim) }},
	"sending a hit": {ops: "send", about: victim, provoke: func(s *slowDisk) error { return s.get(0, s.victim) }},
	"a manifest":    {name: "blobs/", ops: "create write close", about: func(*slowDisk) []byte { return manifestOf("two") }, provoke: tagTwo},
	"a tag":         {name: "tags/", ops: "open rename list", about: func(*slowDisk) []byte { return manifestOf("two") }, provoke: tagTwo},
	"a tag that is gone": {name: "tags/", ops: "remove", about: cold, provoke: func(s *slowDisk) error {
		if err := s.tag(0, "gone"); err == nil {
			return errors.New("it is there")
		}
		return nil
	}},
	"a grant": {name: "notes/", ops: "rename", about: cold, provoke: func(s *slowDisk) error {
		s.nodes[0].store.MarkPrivate("private.example.com", false)
		return nil
	}},
	"the care of the directory": {ops: "stat", wait: time.Second, about: cold, provoke: func(*slowDisk) error { return nil }},
	"a directory that was lost": {ops: "enter mkdir chmod lock notes list", about: cold, provoke: func(s *slowDisk) error { return os.RemoveAll(s.dir) }},
}

func cold(s *slowDisk) []byte   { return s.cold }
func victim(s *slowDisk) []byte { return s.victim }

func getCold(s *slowDisk) error { return s.get(0, s.cold) }
func tagTwo(s *slowDisk) error  { return s.tag(0, "two") }

// If the disk takes 3 s for one call, whichever it is, this delays no sign of life and no
// pull of other content.
func TestOneSlowFileCallDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	for name, c := range slowCalls {
		for op := range strings.FieldsSeq(c.ops) {
			t.Run(name+": "+op, func(t *testing.T) {
				t.Parallel()
				testkit.Bubble(t, func(t *testing.T, dir string) {
					s := newSlowDisk(t, dir)
					defer s.end()
					<-time.After(c.wait)
					one := newStall(op, c.name)
					one.full = c.full
					s.nodes[0].stall.Store(one)
					ended := make(chan error, 1)
					go func() { ended <- c.provoke(s) }()
					select {
					case <-one.reached:
					case <-time.After(10 * time.Second):
						t.Fatal("the slow call was not made")
					}
					s.wantAtOnce(c.about(s))
					if err := <-ended; err != nil {
						t.Errorf("the request that waited for the disk: %v", err)
					}
				})
			})
		}
	}
}

// While the directory is being listed, the node asks the disk for what the index does not
// know. If each call of the disk takes 3 s, signs of life still come at once, but they do
// not tell everything. A request that waits for the disk gets its content in the end.
func TestASlowListingDelaysNoSignOfLife(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		s := newSlowDisk(t, dir)
		s.end()
		listing, calls := newStall("list", "blobs/"), newStall("open", "blobs/")
		again := fakeRig(t, s.dir, s.up, grants.Site{}, cache.Options{Fault: func(op, name string) error {
			return errors.Join(listing.hold(op, name), calls.hold(op, name))
		}})
		defer again.end()
		<-listing.reached
		h, ref := again.Holder(), fakeRef(digest.FromBytes(s.held))
		var p mesh.Progress
		if d := took(func() { p = h.Progress(ref) }); d >= atOnce || p.Held {
			t.Errorf("progress %+v after %v, while its file is being opened", p, d)
		}
		if d := took(func() { h.Presence(ref, "another") }); d >= atOnce {
			t.Errorf("presence after %v", d)
		}
		small := fakeRef(digest.FromBytes(s.small))
		if p := h.Progress(small); !p.Held || p.Offset != int64(len(s.small)) {
			t.Errorf("progress %+v of a blob whose file opens quickly", p)
		}
		if at := h.Presence(small, "another"); at != mesh.Held {
			t.Errorf("presence %v of a blob whose file opens quickly", at)
		}
		again.mustPull(ref, s.held, oci.Hit)
		again.mustPull(small, s.small, oci.Hit)
		if p := h.Progress(ref); !p.Held {
			t.Errorf("progress %+v in the end", p)
		}
		if !calls.met.Load() {
			t.Error("the disk was not asked")
		}
	})
}

// Downloads wait for a slow listing until two seconds after it began. Later ones
// pass through memory at once.
func TestASlowListingDelaysNoDownloadForLong(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		listing := newStall("list", "blobs/")
		first, second := random(1, 300*kib), random(2, 300*kib)
		r := fakeRig(t, dir, newCatalog(first, second), grants.Site{}, cache.Options{Fault: listing.hold})
		defer r.end()
		<-listing.reached
		if d := took(func() { r.mustPull(fakeRef(digest.FromBytes(first)), first, oci.Miss) }); d > 2*time.Second {
			t.Errorf("the first took %v", d)
		}
		if d := took(func() { r.mustPull(fakeRef(digest.FromBytes(second)), second, oci.Miss) }); d >= atOnce {
			t.Errorf("the second took %v", d)
		}
	})
}
