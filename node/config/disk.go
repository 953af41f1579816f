package config

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// A disk is what a directory is on.
type disk struct {
	device uint64
	size   int64 // bytes
}

// diskOf returns the disk that a directory is on, or will be.
func diskOf(dir string) (disk, error) {
	for dir = storeOf(dir); ; dir = filepath.Dir(dir) {
		var fs syscall.Statfs_t
		err := syscall.Statfs(dir, &fs)
		if err == nil {
			var st syscall.Stat_t
			err = syscall.Stat(dir, &st)
			return disk{st.Dev, int64(min(fs.Blocks, math.MaxInt64>>20)) * fs.Bsize}, err
		}
		if dir == filepath.Dir(dir) || !os.IsNotExist(err) {
			return disk{}, err
		}
	}
}

// A store is a cache directory with the key that sets its bound.
type store struct {
	dir, path string
	bound     int64
}

// stores returns the stores that have a bound.
func (d *doubter) stores() (all []store) {
	byDir := map[string]store{}
	note := func(dir, path string, bound, set int64) {
		dir = storeOf(dir)
		if _, known := byDir[dir]; bound > 0 && (!known || set == bound && d.isSet(path)) {
			byDir[dir] = store{dir, path, bound}
		}
	}
	home := d.config.Defaults
	if !d.config.WhitelistMode {
		note(home.CacheDir, "defaults.cache_max_size", home.CacheMaxSize, home.CacheMaxSize)
	}
	for _, e := range d.entries {
		path := e.path + ".cache_max_size"
		if !d.isSet(path) {
			path = "defaults.cache_max_size"
		}
		note(e.CacheDir, path, e.CacheMaxSize, cmp.Or(e.OwnBound, e.CacheMaxSize))
	}
	return slices.SortedFunc(maps.Values(byDir), func(a, b store) int { return cmp.Compare(a.dir, b.dir) })
}

// disks warns of bounds that are larger than their disk, by themselves or together.
// Such a cache ends where the disk is full, and so may other programs'.
func (d *doubter) disks(diskOf func(dir string) (disk, error)) {
	const then = "the cache grows until the disk is full; set less than the disk has"
	onDisk := map[uint64][]store{}
	sizes := map[uint64]int64{}
	for _, s := range d.stores() {
		at, err := diskOf(s.dir)
		switch {
		case err != nil || at.size == 0: // /_/health says what is wrong with it
		case s.bound > at.size:
			d.warn(d.at(s.path), s.path, "%s is more than the disk of %s has, %s: %s", FormatSize(s.bound), s.dir, FormatSize(at.size), then)
		default:
			onDisk[at.device] = append(onDisk[at.device], s)
			sizes[at.device] = at.size
		}
	}
	for device, stores := range onDisk {
		var sum int64
		for _, s := range stores {
			sum += s.bound
		}
		if last := stores[len(stores)-1]; sum > sizes[device] {
			d.warn(d.at(last.path), last.path, "%s and the bounds of %d more cache directories on the disk of %s are %s together, and the disk has %s: %s",
				FormatSize(last.bound), len(stores)-1, last.dir, FormatSize(sum), FormatSize(sizes[device]), then)
		}
	}
}

// FormatSize writes a number of bytes for people, in powers of 1024.
func FormatSize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for ; f >= 1024 && i < len(units)-1; i++ {
		f /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
