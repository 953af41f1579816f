package node

import (
	"fmt"
	"strings"
	"testing"

	"oci-proxy/node/gate"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// Strangers who ask for the page and read nothing of the answers hold their connections for
// minutes. Others pull all the same.
func TestConnectionsOfWhoReadsNothingGoWhenDescriptorsRunLow(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	content := random(1, 1000)
	d := up.PutBlob(repo, content)
	const files = 40
	p := served(t, up, settings{top: "auth: {username: u, password: p}"}, gate.Limits{Files: files, Pulls: 5, Waiting: 10})
	p.client.Timeout = patience / 3
	const ask = "GET /style.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for range 2 * files {
		c := p.dial()
		if err := c.SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(c, strings.Repeat(ask, 1000)); err != nil { // the answers are more than sockets' buffers hold
			t.Fatal(err)
		}
	}
	last, same := 0, 0
	testkit.Await(t, "they take all connections, and no answer goes on", func() bool {
		sent := len(p.log.String())
		if same++; sent != last {
			last, same = sent, 0
		}
		return same >= 10 && p.node.gate.Figures().Connections >= files
	})
	a := p.get(blobPath(d), basic("u", "p")...)
	if a.want(t, 200); len(a.body) != len(content) {
		t.Errorf("%d bytes, %v", len(a.body), a.err)
	}
}
