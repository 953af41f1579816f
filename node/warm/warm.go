// Package warm pulls images into the cache before anybody asks for them: when an operator
// says so, and by a schedule. How an image is pulled is for the caller to say.
package warm

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"oci-proxy/node/image"
)

// A Rule names images that are kept warm.
type Rule struct {
	Images    []string
	Every     time.Duration // how long after a round's end the next begins, at least a minute
	Platforms image.Platforms
}

// A Line says what became of an image; or, with Done, of all.
type Line struct {
	Image  string `json:"image,omitempty"`
	Digest string `json:"digest,omitempty"`
	Bytes  int64  `json:"bytes"` // of its manifests, configs and layers; of all together at the end
	Error  string `json:"error,omitempty"`
	Images int    `json:"images,omitempty"` // how many are in the cache now, at the end
	Failed int    `json:"failed,omitempty"`
	Done   bool   `json:"done,omitempty"`
}

// A Pull pulls an image into the cache for those platforms. It returns what the name
// means, and how many bytes that has.
type Pull func(ctx context.Context, name string, want image.Platforms) (digest string, bytes int64, err error)

// All pulls images, one after the other, and tells of each when it is done. The last Line
// is about all.
func All(ctx context.Context, pull Pull, names []string, want image.Platforms, tell func(Line)) {
	sum := Line{Done: true}
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		line := Line{Image: name}
		var err error
		if line.Digest, line.Bytes, err = pull(ctx, name, want); err != nil {
			line.Error = err.Error()
			sum.Failed++
		} else {
			sum.Images++
			sum.Bytes += line.Bytes
		}
		tell(line)
	}
	if ctx.Err() == nil {
		tell(sum)
	}
}

// Keep keeps the images of rules warm until ctx ends, each rule by itself: at once, and
// then again and again.
func Keep(ctx context.Context, pull Pull, rules []Rule, log *slog.Logger) {
	var wg sync.WaitGroup
	for _, rule := range rules {
		wg.Go(func() {
			for ctx.Err() == nil {
				All(ctx, pull, rule.Images, rule.Platforms, func(l Line) { note(log, l) })
				next := time.NewTimer(rule.Every)
				select {
				case <-next.C:
				case <-ctx.Done():
					next.Stop()
				}
			}
		})
	}
	wg.Wait()
}

// note logs what became of images by a schedule.
func note(log *slog.Logger, l Line) {
	switch {
	case l.Done:
		log.Info("images kept warm", "images", l.Images, "failed", l.Failed, "bytes", l.Bytes)
	case l.Error != "":
		log.Warn("image not kept warm", "image", l.Image, "error", l.Error)
	default:
		log.Debug("image kept warm", "image", l.Image, "digest", l.Digest)
	}
}
