package main

import (
	"os"
	"slices"
	"testing"
)

// A small heap is collected after 8 MiB of garbage, a large one at two fifths of what is in use, and
// none is larger than either asks for: the runtime counts from 4 MiB.
func TestPercentOfGarbage(t *testing.T) {
	t.Parallel()
	for used, want := range map[uint64]int{
		0: 250, 1 << 20: 250, 3 << 20: 250, 4 << 20: 200, 8 << 20: 100, 15 << 20: 53, 16 << 20: 50, 20 << 20: 40, 1 << 30: 40, 1 << 50: 40,
	} {
		if got := percentOf(used); got != want {
			t.Errorf("%d bytes in use: %d %%, want %d", used, got, want)
		}
	}
}

// Only what the system can read again is given back.
func TestReadOnlyMappings(t *testing.T) {
	t.Parallel()
	const smaps = `00400000-01276000 r-xp 00000000 fe:00 1234                       /usr/bin/oci proxy
Rss:               11896 kB
Anonymous:             0 kB
01276000-0220f000 r--p 00e76000 fe:00 1234                       /usr/bin/oci proxy
Rss:               11940 kB
Anonymous:             0 kB
0220f000-022c8000 rw-p 01e0f000 fe:00 1234                       /usr/bin/oci proxy
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 99                 /lib/relocated.so
Anonymous:             4 kB
7f0000002000-7f0000003000 r--p 00000000 00:00 0
Anonymous:             0 kB
7ffe00000000-7ffe00002000 r-xp 00000000 00:00 0                  [vdso]
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:           312 kB
`
	want := []mapping{{0x400000, 0x1276000}, {0x1276000, 0x220f000}}
	if got := readOnly(smaps); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	for _, rubbish := range []string{"", "x\n", "a b c d e f\nAnonymous: 0 kB\n", "zz-yy r-xp 0 fe:00 5 /x\nAnonymous: 0 kB\n"} {
		if got := readOnly(rubbish); got != nil {
			t.Errorf("%q: %x", rubbish, got)
		}
	}
}

// What was given back is there again when it is needed.
func TestForgetStart(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil || len(readOnly(string(text))) < 2 {
		t.Skipf("smaps tells nothing: %v\n%s", err, text)
	}
	forgetStart()
	if got := percentOf(8 << 20); got != 100 {
		t.Error(got)
	}
}
