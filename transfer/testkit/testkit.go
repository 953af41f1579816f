// Package testkit is what the tests of several rooms need: a TestMain ([Main]),
// lengths of runs ([Times], [SkipShort]), waiting for what gives no signal
// ([Await]), a log that goroutines write to ([Log]), a disk that fails ([Fuse]), a
// listener that sees sendfile ([Spy]), and a virtual clock ([Bubble]).
//
// It imports none of our packages, so every room can use it.
package testkit

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// Patience bounds how long a test waits for something that is to happen, however busy the machine
// is. No test takes it for a promise of the product.
const Patience = time.Minute

// atOnce is how many tests of a package run at a time in a short run. Most of them wait
// for a pause or a time-out, so there can be more than CPUs. A whole run has as many as
// CPUs, which is what go test does by itself: with the race detector more would starve
// each other, and nodes that are starved take each other for hung.
const atOnce = 8

// Main runs the tests of a package, and fails if a goroutine outlives them by Patience. The
// flag -parallel of go test wins over its number of tests at a time.
func Main(m goleak.TestingM, opts ...goleak.Option) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if testing.Short() && !chosen {
		if err := flag.Set("test.parallel", strconv.Itoa(max(atOnce, runtime.GOMAXPROCS(0)))); err != nil {
			panic(err) // go test has that flag
		}
	}
	goleak.VerifyTestMain(patient{m, opts}, opts...)
}

// A patient run waits for goroutines that have been told to end. goleak itself waits for less
// than half a second, in which a busy machine may not let them run.
type patient struct {
	goleak.TestingM
	opts []goleak.Option // but no Cleanup
}

func (p patient) Run() int {
	status := p.TestingM.Run()
	for end := time.Now().Add(Patience); status == 0 && goleak.Find(p.opts...) != nil && time.Now().Before(end); {
	}
	return status
}

// SkipShort skips a test that takes a second or more in a short run.
func SkipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes long")
	}
}

// Times returns how often a test repeats something: usual times, an eighth of that
// in a short run, or the part of full that the variable LONG_TESTS sets (1: all).
func Times(usual, full int) int {
	if part, err := strconv.ParseFloat(os.Getenv("LONG_TESTS"), 64); err == nil {
		return max(usual, int(part*float64(full)))
	}
	if testing.Short() {
		return (usual + 7) / 8
	}
	return usual
}

// Await waits until ok returns true, for what another goroutine does without a
// signal. It fails the test after Patience.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !Happens(Patience, ok) {
		t.Fatalf("not in %v: %s", Patience, what)
	}
}

// Happens reports whether ok returns true within d. It asks again and again.
func Happens(d time.Duration, ok func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); !ok(); <-tick.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// Bubble runs a test in virtual time, with a directory that is removed outside of
// the bubble.
func Bubble(t *testing.T, test func(t *testing.T, dir string)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { test(t, dir) })
}

// Replace puts a new file in the place of another, as careful editors do.
func Replace(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}
