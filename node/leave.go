package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

const (
	// handOverWidth is how many blobs are handed over at a time.
	handOverWidth = 4
	// offerTime bounds the handing over of one blob.
	offerTime = 10 * time.Minute
)

// leave answers POST /_/leave: the node hands over what others are to keep,
// and ends. The answer comes when it is done, with what was handed over.
func (n *Node) leave(w http.ResponseWriter, r *http.Request) {
	if n.cluster == nil {
		writeError(w, http.StatusConflict, ociError{Code: "UNSUPPORTED", Message: "this node is in no cluster"})
		return
	}
	n.log.Info("leaving for good", "client", n.access.client(r).String())
	n.ready.Store(false)
	n.cluster.members.Draining(r.Context())
	// Who asked may go away meanwhile; the node leaves all the same.
	done := n.handOver(context.WithoutCancel(r.Context()))
	writeJSON(w, done)
	n.cluster.leaveOnce.Do(func() { close(n.cluster.leaving) })
}

// A handedOver says what became of the blobs of a node that leaves.
type handedOver struct {
	Blobs  int   `json:"blobs"` // handed over, or with their owner already
	Bytes  int64 `json:"bytes"`
	Failed int   `json:"failed"` // nobody took them
}

// handOver offers each blob, the last used first, to who is to keep it now.
func (n *Node) handOver(ctx context.Context) handedOver {
	var mu sync.Mutex
	var done handedOver
	var wg sync.WaitGroup
	width := make(chan struct{}, handOverWidth)
	for _, store := range n.stores {
		for _, b := range store.Blobs() {
			width <- struct{}{}
			wg.Go(func() {
				defer func() { <-width }()
				err := n.offer(ctx, store, b)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					n.log.Warn("blob not handed over", "digest", b.Digest.String(), "error", err)
					done.Failed++
					return
				}
				done.Blobs++
				done.Bytes += b.Size
			})
		}
	}
	wg.Wait()
	n.log.Info("handed over", "blobs", done.Blobs, "bytes", done.Bytes, "failed", done.Failed)
	return done
}

// offer offers a blob to those who are to keep it, one after the other.
func (n *Node) offer(ctx context.Context, store *cache.Store, b cache.Held) error {
	ctx, cancel := context.WithTimeout(ctx, offerTime)
	defer cancel()
	ref := oci.Ref{Registry: b.Registry, Digest: b.Digest}
	last := errNobody
	for _, p := range n.takers(b.Digest.String()) {
		if last = p.Offer(ctx, ref, store.MediaType(b.Digest)); last == nil {
			return nil
		}
	}
	return last
}

// errNobody: there is no other member, or none that is up owns the blob.
var errNobody = errors.New("no other member is there to take it")

// takers are the owners of what key names that are up, whether or not they may
// ask the registry: those who look for it look there. Who is passed over at the
// moment comes last.
func (n *Node) takers(key string) []mesh.Peer {
	c := n.cluster
	v := c.members.View()
	var well, sick []mesh.Peer
	owners, k := v.Ring.Owners(key)
	for _, o := range owners[:k] {
		switch one, ok := v.Member(o.ID); {
		case !ok || !one.Up || o.ID == v.Self.ID:
		case c.client.Healthy(o.ID):
			well = append(well, c.client.Peer(o.ID))
		default:
			sick = append(sick, c.client.Peer(o.ID))
		}
	}
	return append(well, sick...)
}

// operator lets only those through to h who may end the node: who knows the
// login, or where there is none whoever is on this machine. A page in a browser
// is neither.
func (n *Node) operator(h http.Handler) http.Handler {
	guarded := http.NewCrossOriginProtection().Handler(h)
	if !n.access.open {
		return n.access.guard(guarded)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !local(r, n.cfg.Address) {
			writeError(w, http.StatusForbidden, ociError{Code: "DENIED", Message: "without auth this is for clients on this machine only"})
			return
		}
		guarded.ServeHTTP(w, r)
	})
}

// local reports whether the request comes from this machine, and not through a
// proxy on it, as far as the proxy tells. A node that listens on one address
// alone, which need not be loopback, is reached from that very address.
func local(r *http.Request, listens string) bool {
	for name := range r.Header {
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return false
		}
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	if from.Addr().Unmap().IsLoopback() {
		return true
	}
	if ip, err := netip.ParseAddr(listens); listens == "" || err == nil && ip.IsUnspecified() {
		// Loopback will do. Some engines for containers let all clients come from
		// the container's own address.
		return false
	}
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	to, err := netip.ParseAddrPort(at.String())
	return err == nil && from.Addr().Unmap() == to.Addr().Unmap()
}
