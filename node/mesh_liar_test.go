package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/node/membership"
	"oci-proxy/transfer"
	"oci-proxy/transfer/peer"
	"oci-proxy/transfer/upstreamtest"
)

// A liar is a member that knows the secret, speaks the protocol and says what a test
// wants it to.
type liar struct {
	c       *testCluster
	members *membership.Membership
	client  *peer.Client
	asked   atomic.Int64 // how often it was asked what it lies about
	answer  func(l *liar, w http.ResponseWriter, r *http.Request)
}

// infiltrate makes a liar the second member of a cluster of one.
func infiltrate(t *testing.T, of form, look time.Duration, answer func(*liar, http.ResponseWriter, *http.Request)) *liar {
	t.Helper()
	return infiltrateAt(t, upstreamtest.New(t), of, look, answer)
}

func infiltrateAt(t *testing.T, up *upstreamtest.Registry, of form, look time.Duration, answer func(*liar, http.ResponseWriter, *http.Request)) *liar {
	t.Helper()
	c := formCluster(t, 0, up, func(int) form { return of })
	c.seams.ReportAge = time.Nanosecond // so that each request asks the liar
	if look > 0 {                       // the test is about how long the liar may keep a node waiting
		of.exact = true
		c.seams.transfer = func(cfg *transfer.Config) { cfg.Look, cfg.Drip = look, 60*look }
	}
	c.join()
	l := &liar{c: c, answer: answer}
	listener, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	cert, fingerprint, err := peer.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{meshSecret}
	if l.members, err = membership.Open(membership.Config{
		Name: "liar", BindAddr: anyPort, PeerAddr: listener.Addr().String(), Fingerprint: fingerprint, Seeds: []string{c.nodes[0].gossip},
		Secrets: secrets, Weight: c.nodes[0].node.cluster.Members().View().Self.Weight, Egress: true, Version: Version,
		Registries: []membership.Registry{{Host: up.Host()}}, Log: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	self := l.members.View().Self
	l.client = peer.NewClient(peer.ClientConfig{
		Self: func() string { return self.ID }, SelfNonce: self.Nonce, Keys: membership.PeerKeys(config.DefaultClusterID, secrets), Log: slog.New(slog.DiscardHandler),
		Member: func(id string) (peer.Member, bool) {
			m, ok := l.members.View().Member(id)
			if !ok {
				return peer.Member{}, false
			}
			return peer.Member{ID: m.ID, Name: m.Name, Addr: m.Peer, Nonce: m.Nonce, Fingerprint: m.Fingerprint}, true
		},
	})
	srv := &http.Server{
		Handler: http.HandlerFunc(l.serve), TLSConfig: peer.ServerTLS(cert), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
	}
	var done sync.WaitGroup
	done.Go(func() { _ = srv.ServeTLS(listener, "", "") })
	t.Cleanup(func() {
		l.client.Close()
		_ = srv.Close()
		done.Wait()
		if err := l.members.Kill(); err != nil {
			t.Error(err)
		}
	})
	c.awaitMembersOf(0, 2)
	return l
}

// serve answers a request.
func (l *liar) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Oci-Peer-Auth") == "" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Oci-Peer", "1")
	if r.URL.Path == "/peer/v1/ping" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	l.answer(l, w, r)
}

// honest answers the questions that a test does not lie about. It says that it holds
// nothing and knows no other holder.
func honest(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/peer/v1/progress/"):
		fmt.Fprint(w, `{"held":false,"offset":0,"streams":1}`)
	case r.Method == http.MethodHead && r.URL.Query().Get("held") != "":
		w.Header().Set("Oci-Peer-Presence", "absent")
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == "/peer/v1/stats":
		fmt.Fprint(w, `{"registries":{},"max_size":0}`)
	default:
		w.Header().Set("Oci-Peer-Failure", "peer")
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// on lies only to requests of that method whose path has that prefix.
func on(method, path string, lie func(l *liar, w http.ResponseWriter, r *http.Request)) func(*liar, http.ResponseWriter, *http.Request) {
	return func(l *liar, w http.ResponseWriter, r *http.Request) {
		if (method == "" || r.Method == method) && strings.HasPrefix(r.URL.Path, "/peer/v1/"+path) {
			l.asked.Add(1)
			lie(l, w, r)
			return
		}
		honest(w, r)
	}
}

// owns reports whether the liar owns a key.
func (l *liar) owns(key string) bool {
	return l.c.nodes[0].node.cluster.Members().View().Ring.Owner(key).ID == l.members.View().Self.ID
}

// blob returns a new blob that the liar owns, and its bytes.
func (l *liar) blob(size int64) (testBlob, []byte) {
	l.c.t.Helper()
	for range 200 {
		if b := l.c.blob(size); l.owns(b.String()) {
			return b, l.c.bytes(b)
		}
	}
	l.c.t.Fatal("the liar owns none of 200 blobs")
	return testBlob{}, nil
}

// of returns the true bytes of the requested blob.
func (l *liar) truth(r *http.Request) []byte {
	path := r.URL.Path
	resp, err := http.Get("http://" + l.c.up.Host() + "/v2/" + repo + "/blobs/" + path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		return nil
	}
	defer func() { _ = resp.Body.Close() }() // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil
	}
	return b
}

// wrongAt sends the true bytes except for one. It announces that many more bytes than
// there are.
func wrongAt(at func(size int) int, more int) func(*liar, http.ResponseWriter, *http.Request) {
	return on(http.MethodGet, "blobs/", func(l *liar, w http.ResponseWriter, r *http.Request) {
		b := l.truth(r)
		if at != nil {
			b[at(len(b))] ^= 1
		}
		w.Header().Set("Oci-Peer-Source", "hit")
		if r.Header.Get("Range") != "" {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)+more)) // the whole blob, with a wrong byte
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b)+more))
		_, _ = w.Write(append(b, make([]byte, max(more, 0))...))
	})
}

// pour writes endlessly.
func pour(w http.ResponseWriter, r *http.Request) {
	b := bytes.Repeat([]byte("x"), 64<<10)
	for r.Context().Err() == nil {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

// patiently pulls as clients do: it asks again if a response is cut. It reads only
// as many bytes as the manifest says.
func (l *liar) patiently(t *testing.T, b testBlob, cut bool) (tries int) {
	t.Helper()
	for tries = 1; tries <= 4; tries++ {
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		code, whole, n, err := l.once(ctx, b)
		cancel()
		if whole {
			return tries
		}
		if n == b.size && err == nil {
			t.Errorf("try %d: %d wrong bytes are a whole answer", tries, n)
		}
		if !cut || code != http.StatusOK {
			t.Errorf("try %d: status %d, %d bytes, %v", tries, code, n, err)
		}
	}
	return tries
}

func (l *liar) once(ctx context.Context, b testBlob) (code int, whole bool, n int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.c.nodes[0].client+blobPath(b.Digest), nil)
	if err != nil {
		return 0, false, 0, err
	}
	resp, err := l.c.client.Do(req)
	if err != nil {
		return 0, false, 0, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.Header.Get("Location") != "" {
		return resp.StatusCode, false, 0, errors.New("it was sent elsewhere")
	}
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return resp.StatusCode, false, int64(len(text)), errors.Join(errors.New(string(text)), err)
	}
	v := b.Verifier()
	n, err = io.Copy(v, io.LimitReader(resp.Body, b.size+1))
	return resp.StatusCode, err == nil && n == b.size && v.Verified(), n, err
}
