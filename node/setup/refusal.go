package setup

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// A ByHand is the error for a file that setup does not change, because that might break it.
type ByHand struct {
	Path string
	Why  string
	Add  string // what to add to it by hand, "" for nothing
}

// Error tells why, and what to add.
func (b *ByHand) Error() string {
	if b.Add == "" {
		return fmt.Sprintf("%s stays as it is: %s", b.Path, b.Why)
	}
	return fmt.Sprintf("%s stays as it is: %s. Add this by hand:\n\n%s\n", b.Path, b.Why, strings.TrimRight(b.Add, "\n"))
}

// refuse returns the error of a part that can't be put into a text, or can't be taken out of it.
func refuse(why, add string) error { return &ByHand{Why: why, Add: add} }

// at gives an error of a part the path of its file.
func at(path string, err error) error {
	if b, ok := errors.AsType[*ByHand](err); ok {
		return &ByHand{path, b.Why, b.Add}
	}
	return fmt.Errorf("%s: %w", path, err)
}

// ownFile puts a marked part into a file that is not for others. One that others have written
// is theirs.
func ownFile(text []byte, part string) ([]byte, error) {
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return []byte(part), nil
	case bytes.Equal(text, []byte(part)):
		return text, nil
	default:
		return nil, refuse("somebody else has written it", part)
	}
}

// certificates are authorities in PEM, with whatever comments around.
type certificates []byte

func (c certificates) into(text []byte) ([]byte, error) {
	if len(text) > 0 && bytes.Contains(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), c) {
		return text, nil
	}
	return insert(text, len(text), marked(strings.TrimRight(string(c), "\n"))), nil
}
