package cache

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
)

// A mount is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	root   string // the directory of the file system that is mounted
	point  string // where it is seen
	kind   string // of file system
	source string // its device
}

// onHost returns where a directory of a container lies on the host: its path on its file
// system, which is the host's path too if that is the host's root, and that file system's
// device. They are "" outside of containers, and for a file system that is mounted as a whole.
func onHost(dir string) (hostPath, device string) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", "" // not Linux
	}
	defer f.Close()
	return placeOnHost(path.Clean(dir), readMounts(f))
}

// placeOnHost is onHost for a clean path and the mounts of this process.
func placeOnHost(dir string, mounts []mount) (hostPath, device string) {
	var top, of mount
	for _, m := range mounts {
		if m.point == "/" {
			top = m
		}
		if (m.point == dir || strings.HasPrefix(dir, m.point+"/")) && len(m.point) >= len(of.point) {
			of = m // the last one of a place hides the others
		}
	}
	// Containers see an overlay as their root. Elsewhere a part of a file system may be
	// mounted for other reasons, such as subvolumes.
	if top.kind != "overlay" || cmp.Or(of.root, "/") == "/" {
		return "", ""
	}
	return path.Join(of.root, strings.TrimPrefix(dir, of.point)), of.source
}

// readMounts reads mounts, as far as they can be read.
func readMounts(r io.Reader) (all []mount) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		place, system := strings.Fields(before), strings.Fields(after)
		if len(place) > 4 && len(system) > 1 {
			all = append(all, mount{unescaped(place[3]), unescaped(place[4]), system[0], unescaped(system[1])})
		}
	}
	return all
}

// unescaped replaces what the kernel writes as \ and three octal digits.
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// hostID returns the id that a user (kind uid) or group (gid) of this process has on the host,
// which is another one in a user namespace, as of rootless podman.
func hostID(kind string, id int) int {
	text, err := os.ReadFile("/proc/self/" + kind + "_map")
	if err != nil {
		return id // not Linux
	}
	return mapped(string(text), id)
}

// mapped looks an id up in lines of ids here, ids outside and how many (user_namespaces(7)).
func mapped(lines string, id int) int {
	for line := range strings.Lines(lines) {
		var here, outside, n int
		if _, err := fmt.Sscan(line, &here, &outside, &n); err == nil && id >= here && id-here < n {
			return outside + id - here
		}
	}
	return id
}
