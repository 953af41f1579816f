// Package holdings knows which images the shards of a cluster hold, and what belongs to
// each.
//
// A node tells what it holds as an [Inventory] ([Collect]): tags, manifests with what
// they list, and blobs. It goes to another member as text (wire.go). The node that an
// operator asked puts the inventories of all members together ([Merge], merged.go), and
// then knows the images ([Merged.Images]) and what goes with those that a [Pattern]
// chooses ([Merged.Plan], plan.go). Nothing is kept between two questions but what
// grants.Stock remembers of manifests: the shards are the index.
package holdings

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
)

// An Inventory is what one node holds and knows.
type Inventory struct {
	Tags      []Tag
	Manifests []Manifest
	Blobs     []Blob
	Pins      []string // names of what is pinned
}

// A Tag is what a tag means by one Accept list.
type Tag struct {
	Key     string // as cache.Tag has it: registry, repository, tag and Accept list
	Digest  digest.Digest
	Checked time.Time // when the registry said so
}

// Ref returns what the tag's key names.
func (t Tag) Ref() oci.Ref {
	words := strings.SplitN(t.Key, " ", 4)
	if len(words) < 3 {
		return oci.Ref{}
	}
	return oci.Ref{Registry: words[0], Repository: words[1], Tag: words[2]}
}

// A Manifest is one that the node holds; it is among the Blobs too.
type Manifest struct {
	Digest     digest.Digest
	Repository string // that it came from, "" if that is not known
	MediaType  string
	Platform   string // as its config says, "" if that is not known
	Lists      []oci.Listed
}

// A Blob is one that the node holds.
type Blob struct {
	Digest   digest.Digest
	Registry string    // that brought it, "" if that is not known
	Size     int64     // bytes
	Used     time.Time // zero if nobody has used it
	Pinned   bool
}

// Collect makes the inventory of a node's shards. It reads each manifest whose outline is not
// known. The error is ctx's, or says that a shard's tags can't be read.
func Collect(ctx context.Context, shards []*grants.Shard) (*Inventory, error) {
	out := &Inventory{}
	for _, s := range shards {
		if err := s.Listed(ctx); err != nil {
			return nil, fmt.Errorf("the cache directory is still being listed: %w", err)
		}
		if err := out.add(ctx, s.Stock()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// add adds what a shard holds.
func (v *Inventory) add(ctx context.Context, s *grants.Stock) error {
	var manifests []digest.Digest
	for _, e := range s.Entries() {
		v.Blobs = append(v.Blobs, Blob{Digest: e.Digest, Registry: e.Registry, Size: e.Size, Used: e.Used, Pinned: e.Retained})
		if e.Manifest {
			manifests = append(manifests, e.Digest)
		}
	}
	for _, one := range outlines(ctx, s, manifests) {
		if one.Digest != "" {
			v.Manifests = append(v.Manifests, one)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, r := range s.Retained() {
		v.Pins = append(v.Pins, r.Name)
	}
	tags, err := s.Tags(ctx)
	if err != nil {
		return fmt.Errorf("reading the tags: %w", err)
	}
	for _, t := range tags {
		v.Tags = append(v.Tags, Tag{t.Key, t.Digest, t.Checked})
	}
	return nil
}

// readers is how many manifests are read at a time.
const readers = 4

// outlines returns what manifests list. Those that have just left have no Digest. If one
// is damaged, nobody knows what it lists.
func outlines(ctx context.Context, s *grants.Stock, manifests []digest.Digest) []Manifest {
	out := make([]Manifest, len(manifests))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(readers, len(manifests)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(manifests)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				o, err := s.Outline(manifests[i])
				if !errors.Is(err, cache.ErrNotFound) {
					out[i] = Manifest{Digest: manifests[i], Repository: o.Repository, MediaType: o.MediaType, Platform: o.Platform, Lists: o.Lists}
				}
			}
		})
	}
	wg.Wait()
	return out
}
