package oci

import (
	"strings"
	"unicode"
)

// A User is for whom something is got, as access rules know people. Nodes tell each other.
type User string

// The users that are nobody by name.
const (
	// Unknown may be anybody: nobody said for whom something is got.
	Unknown User = ""
	// Anonymous has no login.
	Anonymous User = "anonymous"
	// Node is a node itself, which gets something by a schedule or for other nodes.
	Node User = "node"
)

// named begins the User of somebody with a login.
const named = "user:"

// maxUser bounds a User in bytes.
const maxUser = 300

// Named is the user with a login of that name; without a name it is Anonymous.
func Named(name string) User {
	if name == "" {
		return Anonymous
	}
	return named + User(name)
}

// ParseUser reads what a member says for whom it asks. What is no User is Unknown.
func ParseUser(s string) User {
	name, is := strings.CutPrefix(s, named)
	switch {
	case len(s) > maxUser, strings.ContainsFunc(s, unicode.IsControl):
	case is && name != "", User(s) == Anonymous, User(s) == Node:
		return User(s)
	}
	return Unknown
}

// Name is the name of the login, "" for none.
func (u User) Name() string {
	name, is := strings.CutPrefix(string(u), named)
	if !is {
		return ""
	}
	return name
}

// String names the user in a sentence for people.
func (u User) String() string {
	switch {
	case u.Name() != "":
		return "user " + u.Name()
	case u == Unknown:
		return "an unknown user"
	case u == Node:
		return "the node itself"
	default:
		return "anonymous"
	}
}
