package transfer

import "oci-proxy/transfer/oci"

// VouchKey is for tests that make a voucher old.
func VouchKey(ref oci.Ref) string { return vouchKey(ref) }

// Aboard is for tests that wait until so many requests wait for a blob.
func (f *Fetcher) Aboard(ref oci.Ref) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fl := range f.flights {
		if fl.key.content == (content{ref.Registry, ref.Digest}) {
			n += fl.aboard
		}
	}
	return n
}
