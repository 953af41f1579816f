package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The bound is that of this process's cgroup or of one above it, in either version.
func TestMemoryOfTheCgroup(t *testing.T) {
	t.Parallel()
	const v1 = "9:name=systemd:/x\n4:memory,hugetlb:/docker/abc\n0::/x\n"
	for name, c := range map[string]struct {
		cgroup string
		files  map[string]string // below sys/fs/cgroup
		want   int64             // 0: none
	}{
		"none":                      {"0::/\n", nil, 0},
		"no cgroups at all":         {"", nil, 0},
		"v2":                        {"0::/system.slice/oci-proxy.service\n", map[string]string{"system.slice/oci-proxy.service/memory.max": "268435456\n"}, 268435456},
		"v2, in a container":        {"0::/\n", map[string]string{"memory.max": "1000000\n"}, 1000000},
		"v2, without a bound":       {"0::/a/b\n", map[string]string{"a/b/memory.max": "max\n", "a/memory.max": "max\n"}, 0},
		"v2, above it":              {"0::/a/b\n", map[string]string{"a/b/memory.max": "max\n", "a/memory.max": "2000000\n"}, 2000000},
		"v2, less above it":         {"0::/a/b\n", map[string]string{"a/b/memory.max": "3000000\n", "a/memory.max": "2000000\n"}, 2000000},
		"v2, more above it":         {"0::/a/b\n", map[string]string{"a/b/memory.max": "3000000\n", "a/memory.max": "4000000\n"}, 3000000},
		"v2, not this cgroup's":     {"0::/a\n", map[string]string{"b/memory.max": "3000000\n"}, 0},
		"v2, out of the namespace":  {"0::/../../a\n", map[string]string{"memory.max": "5000000\n"}, 5000000},
		"v1":                        {v1, map[string]string{"memory/docker/abc/memory.limit_in_bytes": "1000000\n"}, 1000000},
		"v1, in a container":        {v1, map[string]string{"memory/memory.limit_in_bytes": "1000000\n"}, 1000000},
		"v1, without a bound":       {v1, map[string]string{"memory/docker/abc/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		"both, and the less counts": {v1, map[string]string{"memory/docker/abc/memory.limit_in_bytes": "1000000\n", "x/memory.max": "900000\n"}, 900000},
		"rubbish":                   {"x\n:\n0::/\n", map[string]string{"memory.max": "many\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			put := func(file, text string) {
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.cgroup != "" {
				put(filepath.Join(root, "proc/self/cgroup"), c.cgroup)
			}
			for file, text := range c.files {
				put(filepath.Join(root, "sys/fs/cgroup", file), text)
			}
			got, ok := cgroupMemory(root)
			if ok != (c.want > 0) || ok && got != c.want {
				t.Errorf("got %d, %t; want %d", got, ok, c.want)
			}
		})
	}
}
