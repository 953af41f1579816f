// Package logins gets logins at registries that do not last: a command prints one, or a docker
// config.json says where it is.
//
// A Source (source.go) keeps the last login and gets a new one before that ends. How it is got
// is a Getter: Exec runs a command (exec.go), Docker reads a docker config and asks the
// credential helper that it names (docker.go). Both run programs by command.go, which bounds
// their time and output. Nothing that a program prints gets into an error, a log or health:
// it may be a secret.
package logins

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	"oci-proxy/transfer/upstream"
)

// A Getter gets a login. Its errors hold no secret. It ends soon after its context.
type Getter func(context.Context) (Login, error)

// A Login is credentials, and how long they are good for.
type Login struct {
	upstream.Credentials
	Life  time.Duration // how long they last; 0: nobody says
	Again time.Duration // after which they are to be got again, at most Life
}

// When a login is got again, and how often that is tried.
const (
	untoldAgain = 5 * time.Minute  // after a program that does not say how long its login lasts
	fileAgain   = 2 * time.Second  // after a file alone was read
	failedPause = 10 * time.Second // after a try that failed
	leastPause  = 10 * time.Second // after a try because of a refusal, and again twice as long
	mostPause   = 5 * time.Minute  // while that brings nothing new
	leastLife   = 10 * time.Second
	mostLife    = 30 * 24 * time.Hour
)

// after returns how much of its life a login is used for before it is got again.
func after(life time.Duration) time.Duration { return life * 4 / 5 }

// errUnfit says that a user name or password cannot be sent to a registry.
var errUnfit = errors.New("the login has no user name, no password, or a character that a login cannot have")

// credentials checks a user name and password, whose last newline is cut. A user name ends at
// a colon (RFC 7617 section 2).
func credentials(username, password string) (upstream.Credentials, error) {
	c := upstream.Credentials{Username: username, Password: strings.TrimRight(password, "\r\n")}
	if c.Username == "" || c.Password == "" || strings.Contains(c.Username, ":") || strings.ContainsFunc(c.Username+c.Password, unicode.IsControl) {
		return upstream.Credentials{}, errUnfit
	}
	return c, nil
}
