package upstream

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A name has two addresses, and what listens at the first takes connections and answers nothing.
// The next try goes to the other one, and so do later requests until that one fails.
func TestAnAddressThatAnswersNothingComesLast(t *testing.T) {
	t.Parallel()
	hangsUp := func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			_, _ = there.Read(make([]byte, 1<<10))
			_ = there.Close()
		}()
		return located{here, to.String()}, nil
	}
	silent := func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		conn, err := mute(ctx, to)
		return located{conn, to.String()}, err
	}
	for name, broken := range map[string]func(context.Context, netip.AddrPort) (net.Conn, error){"hangs up": hangsUp, "is mute": silent} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var tried []string
				n := &terrain{names: means("8.8.8.8", "1.1.1.1")}
				well := "1.1.1.1"
				n.places = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
					if to.Port() == 80 { // TLS is tried, too
						tried = append(tried, to.Addr().String())
					}
					if to.Addr().String() == well {
						return greets(ctx, to)
					}
					return broken(ctx, to)
				}
				c := onTerrain(t, n, Registry{Insecure: true})
				for _, want := range [][]string{{"8.8.8.8", "1.1.1.1"}, {"1.1.1.1"}} {
					tried = nil
					wantHello(t, c, "reg.example.com")
					if !slices.Equal(tried, want) {
						t.Errorf("tried %q, want %q", tried, want)
					}
					c.named["reg.example.com"].net.closeIdle()
				}
				well, tried = "8.8.8.8", nil
				time.Sleep(doubtedFor / 2) // in the bubble
				wantHello(t, c, "reg.example.com")
				if want := []string{"1.1.1.1", "8.8.8.8"}; !slices.Equal(tried, want) {
					t.Errorf("tried %q, want %q", tried, want)
				}
				c.Close()
			})
		})
	}
}
