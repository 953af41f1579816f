package grants

import (
	"path"
	"time"

	"oci-proxy/transfer/oci"
)

// A Site is what a registry means to this node: its rules, and the shard that
// holds its content. It is a value, made from the configuration and what the
// members of the cluster say. A request carries the one of the moment it began.
type Site struct {
	TagTTL       time.Duration // how long a checked tag is believed; 0: checked at each request
	StaleIfError time.Duration // how long a tag's last manifest is served while upstream fails
	Tags         []TagRule     // the two for tags of some names, first match
	Offline      bool          // never ask upstream; StaleIfError does not bound what is known then
	Private      bool          // serve its content only for a repository that it vouched for
	Stranger     bool          // nobody configured it: what it announces may be made up
	PassOn       bool          // its redirects go to the client (follow_redirects: false)
	Mirrored     bool          // other places hold its repositories too
	Spare        bool          // little is left of its rate limit: what is known of a tag is believed
	Shard        *Shard
}

// A TagRule says how long the tags that match are believed.
type TagRule struct {
	Match        string // as path.Match has it
	TagTTL       time.Duration
	StaleIfError time.Duration
}

// forever is longer than anything is known.
const forever = 1<<63 - 1

// For returns the rules for what ref names: a tag's own; for content by its digest, which
// may be any tag's, the longest StaleIfError of all. What is known of an offline registry
// counts for ever.
func (s Site) For(ref oci.Ref) Site {
	switch {
	case s.Offline:
		s.StaleIfError = forever
	case ref.Tag != "":
		for _, r := range s.Tags {
			if match, err := path.Match(r.Match, ref.Tag); match && err == nil {
				s.TagTTL, s.StaleIfError = r.TagTTL, r.StaleIfError
				break
			}
		}
	case ref.Digest != "":
		for _, r := range s.Tags {
			s.StaleIfError = max(s.StaleIfError, r.StaleIfError)
		}
	}
	return s
}

// A Request names content, and what its registry means at the time.
type Request struct {
	oci.Ref
	Site
	Member bool // another node asks. It asks the others itself, so this one asks none of them
}

// For returns the Request for other content of the same registry.
func (q Request) For(ref oci.Ref) Request { return Request{ref, q.Site, q.Member} }
