package lanes

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// A page from something on the way says nothing about how the registry answers ranges.
func TestAPageIsNotTakenForARegistryWithoutRanges(t *testing.T) {
	t.Parallel()
	for _, request := range []int{1, 2} {
		t.Run(fmt.Sprint(request), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLink(16 << 20)
				l.change = func(n int, a *answer) {
					if n == request {
						a.stream.By, a.length = oci.Middlebox, -1
					}
				}
				lanes := over(t, l, 4)
				if s, err := lanes.Open(t.Context(), oci.Ref{Registry: reg, Digest: digest.FromBytes(l.content)}, 0); err == nil {
					_, _ = io.Copy(io.Discard, s.Body) // whatever comes
					_ = s.Body.Close()
				}
				if lanes.plain.has(reg) {
					t.Error("the registry is asked for no ranges any more")
				}
			})
		})
	}
}
