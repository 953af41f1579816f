package cache

import (
	"os"
	"testing"
)

// A directory above the store's is renamed, or a link above it leads elsewhere: the
// store keeps what it has, where it is.
func TestDirectoryAboveThatIsRenamed(t *testing.T) {
	t.Parallel()
	for name, move := range map[string]func(base string) (now string, err error){
		"renamed": func(base string) (string, error) {
			return base + "/old/cache", os.Rename(base+"/current", base+"/old")
		},
		"renamed, and another in its place": func(base string) (string, error) {
			return base + "/old/cache", firstOf(os.Rename(base+"/current", base+"/old"), os.Mkdir(base+"/current", 0o700))
		},
		"a link that is turned": func(base string) (string, error) {
			return base + "/old/cache", firstOf(os.Rename(base+"/current", base+"/old"), os.Mkdir(base+"/new", 0o700), os.Symlink("new", base+"/current"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			if err := os.Mkdir(base+"/current", 0o700); err != nil {
				t.Fatal(err)
			}
			s := start(t, base+"/current/cache", Options{})
			a, b := newSample(770, 300_000), newSample(771, 200_000)
			keep(t, s, a)
			now, err := move(base)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s.care.tend(t.Context())
				if err := s.Health(); err != nil {
					t.Error("health:", err)
				}
			}
			want(t, s, a)
			keep(t, s, b)
			if _, err := os.Lstat(base + "/current/cache"); !os.IsNotExist(err) {
				t.Error("the store made its old path again:", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = start(t, now, Options{})
			want(t, s, a)
			want(t, s, b)
			tidy(t, s)
		})
	}
}

// Another cache directory at the path is the one that the operator wants.
func TestDirectoryAboveThatIsReplaced(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	s := start(t, base+"/current/cache", Options{})
	a := newSample(772, 300_000)
	keep(t, s, a)
	if err := firstOf(os.Rename(base+"/current", base+"/old"), os.MkdirAll(base+"/current/cache", 0o700)); err != nil {
		t.Fatal(err)
	}
	s.care.tend(t.Context())
	wantGone(t, s, a)
	keep(t, s, a)
	want(t, s, a)
}
