package wait_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"oci-proxy/transfer/wait"
)

func TestReadAllClaimsWhatComes(t *testing.T) {
	t.Parallel()
	b := wait.NewBudget(1<<20, 1, time.Minute)
	for _, size := range []int{0, 1, 16<<10 - 1, 16 << 10, 16<<10 + 1, 100_000, 300_000} {
		content := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
		for _, told := range []int64{-1, int64(size), int64(size) / 2, int64(size) * 3} {
			for _, r := range []io.Reader{bytes.NewReader(content), iotest.DataErrReader(bytes.NewReader(content)), iotest.HalfReader(bytes.NewReader(content))} {
				c := b.Claim()
				got, err := wait.ReadAll(wait.WithClaim(t.Context(), c), r, told, 400_000)
				if err != nil || !bytes.Equal(got, content) {
					t.Fatalf("%d bytes, %d told: got %d, %v", size, told, len(got), err)
				}
				if used, _ := b.Used(); used != int64(cap(got)) || size > 0 && used > 2*max(int64(size), 16<<10) {
					t.Errorf("%d bytes, %d told: %d are claimed for %d", size, told, used, cap(got))
				}
				c.Release()
			}
		}
	}
}

func TestReadAllEnds(t *testing.T) {
	t.Parallel()
	endless := bytes.NewReader(make([]byte, 1<<20))
	if got, err := wait.ReadAll(t.Context(), endless, 10, 1000); err != nil || len(got) != 1001 {
		t.Errorf("of more than the limit %d bytes came, %v", len(got), err)
	}
	broke := errors.New("broke")
	if got, err := wait.ReadAll(t.Context(), io.MultiReader(bytes.NewReader(make([]byte, 50)), iotest.ErrReader(broke)), -1, 1000); !errors.Is(err, broke) || len(got) != 50 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	b := wait.NewBudget(1<<20, 0, time.Minute)
	first, second := claim(t, b, 1<<19), claim(t, b, 1<<19)
	c := b.Claim()
	if _, err := wait.ReadAll(wait.WithClaim(t.Context(), c), bytes.NewReader(make([]byte, 50)), -1, 1000); !errors.Is(err, wait.ErrFull) {
		t.Errorf("without memory: %v", err)
	}
	for _, c := range []*wait.Claim{first, second, c} {
		c.Release()
	}
	held(t, b, 0, 0)
}
