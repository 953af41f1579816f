package main

import (
	"fmt"
	"io"

	"github.com/schollz/progressbar/v3"
)

// A progress tells on standard error how far long work is: as a bar on a terminal, as lines
// anywhere else. It belongs to one goroutine.
type progress struct {
	err   io.Writer
	bar   *progressbar.ProgressBar // nil: lines
	parts map[string]part          // by the member that does it
}

// A part is how far one member is.
type part struct{ done, of int }

// barWidth is how many columns the bar itself takes.
const barWidth = 30

// newProgress returns a progress of what is counted, and the streams that the command writes
// to meanwhile: they take the bar away before a line is written. End it.
func newProgress(what string, s streams, terminal bool) (*progress, streams) {
	p := &progress{err: s.err, parts: map[string]part{}}
	if !terminal {
		return p, s
	}
	p.bar = progressbar.NewOptions(1, progressbar.OptionSetWriter(s.err), progressbar.OptionSetWidth(barWidth), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(false), progressbar.OptionUseANSICodes(true))
	s.out, s.err = clearing{s.out, p.bar}, clearing{s.err, p.bar}
	return p, s
}

// at notes how far a member is, and shows how far all of them are, or writes the line.
func (p *progress) at(member string, now part, line string) {
	if p.bar == nil {
		if line != "" && now.done < now.of {
			fmt.Fprintln(p.err, line)
		}
		return
	}
	p.parts[member] = now
	sum := part{}
	for _, one := range p.parts {
		sum.done, sum.of = sum.done+one.done, sum.of+one.of
	}
	if sum.of > 0 {
		p.bar.ChangeMax(sum.of)
		_ = p.bar.Set(min(sum.done, sum.of-1)) // a bar that is full ends, and a member may come yet
	}
}

// end takes the bar away.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear() // nothing depends on it
	}
}

// A clearing writer takes the bar away before it writes.
type clearing struct {
	io.Writer
	bar *progressbar.ProgressBar
}

// Write implements io.Writer.
func (c clearing) Write(b []byte) (int, error) {
	_ = c.bar.Clear() // nothing depends on it
	return c.Writer.Write(b)
}
