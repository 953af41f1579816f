package journal

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Type is what a key's value is in JSON.
type Type string

// The types.
const (
	Text    Type = "text"
	Number  Type = "number"
	Boolean Type = "boolean"
	Time    Type = "time" // text, RFC 3339
)

// A Key is one that lines of the log have. Its name and type are outward: with log_format: json
// they are a schema, to which keys are added and none is renamed.
type Key struct {
	Name    string
	Type    Type
	Meaning string // in Markdown, for a table
}

// Keys are all of them: those of every line, those of a request's line, then the others.
var Keys = []Key{
	{"time", Time, "When. In every line."},
	{"level", Text, "`DEBUG`, `INFO`, `WARN` or `ERROR`. In every line."},
	{"msg", Text, "What happened. In every line; constant for a kind of line."},

	{"client", Text, "Address of the client: the connection's, or what a trusted proxy says."},
	{"user", Text, "Whose login was right; missing without one. A wrong login is logged with its user only if there is such a user."},
	{"method", Text, "Of the request."},
	{"registry", Text, "Registry that the line is about, by its canonical name."},
	{"image", Text, "Repository that was asked for, or that the line is about; in the lines of `warm`, `pin` and `unpin`, the whole image."},
	{"tag", Text, "Tag that was asked for."},
	{"digest", Text, "Digest that was asked for, or that the line is about."},
	{"path", Text, "Of a request that is no pull, without its query."},
	{"status", Number, "Of the answer. 499: the client left before its answer."},
	{"bytes", Number, "Of the body that were sent; elsewhere bytes of content."},
	{"took_ms", Number, "Milliseconds from the request, or from the beginning, to the end."},
	{"first_byte_ms", Number, "Milliseconds from the request to the first byte of the answer."},
	{"queue_ms", Number, "Milliseconds that a pull waited for its turn at this node."},
	{"source", Text, "Where the bytes came from: `hit`, `peer`, `miss`, `collapsed` (joined a running download), `checked` (the tag was confirmed by the registry), `stale`."},
	{"upstream_host", Text, "Host that delivered or failed."},
	{"action", Text, "What an operator asked for that changes something: `leave`, `reload`, `forget`, `warm`, `import`, … Refused requests too: see `status`."},
	{"request_id", Text, "`X-Request-Id` of the client's request that the line is about, on all nodes."},
	{"trace_id", Text, "Trace that the pull is recorded as; missing if it is not traced."},
	{"user_agent", Text, "What the client calls itself, 300 bytes at most."},
	{"error", Text, "Why it failed."},

	{"accepted", Number, "Secrets of the cluster that are accepted now."},
	{"account", Text, "Login of a registry, by its key in the config."},
	{"address", Text, "Address of this node's clients' port, of a member's gossip, or of a seed."},
	{"alone", Boolean, "All the wrong bytes came from there."},
	{"bad", Number, "Blobs that were wrong, and are gone."},
	{"blobs", Number, "How many."},
	{"bound", Number, "Of a shard, in bytes."},
	{"bytes_per_second", Number, "How fast a download was."},
	{"cache_dir", Text, "Cache directory that the line is about."},
	{"cause", Text, "Why it was done."},
	{"checked", Time, "When the registry last confirmed what is served."},
	{"cluster", Text, "This node's name in its cluster."},
	{"cluster_id", Text, "`cluster.id`."},
	{"code", Text, "Code of a [degraded reason](#degraded-reasons)."},
	{"commit", Text, "Of the program."},
	{"config", Text, "Config file; empty for the built-in defaults."},
	{"connections", Number, "Over which a blob came."},
	{"cut", Boolean, "It was too slow to begin."},
	{"directory", Text, "URL of the ACME server's directory."},
	{"domain", Text, "Name that a certificate is for."},
	{"dropped", Number, "Messages of gossip that were not logged."},
	{"failed", Number, "How many failed."},
	{"file", Text, "In the cache directory."},
	{"for_ms", Number, "Milliseconds that it lasts."},
	{"gossip", Text, "Address of this node's gossip port."},
	{"held", Number, "How many others hold already."},
	{"host", Text, "Host that was asked."},
	{"id", Text, "Of a node."},
	{"images", Number, "How many."},
	{"issuer", Text, "Who issued a certificate."},
	{"key", Text, "Of the config, or of an object in the bucket of the archive."},
	{"left_ms", Number, "Milliseconds that are left of it."},
	{"length", Number, "Of a range, in bytes."},
	{"lines", Number, "How many lines of a file."},
	{"members", Number, "How many were told."},
	{"mirror", Text, "Host of a mirror."},
	{"needs_restart", Text, "Keys of the config that changed and count from the next start on."},
	{"next_try_ms", Number, "Milliseconds until it is tried again."},
	{"node", Text, "Node of a demo."},
	{"not_logged", Number, "Lines equal to this one, or with this message, that were left out in the last minute."},
	{"number", Number, "Of a secret in the config."},
	{"objects", Number, "How many."},
	{"offset", Number, "In a blob, in bytes."},
	{"old_id", Text, "Id that the node had before."},
	{"page", Text, "Address of the page."},
	{"peer", Text, "Another member, by its name."},
	{"peers", Text, "Address of this node's port for other members."},
	{"port", Number, "Of the config."},
	{"reason", Text, "Why it was done."},
	{"rule", Text, "Place of the access rule that refused it, as `proxy.yaml:12`."},
	{"socket", Text, "Address of the socket that the service manager opened."},
	{"stack", Text, "Where in the code a bug is."},
	{"state", Text, "Of a member; of a registry that fails: `down` or `limited`."},
	{"stored", Boolean, "The blob is in the cache now."},
	{"taken_over", Number, "Parts of a download that another connection went on with."},
	{"target", Text, "What `doctor` looked at; empty for the node and its cluster."},
	{"text", Text, "What a library says."},
	{"took_effect", Text, "Keys of the config that changed and count now."},
	{"until", Time, "When a certificate ends."},
	{"usable", Boolean, "The last login still serves."},
	{"used_at_most", Number, "Bytes of memory that the node plans with."},
	{"version", Text, "Of the program."},
	{"warning", Text, "What is doubtful in the config, and where."},
	{"within_ms", Number, "Milliseconds that it may take."},
}

// Table is the documentation of all keys, a table in Markdown.
func Table() string {
	var out strings.Builder
	out.WriteString("| key | type | meaning |\n|---|---|---|\n")
	for _, k := range Keys {
		fmt.Fprintf(&out, "| %s | %s | %s |\n", k.Name, k.Type, k.Meaning)
	}
	return out.String()
}

// Check returns what is wrong with a line of the log in JSON: a key that Keys does not have,
// or a value of another type.
func Check(line []byte) error {
	var values map[string]any
	if err := json.Unmarshal(line, &values); err != nil {
		return fmt.Errorf("not a JSON object: %w", err)
	}
	for name, value := range values {
		i := slices.IndexFunc(Keys, func(k Key) bool { return k.Name == name })
		if i < 0 {
			return fmt.Errorf("%q is no key of the log", name)
		}
		if !Keys[i].Type.fits(value) {
			return fmt.Errorf("%s is %v, which is no %s", name, value, Keys[i].Type)
		}
	}
	return nil
}

// fits reports whether a value, as encoding/json decodes it, is of the type.
func (t Type) fits(value any) bool {
	switch v := value.(type) {
	case float64:
		return t == Number
	case bool:
		return t == Boolean
	case string:
		if t == Time {
			_, err := time.Parse(time.RFC3339Nano, v)
			return err == nil
		}
		return t == Text
	}
	return false
}
