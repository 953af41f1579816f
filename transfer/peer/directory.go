package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// directory is the path of what members tell of their blobs.
const directory = "directory"

// errNoDirectory: this node does not keep what others hold.
var errNoDirectory = errors.New("this node keeps no directory")

// A heardDirectory is the answer to what a member told of its blobs.
type heardDirectory struct {
	Again   bool `json:"again,omitempty"` // it is to tell all again
	Follows bool `json:"follows"`         // what it told counts for as long as it says so, whatever the ring
}

// TellDirectory tells the member of that id what this node holds: what the message means, at
// most 16 KiB, is for those who send and hear it. It reports whether the member wants to be
// told all again, and whether it follows which partitions are told of; earlier versions count on
// what they were told until the ring changes. ctx and most bound it. Members of earlier versions do not know the request:
// membership.Member says which do. Errors are *mesh.PeerError.
func TellDirectory(ctx context.Context, c *Client, id string, message []byte, most time.Duration) (again, follows bool, err error) {
	if len(message) > maxTold {
		return false, false, c.fails(id, fmt.Errorf("a message of %d bytes is over the limit of %d", len(message), maxTold))
	}
	a, err := c.small(ctx, id, ask{method: http.MethodPost, path: root + directory, body: message, word: true}, maxJSON, most)
	if err != nil {
		return false, false, err
	}
	var heard heardDirectory
	if err := json.Unmarshal(a.body, &heard); err != nil {
		return false, false, c.garbled(a.link, errors.New("its answer to what this node holds is malformed"))
	}
	return heard.Again, heard.Follows, nil
}

// postDirectory returns what hears members tell of their own blobs; hear is as
// ServerConfig.Directory.
func postDirectory(hear func(sender string, message []byte) (again bool, err error)) func(*reply, *call) error {
	return func(w *reply, c *call) error {
		if hear == nil {
			return errNoDirectory
		}
		again, err := hear(c.sender, c.body)
		if err != nil {
			return fmt.Errorf("hearing what a member holds: %w", err)
		}
		return sendJSON(w, heardDirectory{Again: again, Follows: true})
	}
}
