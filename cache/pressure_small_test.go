package cache

import (
	"fmt"
	"io/fs"
	"sync/atomic"
	"syscall"
	"testing"
)

// A store that holds less than pressureStep makes room on a full disk too, whatever the
// size of its blobs and wherever the disk says that it is full. Room is set aside for large
// ones only: the others are written once they have come.
func TestSmallStoreOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 900, 20_000, 200_000} {
		for _, fails := range []string{"allocate", "write", "create"} {
			if fails == "allocate" && size <= smallSize {
				continue
			}
			t.Run(fmt.Sprintf("%d bytes, %s", size, fails), func(t *testing.T) {
				t.Parallel()
				const most = 4 // blobs that the disk has room for
				dir := t.TempDir()
				var on atomic.Bool
				s := start(t, dir, Options{Bound: 1 << 30, Fault: func(op, name string) error {
					if op == "statfs" {
						return syscall.EIO
					}
					if op == fails && on.Load() && usage(t, dir) >= int64(most*size) {
						return &fs.PathError{Op: op, Path: name, Err: syscall.ENOSPC}
					}
					return nil
				}})
				all := make([]sample, 3*most)
				for i := range all {
					all[i] = newSample(uint64(4600+i), size)
					on.Store(i >= most)
					keep(t, s, all[i])
					want(t, s, all[i])
				}
				if s.Size() > int64((most+1)*size) || s.Size() < int64(size) {
					t.Errorf("%d bytes count; the disk has room for %d", s.Size(), most*size)
				}
			})
		}
	}
}
