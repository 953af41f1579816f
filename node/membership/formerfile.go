package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// ringsFile is the file in Config.Dir with the rings that this node would tell of. So nodes that
// all start at once still know who owned what.
const ringsFile = "rings.json"

// maxRingsFile bounds the file, in bytes.
const maxRingsFile = 2 * maxToldBytes

// A ringsKeeper keeps rings on disk. It belongs to one goroutine at a time.
//
// It keeps ages, not times: a clock that was set does no harm. So a ring does not age while
// the node is down, and members that come back hours later ask each other in vain at worst.
type ringsKeeper struct {
	dir     string // "": nothing is kept
	cluster string
	saved   []string  // hashes of the rings in the file
	at      time.Time // when it was written
}

// keptRings is what the file holds.
type keptRings struct {
	Cluster string `json:"cluster"`
	toldRings
}

// errForeign: the file is another cluster's, or not one of these.
var errForeign = errors.New("it does not have this cluster's rings")

// read reads the rings. There may be none.
func (k *ringsKeeper) read(now time.Time) (*toldRings, error) {
	if k.dir == "" {
		return nil, nil
	}
	f, err := os.Open(filepath.Join(k.dir, ringsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the rings: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRingsFile))
	var kept keptRings
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err == nil && (kept.Cluster != k.cluster || len(kept.decode(now)) == 0) {
		err = errForeign
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", ringsFile, err)
	}
	return &kept.toldRings, nil
}

// save writes the rings if they are others than those in the file, or if it is at least as old
// as after: then the ages have changed.
func (k *ringsKeeper) save(t *toldRings, now time.Time, after time.Duration) error {
	if k.dir == "" || t == nil {
		return nil
	}
	var hashes []string
	for _, r := range t.Rings {
		hashes = append(hashes, r.Hash)
	}
	if slices.Equal(hashes, k.saved) && (len(hashes) == 1 || now.Sub(k.at) < after) { // one that is in use does not age
		return nil
	}
	text, err := json.Marshal(keptRings{k.cluster, *t})
	if err == nil {
		err = replace(k.dir, ringsFile, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("saving the rings: %w", err)
	}
	k.saved, k.at = hashes, now
	return nil
}
