package setup

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// A Change is a file that setup is to change.
type Change struct {
	Path          string
	Before, After []byte // nil: there is no such file
}

// Changes are what setup is to change on a machine, all of it or nothing.
type Changes struct {
	Files   []Change // in order of path; none: all is as it should be
	machine *Machine
	was     record
	record  record // as it is to be then
}

// Compare returns what is to change for a plan on the machine. The plan is put into the files as
// they would be without setup, so an earlier setup with other options goes. It is an
// error of type *ByHand if a file can't be changed safely.
func (m *Machine) Compare(p Plan) (*Changes, error) {
	parts := map[string]part{}
	for _, f := range p.Files {
		parts[f.Path] = f.part
	}
	return m.changes(p.Client, parts)
}

// Undo returns what is to change so that nothing of what setup did for a client, one of Clients, is
// left. What others have changed since stays.
func (m *Machine) Undo(client string) (*Changes, error) { return m.changes(client, nil) }

// changes returns what is to change so that of all that setup ever wrote for a client, the parts
// are left.
func (m *Machine) changes(client string, parts map[string]part) (*Changes, error) {
	rec, err := m.recordAt(clientNamed(client).dir)
	if err != nil {
		return nil, fmt.Errorf("reading what setup did before: %w", err)
	}
	c := &Changes{machine: m, was: rec, record: record{dir: rec.dir, files: map[string]twofold{}, made: rec.made}}
	paths := slices.AppendSeq(slices.Collect(maps.Keys(rec.files)), maps.Keys(parts))
	slices.Sort(paths)
	for _, file := range slices.Compact(paths) {
		was, known := rec.files[file]
		if err := c.add(file, parts[file], was, known); err != nil {
			return nil, at(file, err)
		}
	}
	return c, nil
}

// add adds what is to change in one file. p is nil if setup is to write nothing there.
func (c *Changes) add(file string, p part, was twofold, known bool) error {
	now, err := c.machine.read(file)
	if err != nil {
		return err
	}
	if known && asBefore(p, now, was) {
		c.record.files[file] = was
		return nil
	}
	if !known {
		if was, err = unrecorded(file, now); err != nil {
			return err
		}
	}
	base, err := reverted(file, now, was)
	if err != nil {
		return err
	}
	then := base
	if p != nil {
		if then, err = p.into(base); err != nil {
			return err
		}
	}
	if path.Ext(file) == ".json" && sameJSON(then, now) {
		then = now // laid out by the script, which has other ways
	}
	if !identical(then, base) {
		c.record.files[file] = twofold{base, then}
	}
	if identical(then, now) {
		return nil
	}
	if own := parted(now); p != nil && known && own != nil && !bytes.Equal(own, parted(was.after)) {
		return refuse("somebody has changed the part that setup wrote there, which would be lost. Move that out of the marked part, or undo first", string(then))
	}
	c.Files = append(c.Files, Change{file, now, then})
	return nil
}

// asBefore reports whether setup wrote the same before, and its part is there unchanged. What others have
// added around it does not matter then.
func asBefore(p part, now []byte, was twofold) bool {
	own := parted(now)
	if p == nil || own == nil || !bytes.Equal(own, parted(was.after)) {
		return false
	}
	then, err := p.into(was.before)
	return err == nil && identical(then, was.after)
}

// unrecorded is what is known of a file without a record of it: its marked parts are setup's.
func unrecorded(file string, now []byte) (twofold, error) {
	if parted(now) == nil {
		return twofold{now, now}, nil
	}
	left := unmarked(now)
	if err := leaves(file, now, left, nil); err != nil {
		return twofold{}, err
	}
	if len(left) == 0 {
		return twofold{nil, left}, nil
	}
	return twofold{left, left}, nil
}

// identical reports whether two files are the same: a file without content is not the same as none.
func identical(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// parted returns the marked parts of a text.
func parted(text []byte) (all []byte) {
	inside := false
	for l := range bytes.Lines(text) {
		bare := strings.TrimSpace(string(l))
		inside = inside || bare == opens
		if inside {
			all = append(all, l...)
		}
		inside = inside && bare != closes
	}
	return all
}

// Diff shows the changes as a unified diff.
func (c *Changes) Diff() string {
	var all strings.Builder
	for _, f := range c.Files {
		from, to := f.Path, f.Path
		if f.Before == nil {
			from = "/dev/null"
		}
		if f.After == nil {
			to = "/dev/null"
		}
		all.WriteString(udiff.Unified(from, to, string(f.Before), string(f.After)))
	}
	return all.String()
}

// Record returns the folder that keeps the files as they were before, "" if setup leaves nothing to undo.
func (c *Changes) Record() string {
	if len(c.record.files) == 0 {
		return ""
	}
	return c.record.dir
}

// Write makes the changes. Each file is replaced in one step. If one of them can't be, those
// before it are put back, and nothing has changed. If there are none, it only takes away a record that is
// of no use any more.
func (c *Changes) Write() error {
	end, err := c.machine.lock()
	if err != nil {
		return fmt.Errorf("nothing has been changed: %w", err)
	}
	defer end()
	if now, err := c.machine.recordAt(path.Dir(c.was.dir)); err != nil || !reflect.DeepEqual(now, c.was) {
		return errors.Join(errors.New("nothing has been changed: another setup has run meanwhile"), err)
	}
	if len(c.Files) == 0 {
		return c.writeNothing()
	}
	var all staging
	if err = all.write(c); err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("nothing has been changed: %w", err), all.back(), all.forget(c))
}

// writeNothing takes away a record of files that are without setup's part already.
func (c *Changes) writeNothing() error {
	if len(c.was.files) == 0 || len(c.record.files) > 0 {
		return nil
	}
	return c.settle()
}

// A staging is writing changes.
type staging struct {
	files []staged
	done  int      // so many of them are in place
	made  []string // folders
}

func (s *staging) write(c *Changes) error {
	for _, f := range c.Files {
		if err := s.folder(c.machine, path.Dir(f.Path)); err != nil {
			return err
		}
		at, err := c.machine.real(f.Path)
		if err != nil {
			return err
		}
		one, err := stageOver(at, f.After)
		if err != nil {
			return err
		}
		s.files = append(s.files, one)
		if !identical(one.old, f.Before) {
			return fmt.Errorf("%s has changed meanwhile", f.Path)
		}
	}
	if len(c.record.files) > 0 {
		if err := s.folder(c.machine, path.Dir(c.record.dir)); err != nil {
			return err
		}
	}
	c.record.made = append(c.record.made, s.made...)
	if len(c.record.files) > 0 { // before the files, so that whatever happens can be undone
		if err := c.record.keep(c.machine); err != nil {
			return fmt.Errorf("keeping what the files were before: %w", err)
		}
	}
	for _, f := range s.files {
		if err := f.commit(); err != nil {
			return err
		}
		s.done++
	}
	return c.settle()
}

// forget makes the record what it was.
func (s *staging) forget(c *Changes) error {
	err := c.was.keep(c.machine)
	c.machine.sweep(s.made)
	return err
}

// settle takes away what is not needed any more once all files are in place.
func (c *Changes) settle() error {
	if len(c.record.files) == 0 {
		if err := c.record.forget(c.machine); err != nil {
			return err
		}
	}
	left := c.machine.sweep(c.record.made)
	if len(c.record.files) == 0 || len(left) == len(c.record.made) {
		return nil
	}
	c.record.made = left
	return c.record.keep(c.machine)
}
