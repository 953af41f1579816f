package gate

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/node/reply"

	"oci-proxy/node/config"
)

// Clients that would try again at once wait for their answer, for as long as they
// are there.
func TestBusyAnswersAreHeldBackFromClientsInAHurry(t *testing.T) {
	t.Parallel()
	cfg, err := config.Parse("test.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		g, err := New(cfg, limitsOf(1024, 1<<40), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close(t.Context())
		for agent, status := range map[string]int{
			"docker/20.10.24 go/go1.19": 503, "": 503, "curl/8": 503, "containerd/1.6.20": 429, "skopeo/1.9.3": 429,
			"containers/5.24.1 (github.com/containers/image)": 429, "Buildah/1.28": 429, "cri-o/1.30": 429, "libpod/4.3.1": 429, "podman/5": 429,
		} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/a/b/manifests/v1", nil)
			r.Header.Set("User-Agent", agent)
			w := httptest.NewRecorder()
			var held time.Duration
			if status == 429 {
				held = busyDelay
			}
			start := time.Now()
			g.RefuseBusy(w, r, ErrBusy.Error(), &reply.Detail{Reason: ErrBusy.Error()})
			if took := time.Since(start); w.Code != status || took != held || w.Header().Get("Retry-After") != "10" {
				t.Errorf("%q: status %d after %v with %v, want %d after %v", agent, w.Code, took, w.Header(), status, held)
			}
			if !strings.Contains(w.Body.String(), ErrBusy.Error()) {
				t.Errorf("%q: %s", agent, w.Body)
			}
		}
	})
}
