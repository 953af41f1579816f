package logins

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Limits of a program that is run.
const (
	runTime   = 10 * time.Second
	maxOutput = 64 << 10 // bytes
	pipeTime  = time.Second
)

// errLong ends a program that prints too much.
var errLong = fmt.Errorf("it prints more than %d bytes", maxOutput)

// run runs a program and returns what it prints to standard output; to standard error it
// prints to nobody. It and what it began are killed after runTime. Errors name the program and
// none of its arguments.
func run(ctx context.Context, argv []string, in string) ([]byte, error) {
	return runWithin(ctx, runTime, argv, in)
}

// errSlow ends a program that takes too long.
var errSlow = fmt.Errorf("it did not end within %s", runTime)

// runWithin is run with another time.
func runWithin(ctx context.Context, within time.Duration, argv []string, in string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, errSlow)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) // the operator names the program
	cmd.Env = environment(os.Environ())
	cmd.Stdin = strings.NewReader(in)
	out := new(output)
	cmd.Stdout = out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it begins ends with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipeTime
	err := cmd.Run()
	switch {
	case out.long:
		err = errLong
	case ctx.Err() != nil && err != nil:
		err = context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay):
		return out.text, nil // it has ended, and what it left behind holds its output open
	case err != nil:
		err = fmt.Errorf("%w; run it as the node's user to see why", plain(err))
	}
	if err != nil {
		return out.text, fmt.Errorf("the command %q failed: %w", argv[0], err)
	}
	return out.text, nil
}

// plain returns an error of os/exec without the program's name.
func plain(err error) error {
	if e, ok := errors.AsType[*exec.Error](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// kept are the variables that a program does not get: the node's own secrets, and what the
// service manager wants of the node alone.
var kept = []string{"OCI_PROXY_", "NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_"}

// environment returns the variables for a program.
func environment(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(one string) bool {
		return slices.ContainsFunc(kept, func(prefix string) bool { return strings.HasPrefix(one, prefix) })
	})
}

// An output is what a program printed, up to maxOutput.
type output struct {
	text []byte
	long bool
}

// Write fails once there is too much: the program's next write then fails, too.
func (o *output) Write(p []byte) (int, error) {
	if len(o.text)+len(p) > maxOutput {
		o.long = true
		return 0, errLong
	}
	o.text = append(o.text, p...)
	return len(p), nil
}
