package node

import (
	"fmt"
	"net/http"
	"slices"

	"oci-proxy/node/gate"
	"oci-proxy/node/reply"
	"oci-proxy/transfer/holdings"
	"oci-proxy/transfer/oci"
)

// A lookup answers what a pull of an image would get, before anybody pulls it. It judges by
// the rules that a pull is judged by, asks no registry, and tells a visitor no more than a
// pull would. It takes a turn as a pull does.
type lookup struct{ steward *steward }

const (
	// lookupNames is how many names one question may have.
	lookupNames = 50
	// lookupTags is how many other tags of an image's repository are told.
	lookupTags = 20
)

// A lookupAnswer is the answer of /_/image.
type lookupAnswer struct {
	Auth  bool         `json:"auth"`           // logins are looked at
	Login bool         `json:"login"`          // the visitor has to log in before a pull; nothing else is told
	User  string       `json:"user,omitempty"` // whose login the visitor has
	Names []lookupLine `json:"names"`
}

// A lookupLine is what a pull of one name would get.
type lookupLine struct {
	Name         string         `json:"name"`            // as it was asked
	Error        string         `json:"error,omitempty"` // it is no name
	Image        string         `json:"image,omitempty"` // the name in full
	Refused      *lookupRefusal `json:"refused,omitempty"`
	WithoutLogin *lookupRefusal `json:"without_login,omitempty"` // what it would be without the visitor's login
	Offline      bool           `json:"offline,omitempty"`       // the registry is never asked
	Cached       []cachedLine   `json:"cached,omitempty"`        // the image, if the cluster holds it
	Tags         []string       `json:"tags,omitempty"`          // of the repository that are held too
}

// A lookupRefusal is why a pull would be refused. Why is "whitelist", "access" or "login".
type lookupRefusal struct {
	Why    string `json:"why"`
	Reason string `json:"reason"`
}

// A cachedLine is what the cluster holds of an image. Sizes are in bytes.
type cachedLine struct {
	Digest    string   `json:"digest"`
	Platforms []string `json:"platforms"`
	Size      int64    `json:"size"`
	Held      int64    `json:"held"` // of the size
}

// ServeHTTP answers GET /_/image?name=NAME, with several names if need be.
func (l lookup) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	names := r.URL.Query()["name"]
	if len(names) == 0 || len(names) > lookupNames {
		reply.Fail(w, http.StatusBadRequest, reply.Error{Code: "UNSUPPORTED", Message: fmt.Sprintf("ask for 1 to %d images: ?name=registry/repository:tag", lookupNames)})
		return
	}
	who, ok := l.steward.gate.MayPull(r)
	answer := lookupAnswer{Auth: !l.steward.gate.Open(), Login: !ok, User: who.User(), Names: []lookupLine{}}
	if ok {
		end, err := l.steward.gate.Turn(r, who)
		if err != nil {
			fail(w, r, l.steward.gate, oci.ManifestResource, err)
			return
		}
		defer end()
		answer.Names = l.lines(r, who, once(names))
	}
	reply.JSON(w, answer)
}

// once returns names without repeats, in their order.
func once(names []string) (out []string) {
	for _, name := range names {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// lines are what who's pulls of names would get.
func (l lookup) lines(r *http.Request, who gate.Client, names []string) []lookupLine {
	lines := make([]lookupLine, len(names))
	shown := map[int]oci.Ref{} // those of which the visitor may know whether they are held
	for i, name := range names {
		ref, err := oci.ParseImage(name, l.steward.registries.names())
		lines[i] = lookupLine{Name: name}
		if err != nil {
			lines[i].Error = err.Error()
			continue
		}
		lines[i].Image = holdings.Image{Ref: ref}.Name(shownRegistry)
		lines[i].Refused = l.refusal(userOf(who), ref)
		lines[i].WithoutLogin = l.withoutLogin(r, who, ref)
		one, _ := l.steward.registries.cfg().Registry(ref.Registry)
		lines[i].Offline = one.Offline
		if lines[i].Refused == nil && l.steward.sites.public(ref.Registry) {
			shown[i] = ref
		}
	}
	if len(shown) == 0 {
		return lines
	}
	now, err := l.steward.glance(r.Context(), false)
	if err != nil {
		return lines // what is held is not known now
	}
	for i, ref := range shown {
		lines[i].Cached, lines[i].Tags = held(now.names(), ref)
	}
	return lines
}

// refusal is why a user's pull would be refused, nil if it would not.
func (l lookup) refusal(user oci.User, ref oci.Ref) *lookupRefusal {
	if !l.steward.registries.Asks(ref.Registry) {
		return &lookupRefusal{"whitelist", notListed}
	}
	if err := l.steward.rules.Refuse(user, ref); err != nil {
		return &lookupRefusal{"access", err.Error()}
	}
	return nil
}

// withoutLogin is refusal for a visitor with a login as it were without.
func (l lookup) withoutLogin(r *http.Request, who gate.Client, ref oci.Ref) *lookupRefusal {
	if who.User() == "" {
		return nil
	}
	bare := r.Clone(gate.WithVisitor(r.Context(), new(gate.Visitor))) // the log keeps the real one
	bare.Header.Del("Authorization")
	stranger, ok := l.steward.gate.MayPull(bare)
	if !ok {
		return &lookupRefusal{"login", "this proxy requires a login"}
	}
	return l.refusal(userOf(stranger), ref)
}

// held looks for an image, and for other tags of its repository.
func held(names *imageIndex, ref oci.Ref) (cached []cachedLine, tags []string) {
	if one := names.find(ref); one != nil {
		cached = []cachedLine{{one.Digest.String(), append([]string{}, one.Platforms...), one.Size, one.Held}}
	}
	return cached, names.tags(ref)
}
