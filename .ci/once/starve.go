package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bound gives each node so much of each period of a processor, until feed is called. Where groups
// of processes can't be made, the nodes are stopped and continued instead.
func (t *Trial) bound(share, period time.Duration) (feed func()) {
	var groups []string
	feed = func() {
		for _, g := range groups {
			release(g)
		}
	}
	for _, n := range t.Nodes {
		g, err := newGroup(fmt.Sprintf("oci-once-%d-%s", os.Getpid(), n.Name), share, period)
		if err == nil {
			groups = append(groups, g)
			err = write(g, "cgroup.procs", strconv.Itoa(n.cmd.Process.Pid))
		}
		if err != nil {
			log.Print("the nodes are stopped and continued instead: ", err)
			feed()
			return t.stutter(share, period)
		}
	}
	return feed
}

// newGroup makes a group of processes with a bound, in either version of cgroups.
func newGroup(name string, share, period time.Duration) (folder string, err error) {
	quota, of := strconv.FormatInt(share.Microseconds(), 10), strconv.FormatInt(period.Microseconds(), 10)
	folder = filepath.Join("/sys/fs/cgroup/cpu", name)
	if err = os.Mkdir(folder, 0o755); err == nil {
		if err = write(folder, "cpu.cfs_period_us", of); err == nil {
			err = write(folder, "cpu.cfs_quota_us", quota)
		}
	} else {
		folder = filepath.Join("/sys/fs/cgroup", name)
		if err = os.Mkdir(folder, 0o755); err != nil {
			return "", fmt.Errorf("making a group of processes: %w", err)
		}
		err = write(folder, "cpu.max", quota+" "+of)
	}
	if err != nil {
		_ = os.Remove(folder) // it is empty
		return "", err
	}
	return folder, nil
}

// write writes a setting of a group.
func write(folder, name, value string) error {
	f, err := os.OpenFile(filepath.Join(folder, name), os.O_WRONLY, 0) // never a new file
	if err == nil {
		_, err = f.WriteString(value)
		_ = f.Close() // the write has told
	}
	if err != nil {
		return fmt.Errorf("bounding a group of processes: %w", err)
	}
	return nil
}

// release moves a group's processes to the group above, and removes it.
func release(folder string) {
	procs, _ := os.ReadFile(filepath.Join(folder, "cgroup.procs")) // none is none
	for pid := range strings.FieldsSeq(string(procs)) {
		_ = write(filepath.Dir(folder), "cgroup.procs", pid) // it may have ended
	}
	_ = os.Remove(folder) // it is empty, or stays
}

// stutter stops all nodes but for a share of each period, until feed is called.
func (t *Trial) stutter(share, period time.Duration) (feed func()) {
	done, over := make(chan struct{}), make(chan struct{})
	all := func(s syscall.Signal) {
		for _, n := range t.Nodes {
			n.signal(s)
		}
	}
	go func() {
		defer close(over)
		defer all(syscall.SIGCONT)
		for {
			all(syscall.SIGSTOP)
			select {
			case <-done:
				return
			case <-time.After(period - share):
			}
			all(syscall.SIGCONT)
			time.Sleep(share)
		}
	}()
	return func() {
		close(done)
		<-over
	}
}
