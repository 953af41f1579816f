package upstream

import (
	"errors"
	"fmt"
	"strings"
)

// internalSuffixes end the names that mean something only inside some network:
// those that are reserved for it, and those that nobody can register because so
// many networks use them.
var internalSuffixes = []string{
	".local", ".internal", ".localhost", ".svc", ".cluster.local", ".home.arpa", ".onion", ".invalid", ".test",
	".localdomain", ".lan", ".home", ".corp", ".intranet", ".private",
}

// internalName reports whether host means something only inside a network.
func internalName(host string) bool {
	if host == "localhost" || !strings.Contains(host, ".") {
		return true
	}
	for _, s := range internalSuffixes {
		if strings.HasSuffix(host, s) {
			return true
		}
	}
	return false
}

// strangerHost returns the reason not to contact host, which a client names and
// nobody configured, or nil.
func strangerHost(host string) error {
	name := strings.TrimSuffix(host, ":443")
	if strings.Contains(name, ":") {
		return &refusal{reason: "a registry that is not configured is contacted only by name and on port 443"}
	}
	if err := hostName(name); err != nil {
		return err
	}
	if internalName(name) {
		return &refusal{reason: "a registry that is not configured must have a public name"}
	}
	return nil
}

// hostName checks that name is a host's name (RFC 1123) and not an address in
// disguise: resolvers take "127.1" and "0x7f.0.0.1" for addresses.
func hostName(name string) error {
	if len(name) == 0 || len(name) > 253 {
		return &refusal{reason: "the host's name is empty or too long"}
	}
	for label := range strings.SplitSeq(name, ".") {
		if err := hostLabel(label); err != nil {
			return &refusal{reason: fmt.Sprintf("the host's name is not valid: %v", err)}
		}
	}
	if last := lastLabel(name); strings.Trim(last, "0123456789") == "" || hexAddress(name) {
		return &refusal{reason: "an address is not the name of a registry"}
	}
	return nil
}

// lastLabel returns what follows the last dot of name.
func lastLabel(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// hexAddress reports whether name ends like an address in hexadecimal. Some
// resolvers take it for one.
func hexAddress(name string) bool { return strings.HasPrefix(lastLabel(name), "0x") }

// hostLabel checks one label of a name. Names of buckets may hold underscores.
func hostLabel(label string) error {
	switch {
	case label == "":
		return errors.New("a label is empty")
	case len(label) > 63:
		return errors.New("a label is longer than 63 characters")
	case label[0] == '-' || label[len(label)-1] == '-':
		return errors.New("a label begins or ends with a hyphen")
	}
	for _, b := range []byte(label) {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-' && b != '_' {
			return errors.New("a label holds other characters than a-z, 0-9 and hyphens")
		}
	}
	return nil
}
