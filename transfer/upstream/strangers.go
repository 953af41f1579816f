package upstream

import (
	"crypto/x509"
	"log/slog"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// strangers are the registries that nobody configured. Clients name them.
type strangers struct {
	defaults Registry // for each of them
	roots    *x509.CertPool
	turns    *wait.Turns[string] // at all of them together
	life     *wait.Life
	log      *slog.Logger

	mu     sync.Mutex // guards the fields below; never held during I/O
	byHost *simplelru.LRU[string, *registry]
}

// get returns the registry at host. A new one must look like a public one.
func (s *strangers) get(host string) (*registry, error) {
	r, forgotten, err := s.find(host)
	if forgotten != nil {
		forgotten.net.closeIdle() // writes to the network, so not under the lock
	}
	return r, err
}

// find returns the registry at host, and the one that had to make room for it, if
// any.
func (s *strangers) find(host string) (r, forgotten *registry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.byHost.Get(host); ok {
		return r, nil, nil
	}
	if err := strangerHost(host); err != nil {
		return nil, nil, &oci.Error{Kind: oci.Denied, Registry: host, Host: host, Reason: err.Error()}
	}
	cfg := s.defaults
	cfg.Host, cfg.Path = strings.TrimSuffix(host, ":443"), ""
	r = newRegistry(cfg, s.roots, s.turns, s.life, s.log)
	if s.byHost.Len() >= maxStrangers {
		_, forgotten, _ = s.byHost.RemoveOldest()
	}
	s.byHost.Add(host, r)
	return r, forgotten, nil
}

// known returns the registry at host, nil if it has not been asked.
func (s *strangers) known(host string) *registry {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := s.byHost.Peek(host)
	return r
}

// all returns the registries that are remembered.
func (s *strangers) all() []*registry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byHost.Values()
}
