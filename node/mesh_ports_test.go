package node

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"oci-proxy/transfer/peer"
	"oci-proxy/transfer/upstreamtest"
)

// The clients' port does not answer what members ask each other, and the peers' port
// does not answer what clients ask.
func TestMeshPortsDoNotMix(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	b := c.blob(1000)
	c.pull(0, b)
	n := c.nodes[0].node
	routes := peer.NewServer(peer.ServerConfig{}).Routes()
	if len(routes) < 10 {
		t.Errorf("the peers' routes are %q", routes)
	}
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		if strings.HasSuffix(path, "/") {
			path += b.String()
		}
		for _, query := range []string{"", "?held=1&registry=" + c.up.Host() + "&repository=" + repo} {
			for _, path := range []string{path, "/_" + path, "//" + path, "/x/.." + path} {
				a := c.do(method, 0, path+query, "Oci-Peer-Auth", "v1 a 1 "+strings.Repeat("0", 64))
				if a.StatusCode != http.StatusNotFound && a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Oci-Peer") != "" || len(a.body) >= 1000 {
					t.Errorf("%s %s on the clients' port: %d", method, path+query, a.StatusCode)
				}
			}
		}
	}
	peers := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	asks := []string{"GET /v2/" + repo + "/manifests/v1", "GET " + blobPath(b.Digest), "HEAD " + blobPath(b.Digest), "GET /app.js", "GET /none", "GET /debug/pprof/", "OPTIONS /"}
	for _, e := range n.endpoints() {
		if !strings.Contains(e.pattern, " ") {
			e.pattern = "GET " + e.pattern
		}
		asks = append(asks, strings.Replace(e.pattern, "{digest}", b.String(), 1))
	}
	for _, ask := range append(asks, routes...) {
		method, path, _ := strings.Cut(ask, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+c.nodes[0].peer+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := peers.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if a := read(resp); a.StatusCode != http.StatusNotFound || len(a.body) != 0 || len(a.Header) > 3 {
			t.Errorf("%s on the peers' port: %d, %v, %q", ask, a.StatusCode, a.Header, a.body)
		}
	}
}

// Traffic between nodes contains no secret, and no port answers a recorded request when
// it comes again.
func TestMeshPlainTrafficHoldsNoSecret(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: upstreamUser, Password: upstreamPassword}))
	var mu sync.Mutex
	var heard bytes.Buffer
	var requests []string
	cluster := fmt.Sprintf("secret: %q, peer_tls: false", meshSecret)
	c := formCluster(t, 0, up, func(i int) form {
		f := form{cluster: cluster}
		if i == 0 {
			f.registry = fmt.Sprintf("auth: {username: %s, password: %s}", upstreamUser, upstreamPassword)
			f.top = "auth: {username: puller, password: password-of-the-clients}"
		}
		return f
	})
	c.links.tap = func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		heard.Write(b)
		if bytes.Contains(b, []byte("Oci-Peer-Auth: ")) {
			requests = append(requests, string(b))
		}
	}
	for range 2 {
		c.join()
	}
	c.awaitMembers(2)
	img := up.PutImage(repo, "v1", random(1, 300_000))
	c.get(1, "/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	c.get(1, "/v2/"+repo+"/tags/list").want(t, http.StatusOK)
	c.get(1, "/v2/"+repo+"/referrers/"+img.Manifest.String()).want(t, http.StatusOK)
	c.tryPull(1, img.Layers[0]).wantWhole(t)
	c.get(1, "/v2/"+repo+"/manifests/none").want(t, http.StatusNotFound)
	c.get(1, "/_/cluster").want(t, http.StatusOK)
	c.get(1, "/_/owner/"+img.Layers[0].String()).want(t, http.StatusOK)
	c.get(0, "/v2/"+repo+"/manifests/v1", basic("puller", "password-of-the-clients")...).want(t, http.StatusOK)

	// A member asks in one repository for content that the registry vouched for in
	// another: the registry is asked and says no.
	c.get(1, "/v2/other/app/blobs/"+img.Layers[0].String()).want(t, http.StatusNotFound)

	mu.Lock()
	said, all := heard.String(), slices.Clone(requests)
	mu.Unlock()
	if len(all) < 6 || !strings.Contains(said, "HTTP/1.1 200") {
		t.Fatalf("%d requests were recorded", len(all))
	}
	secrets := []string{
		meshSecret, upstreamPassword, upstreamUser, "password-of-the-clients", "Authorization", "Bearer ", "Basic ", "Set-Cookie", "Www-Authenticate",
		strings.TrimPrefix(basic(upstreamUser, upstreamPassword)[1], "Basic "), strings.TrimPrefix(basic("puller", "password-of-the-clients")[1], "Basic "),
	}
	for _, r := range up.Requests() {
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			secrets = append(secrets, token)
		}
	}
	said += fmt.Sprintf("%+v", c.nodes[1].node.cluster.Members().View().Members) // what gossip told
	for _, s := range secrets {
		if s != "" && strings.Contains(strings.ToLower(said), strings.ToLower(s)) {
			t.Errorf("the secret %q was sent", s)
		}
	}
	for _, port := range []string{c.nodes[0].peer, c.nodes[1].peer, c.nodes[0].client, c.nodes[1].client} {
		for _, request := range all {
			if got := tell(t, port, request); strings.Contains(got, "Oci-Peer") || strings.HasPrefix(got, "HTTP/1.1 2") {
				t.Errorf("a recorded request, sent again to %s: %.300q gets %.300q", port, request, got)
			}
		}
	}
}

// tell sends text and returns what comes back.
func tell(t *testing.T, addr, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // nobody cares after the test
	_ = conn.SetDeadline(time.Now().Add(patience))
	head, _, _ := strings.Cut(text, "\r\n\r\n")
	_, body, _ := strings.Cut(text, "\r\n\r\n")
	if _, err := io.WriteString(conn, head+"\r\nConnection: close\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(conn)
	return string(got)
}
