package peer

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
)

func TestPinning(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{tls: true})
	right, _ := r.members.get("b")
	ask := func(pin [32]byte) error {
		m := right
		m.Fingerprint = pin
		r.members.put(m)
		_, err := r.Stats(t.Context(), "b")
		return err
	}
	if err := ask(right.Fingerprint); err != nil {
		t.Fatal(err)
	}
	// A kept connection is not used for a peer with another certificate.
	wantPeerError(t, ask([32]byte{1}), "certificate")
	if r.Healthy("b") {
		t.Error("a peer with a wrong certificate is healthy")
	}
	wantPeerError(t, ask([32]byte{}), "not a member")
	if err := ask(right.Fingerprint); err != nil {
		t.Errorf("with the right certificate again: %v", err)
	}

	plain := newRig(t, setup{})
	m, _ := plain.members.get("b")
	m.Fingerprint = right.Fingerprint
	plain.members.put(m)
	_, err := plain.Stats(t.Context(), "b")
	wantPeerError(t, err, "TLS")

	if c, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		_ = c.Close()
		t.Error("TLS 1.2 is accepted")
	}
}

func TestResumptionIsNoWayAroundThePin(t *testing.T) {
	t.Parallel()
	cert, right, err := NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	serverSide := ServerTLS(cert)
	serverSide.SessionTicketsDisabled = false
	sessions := tls.NewLRUClientSessionCache(1)
	meet := func(cfg *tls.Config) (resumed bool, err error) {
		cfg.ClientSessionCache, cfg.ServerName = sessions, "peer"
		l := listen(t)
		defer l.Close()
		var done sync.WaitGroup
		defer done.Wait()
		done.Go(func() {
			there, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(tls.Server(there, serverSide), "x") // the ticket is sent before this
			_ = there.Close()
		})
		here, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return false, err
		}
		defer here.Close()
		c := tls.Client(here, cfg)
		_, err = c.Read(make([]byte, 1))
		return c.ConnectionState().DidResume, err
	}
	for i, want := range []bool{false, true} {
		if resumed, err := meet(pinned(right)); resumed != want || err != nil {
			t.Fatalf("connection %d: resumed %v, %v", i, resumed, err)
		}
	}
	if _, err := meet(pinned([32]byte{1})); err == nil {
		t.Error("a resumed connection is not checked")
	}
}

// A blob's first bytes leave a node in one write. The one that asked passes on at once what it reads
// at once, and the rest only after it has made room.
func TestFirstBytesComeInOneRecord(t *testing.T) {
	t.Parallel()
	cert, fingerprint, err := NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	defer l.Close()
	const size = 16 << 10
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() {
		there, err := l.Accept()
		if err != nil {
			return
		}
		defer there.Close()
		_, _ = tls.Server(there, ServerTLS(cert)).Write(make([]byte, size)) // the other end sees what came
	})
	here, err := tls.Dial("tcp", l.Addr().String(), pinned(fingerprint))
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	if n, err := here.Read(make([]byte, 2*size)); n != size || err != nil {
		t.Errorf("at once came %d of %d bytes: %v", n, size, err)
	}
}
