// Package wire is HTTP as this program speaks it at its own ports: clients' and
// peers' alike.
//
// An answer is written through [Paced], which gives each piece of it a deadline
// and counts what was sent; over a connection of a [Listener] a small body leaves with its
// header in one write. A [Ledger] knows the connections of a server and
// closes idle ones when there are too many. A [Span] is the part of some content
// that a Range asks for and a Content-Range tells of.
package wire
