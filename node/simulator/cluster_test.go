package simulator

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestSimTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		w, err := New(Config{Seed: 1, Nodes: 3, Blobs: 24, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Log("formed", time.Since(start))
		if err := w.Herd(2); err != nil {
			t.Error(err)
		}
		t.Log("herd", time.Since(start), w.registry.Amplification(), w.registry.Amplification().Ratio())
		n, err := w.Failed()
		t.Log(n, err)
		if err := w.End(); err != nil {
			t.Error(err)
		}
	})
}
