package transfer

// VouchKey is for tests that make a voucher old.
func VouchKey(ref Ref) string { return vouchKey(ref) }

// Aboard is for tests that wait until so many requests wait for a blob.
func (f *Fetcher) Aboard(ref Ref) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fl := range f.flights {
		if fl.key.content == (content{ref.Registry, ref.Digest}) {
			n += fl.aboard
		}
	}
	return n
}
