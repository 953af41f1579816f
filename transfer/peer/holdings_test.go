package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/mesh"
)

// A testKeeper tells what a test wants, and notes the orders.
type testKeeper struct {
	text   []byte
	err    error
	orders []string
}

func (k *testKeeper) Holdings(context.Context) ([]byte, error) { return k.text, k.err }

func (k *testKeeper) Obey(_ context.Context, order json.RawMessage) (any, error) {
	k.orders = append(k.orders, string(order))
	return map[string]int{"done": len(k.orders)}, k.err
}

func TestMembersTellAndObey(t *testing.T) {
	t.Parallel()
	k := &testKeeper{text: bytes.Repeat([]byte("what it holds\n"), 200_000)} // more than other answers may have
	r := newRig(t, setup{keeper: k})
	text, err := Holdings(t.Context(), r.Client, "b", 10*time.Second)
	if err != nil || !bytes.Equal(text, k.text) {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	got, err := Order(t.Context(), r.Client, "b", map[string]string{"purge": "it"}, 10*time.Second)
	if err != nil || string(got) != `{"done":1}` || len(k.orders) != 1 || k.orders[0] != `{"purge":"it"}` {
		t.Errorf("%s %v %q", got, err, k.orders)
	}
	if _, err := Order(t.Context(), r.Client, "b", strings.Repeat("x", MaxOrder), time.Second); err == nil || len(k.orders) != 1 {
		t.Errorf("an order that is too long: %v", err)
	}
	k.err = errors.New("it can't")
	_, first := Holdings(t.Context(), r.Client, "b", 10*time.Second)
	_, second := Order(t.Context(), r.Client, "b", "x", 10*time.Second)
	for _, err := range []error{first, second} {
		if p, ok := errors.AsType[*mesh.PeerError](err); !ok || p.Busy {
			t.Errorf("a member that fails: %v", err)
		}
	}
}

// Strangers are answered as on any other path, and nothing is done.
func TestStrangersGiveNoOrders(t *testing.T) {
	t.Parallel()
	k := &testKeeper{text: []byte("secret")}
	r := newRig(t, setup{keeper: k})
	for _, ask := range []struct{ method, path, auth string }{
		{http.MethodGet, "holdings", ""},
		{http.MethodPost, "orders", ""},
		{http.MethodPost, "orders", "v1 a 1 " + strings.Repeat("0", 64)},
		{http.MethodGet, "holdings", "v1 a 1 " + strings.Repeat("0", 64)},
		{http.MethodPost, "orders/x", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), ask.method, "http://"+r.addr+root+ask.path, strings.NewReader(`{"purge":"it"}`))
		if err != nil {
			t.Fatal(err)
		}
		if ask.auth != "" {
			req.Header.Set(headerAuth, ask.auth)
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound || resp.ContentLength != 0 || len(k.orders) != 0 {
			t.Errorf("%v: %d, %q", ask, resp.StatusCode, k.orders)
		}
	}
}

// A node that keeps nothing says so.
func TestNoKeeper(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	if _, err := Holdings(t.Context(), r.Client, "b", 10*time.Second); err == nil {
		t.Error("it told something")
	}
	if _, err := Order(t.Context(), r.Client, "b", "x", 10*time.Second); err == nil {
		t.Error("it did something")
	}
}
