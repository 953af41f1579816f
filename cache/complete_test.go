package cache

import "testing"

// TestComplete: all announced bytes have come, or, if no size was told, those that match.
func TestComplete(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	for name, told := range map[string]int64{"size told": 20_000, "size not told": -1} {
		b := newSample(30, 20_000)
		in := begin(t, s, b)
		want := func(when string, complete bool) {
			if got := in.Complete(); got != complete {
				t.Errorf("%s, %s: complete %v, want %v", name, when, got, complete)
			}
		}
		want("before it began", false)
		in.SetSize(told)
		want("with nothing", false)
		for _, part := range [][]byte{b.content[:19_999], b.content[19_999:]} {
			want("with less than all", false)
			if _, err := in.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		want("with all", true)
		if told < 0 {
			if _, err := in.Write([]byte("more")); err != nil {
				t.Fatal(err)
			}
			want("with more than all", false)
		}
		in.Abort(nil)
	}
	empty := begin(t, s, newSample(31, 0))
	empty.SetSize(-1)
	if !empty.Complete() {
		t.Error("an empty blob is not complete with nothing")
	}
	empty.Abort(nil)
}
