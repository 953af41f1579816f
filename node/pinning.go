package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/cluster"
	"oci-proxy/node/keeper"
	"oci-proxy/transfer/oci"
)

// A pinLine is a line of the answer to /_/pin and /_/unpin: about an image, or at the end
// about all.
type pinLine struct {
	Image   string            `json:"image,omitempty"`
	Bytes   int64             `json:"bytes,omitempty"` // that are pinned
	Error   string            `json:"error,omitempty"`
	Images  int               `json:"images,omitempty"`
	Failed  int               `json:"failed,omitempty"`
	Missing []cluster.Missing `json:"missing,omitempty"`
	Done    bool              `json:"done,omitempty"`
}

// pin answers POST /_/pin, {"images": [NAME…]}: no member evicts what belongs to them. The
// answer has a line of JSON for each image, and one at the end.
func (s *steward) pin(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, s.pinOne, "image pinned")
}

// unpin answers POST /_/unpin, {"images": [NAME…]}: pin is undone.
func (s *steward) unpin(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, s.unpinOne, "image unpinned")
}

// change does something with each image that a request names.
func (s *steward) change(w http.ResponseWriter, r *http.Request, one func(context.Context, *overview, oci.Ref) (int64, error), message string) {
	const want = `{"images": ["the name of an image", …]}`
	var ask struct {
		Images []string `json:"images"`
	}
	named := func() error {
		if len(ask.Images) == 0 {
			return errUnasked
		}
		return nil
	}
	if !s.ask(w, r, &ask, want, named) {
		return
	}
	lines(w, func(put func(any)) {
		now := s.look(r.Context())
		end := pinLine{Done: true, Missing: now.missing()}
		end.Failed = len(end.Missing)
		for _, name := range ask.Images {
			l := pinLine{Image: name}
			ref, err := oci.ParseImage(name, s.registries.names())
			if err == nil {
				l.Image = refName(ref)
				l.Bytes, err = one(r.Context(), now, ref)
			}
			if err != nil {
				l.Error = err.Error()
				end.Failed++
			} else {
				end.Images++
				end.Bytes += l.Bytes
				s.log.Info(message, "image", l.Image, "bytes", l.Bytes, "client", s.gate.Address(r).String())
			}
			put(l)
		}
		put(end)
	})
}

// refName is an image's name as people write it.
func refName(ref oci.Ref) string {
	if ref.Digest != "" {
		return shownRegistry(ref.Registry) + "/" + ref.Repository + "@" + ref.Digest.String()
	}
	return shownRegistry(ref.Registry) + "/" + ref.Repository + ":" + ref.Tag
}

// Errors of pin and unpin.
var (
	errNotCached = errors.New("nothing of it is cached: warm it first")
	errNotPinned = errors.New("it is not pinned")
)

// pinOne pins an image at all members. If one of them refuses, it is pinned nowhere, unless it was pinned
// before: then each member has the old pin or the new one.
func (s *steward) pinOne(ctx context.Context, now *overview, ref oci.Ref) (bytes int64, err error) {
	content := map[digest.Digest]int64{}
	for _, one := range now.images {
		same := one.Ref.Registry == ref.Registry && one.Ref.Repository == ref.Repository
		if same && (ref.Digest != "" && one.Digest == ref.Digest || ref.Digest == "" && one.Ref.Tag == ref.Tag) {
			maps.Copy(content, now.merged.Content(one))
		}
	}
	if len(content) == 0 {
		return 0, errNotCached
	}
	for _, size := range content {
		bytes += size
	}
	if _, err := s.everywhere(ctx, now, pins(refName(ref), ref.Registry, content)); err != nil {
		if slices.Contains(now.merged.Pins(), refName(ref)) {
			return 0, fmt.Errorf("what was pinned by that name stays: %w", err)
		}
		undo := []keeper.Order{{Unpin: &keeper.Unpin{Name: refName(ref), Registry: ref.Registry}}}
		_, undone := s.everywhere(ctx, now, undo)
		return 0, errors.Join(err, undone)
	}
	return bytes, nil
}

// unpinOne undoes pinOne.
func (s *steward) unpinOne(ctx context.Context, now *overview, ref oci.Ref) (int64, error) {
	had, err := s.everywhere(ctx, now, []keeper.Order{{Unpin: &keeper.Unpin{Name: refName(ref), Registry: ref.Registry}}})
	if err == nil && !had {
		err = errNotPinned
	}
	return 0, err
}

// pinContent is how much content one order pins: as much as fits, with long digests.
const pinContent = 16

// pins are the orders that pin content.
func pins(name, registry string, content map[digest.Digest]int64) (out []keeper.Order) {
	for part := range slices.Chunk(slices.Sorted(maps.Keys(content)), pinContent) {
		p := &keeper.Pin{Name: name, Registry: registry, Content: map[digest.Digest]int64{}, More: len(out) > 0}
		for _, d := range part {
			p.Content[d] = content[d]
		}
		out = append(out, keeper.Order{Pin: p})
	}
	return out
}

// everywhere gives orders to all members that answered. It reports whether one had what
// they are about.
func (s *steward) everywhere(ctx context.Context, now *overview, orders []keeper.Order) (had bool, err error) {
	hads, errs := make([]bool, len(now.held)), make([]error, len(now.held))
	var wg sync.WaitGroup
	for i, one := range now.held {
		if one.Err != nil {
			continue
		}
		wg.Go(func() {
			for _, o := range orders {
				a, err := s.order(ctx, one.ID, o)
				if err != nil {
					errs[i] = fmt.Errorf("%s: %w", one.Name, err)
					return
				}
				hads[i] = hads[i] || a.Had
			}
		})
	}
	wg.Wait()
	return slices.Contains(hads, true), errors.Join(errs...)
}
