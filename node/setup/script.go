package setup

import "strings"

// quote makes a text one word of a shell (POSIX, section 2.2.2).
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Script returns a shell script that does what the plan says.
func (p Plan) Script() []byte { return nil }
