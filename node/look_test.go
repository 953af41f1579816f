package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// One thing that takes for ever is found wrong in time, and the others as they are.
func TestLookingEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		defer close(stuck)
		began := time.Now()
		found := lookAt(t.Context(), []inspection{
			{[]string{"a"}, func(context.Context) Finding { <-stuck; return fine("never") }},
			{[]string{"b"}, func(context.Context) Finding { return doubtful("at once") }},
			{[]string{"c"}, func(ctx context.Context) Finding { <-ctx.Done(); return wrong("in the end: %v", ctx.Err()) }},
		})
		if took := time.Since(began); took > LookTime+time.Second {
			t.Errorf("it took %s", took)
		}
		want := []Finding{
			{Wrong, []string{"a"}, "no answer within 10s"},
			{Doubtful, []string{"b"}, "at once"},
			{Wrong, []string{"c"}, "in the end: context deadline exceeded"},
		}
		for i, f := range found {
			if f.Level != want[i].Level || f.Text != want[i].Text || f.Keys[0] != want[i].Keys[0] {
				t.Errorf("got %+v, want %+v", f, want[i])
			}
		}
	})
}
