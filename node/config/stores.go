package config

import "path/filepath"

// boundStores settles the limits of the stores that registries share. A store
// gets the largest limit set for it, so that no registry has less than the
// operator gave it. A registry's own limit then applies to its share.
func (k *checker) boundStores() {
	home := storeOf(k.config.Defaults.CacheDir)
	bounds := map[string]int64{home: k.config.Defaults.CacheMaxSize}
	users := map[string]int{home: 1} // the registries that are not configured
	for _, e := range k.entries {
		dir := storeOf(e.CacheDir)
		bound, known := bounds[dir]
		switch {
		case !known:
			bounds[dir] = e.CacheMaxSize
		case dir == home && e.CacheMaxSize == 0: // no limit of its own; the store's applies
		case bound == 0 || e.CacheMaxSize == 0:
			bounds[dir] = 0
		default:
			bounds[dir] = max(bound, e.CacheMaxSize)
		}
		users[dir]++
	}
	for i := range k.entries {
		e := &k.entries[i]
		dir := storeOf(e.CacheDir)
		if k.isSet(e.path+".cache_max_size") && users[dir] > 1 {
			e.OwnBound = e.CacheMaxSize
		}
		e.CacheMaxSize = bounds[dir]
	}
	k.config.Defaults.CacheMaxSize = bounds[home]
}

// storeOf returns the same name for the same directory, however it is written.
func storeOf(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
