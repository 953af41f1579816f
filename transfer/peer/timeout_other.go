//go:build !linux

package peer

import "syscall"

// control is for systems that have no TCP_USER_TIMEOUT.
func control(_, _ string, _ syscall.RawConn) error { return nil }
