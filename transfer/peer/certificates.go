package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
)

// certificates is the path of requests about the certificates of the clients' port.
const certificates = "certificates"

var (
	errNoCertificates = errors.New("this node keeps no certificates")
	errPlain          = errors.New("private keys travel over TLS only: set cluster.peer_tls: true on all nodes")
)

// AskCertificates asks the member of that id about the certificates of the clients' port: what
// the question means, at most 64 KiB, is for those who ask and answer. The answer is at most
// 1 MiB of JSON, and may hold private keys: a member that is reached neither over TLS nor over
// loopback is not asked. ctx and 39 s bound it. Errors are *mesh.PeerError.
func AskCertificates(ctx context.Context, c *Client, id string, question []byte) (json.RawMessage, error) {
	if len(question) > maxVault {
		return nil, c.fails(id, fmt.Errorf("a question of %d bytes is over the limit of %d", len(question), maxVault))
	}
	a, err := c.small(ctx, id, ask{method: http.MethodPost, path: root + certificates, body: question, secret: true}, maxJSON, c.times.call)
	if err != nil {
		return nil, err
	}
	if !json.Valid(a.body) {
		return nil, c.garbled(a.link, errors.New("what it says of certificates is not JSON"))
	}
	return bytes.TrimSpace(a.body), nil
}

// postCertificates returns what answers members' questions about certificates by answer, which is
// as ServerConfig.Certificates.
func postCertificates(answer func(ctx context.Context, sender string, question []byte) (any, error)) func(*reply, *call) error {
	return func(w *reply, c *call) error {
		switch {
		case answer == nil:
			return errNoCertificates
		case c.TLS == nil && !local(c.RemoteAddr):
			return errPlain
		}
		ctx, cancel := context.WithTimeout(c.Context(), examineTime)
		defer cancel()
		found, err := answer(ctx, c.sender, c.body)
		if err != nil {
			return fmt.Errorf("answering about certificates: %w", err)
		}
		return sendJSON(w, found)
	}
}

// local reports whether what is sent to, or came from, that address never left this machine.
func local(address string) bool {
	at, err := netip.ParseAddrPort(address)
	return err == nil && at.Addr().Unmap().IsLoopback()
}
