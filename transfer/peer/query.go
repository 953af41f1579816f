package peer

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	// go-digest knows only the algorithms that are linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// mediaTypePattern matches what may stand in an Accept list.
var mediaTypePattern = regexp.MustCompile(`^[!#$%&'*+.^_|~0-9A-Za-z-]+/[!#$%&'*+.^_|~0-9A-Za-z-]+$`)

// maxAccept bounds how many media types of a client's Accept list are sent.
const maxAccept = 64

// nowhere is the repository that a loss, or an answer, seems to be about to earlier
// versions, which take it for the refusal of a whole repository. They know nothing of
// this one.
const nowhere = "nowhere"

var errQuery = errors.New("malformed parameters")

// A query is the parameters of a request.
type query struct {
	oci.Ref
	mesh.Terms
	accept []string
	inList bool          // the digest is a parameter, not part of the path
	lost   bool          // the repository does not have what the digest or tag names
	blob   bool          // and the digest is a blob's
	told   bool          // the registry answered the question
	peek   bool          // of a list: whether it is held
	pause  time.Duration // how long a registry asks to be left alone
	mirror bool          // of what is passed on: mirrors of the registry may answer, too
	list   oci.Query     // what selects a page of a list
	came   int64         // of a report: how many bytes the sender has
	user   oci.User      // for whom the sender asks; Unknown of an earlier version
}

// encode writes the parameters.
func (q query) encode() string {
	v := formerList(q.list)
	set(v, "list", string(q.list))
	set(v, "user", string(oci.ParseUser(string(q.user))))
	v.Set("registry", q.Registry)
	switch {
	case q.lost:
		v.Set("lost", q.Repository)
		v.Set("repository", nowhere)
	case q.told:
		v.Set("told", q.Repository)
		v.Set("repository", nowhere)
	default:
		set(v, "repository", q.Repository)
	}
	if q.blob {
		v.Set("blob", "1")
	}
	if q.peek {
		v.Set("peek", "1")
	}
	if q.mirror {
		v.Set("mirrors", "1")
	}
	set(v, "tag", q.Tag)
	if q.inList {
		v.Set("digest", q.Digest.String())
	}
	if q.Held {
		v.Set("held", "1")
	}
	if q.Vouched {
		v.Set("vouched", "1")
	}
	if q.Part.Length > 0 {
		v.Set("part", strconv.FormatInt(q.Part.Length, 10))
	}
	if q.pause > 0 {
		v.Set("pause", strconv.FormatInt(int64(q.pause.Round(time.Second)/time.Second), 10))
	}
	setFeed(v, q.Feed, q.came)
	for _, t := range q.accept {
		if acceptable(t) && len(v["accept"]) < maxAccept && !slices.Contains(v["accept"], t) {
			v.Add("accept", t)
		}
	}
	return v.Encode()
}

// formerKeys select a page in the requests of earlier versions, which know no others.
var formerKeys = []string{"n", "last", "artifactType", "next_page", "page", "page_size", "nextToken", "marker"}

// formerList returns what of a list's query earlier versions read.
func formerList(list oci.Query) url.Values {
	out := url.Values{}
	in, _ := url.ParseQuery(string(list)) // what is malformed is not theirs to read
	for _, key := range formerKeys {
		set(out, key, in.Get(key))
	}
	return out
}

// set sets a value that is not empty.
func set(v url.Values, key, val string) {
	if val != "" {
		v.Set(key, val)
	}
}

// acceptable reports whether t can stand in an Accept list.
func acceptable(t string) bool { return len(t) <= maxWord && mediaTypePattern.MatchString(t) }

// parseQuery reads the parameters of a request. It ignores keys that it does not
// know: they are a newer version's.
func parseQuery(raw string) (query, error) {
	if len(raw) > maxQuery {
		return query{}, errQuery
	}
	v, err := url.ParseQuery(raw)
	if err != nil {
		return query{}, errQuery
	}
	for _, key := range []string{"registry", "repository", "tag", "digest", "held", "vouched", "lost", "blob", "told", "list", "part", "peek", "pause", "mirrors", "user"} {
		if len(v[key]) > 1 {
			return query{}, errQuery
		}
	}
	q := query{accept: v["accept"], list: oci.ListQuery(v.Get("list"))}
	if q.list == "" {
		q.list = oci.Query(formerList(oci.Query(raw)).Encode())
	}
	q.Registry, q.Repository, q.Tag = v.Get("registry"), v.Get("repository"), v.Get("tag")
	q.Held, q.Vouched, q.blob, q.peek = v.Get("held") == "1", v.Get("vouched") == "1", v.Get("blob") == "1", v.Get("peek") == "1"
	q.mirror = v.Get("mirrors") == "1"
	q.user = oci.ParseUser(v.Get("user"))
	if in := v.Get("lost"); in != "" {
		q.lost, q.Repository = true, in
	}
	if in := v.Get("told"); in != "" {
		q.told, q.Repository = true, in
	}
	if d := v.Get("digest"); d != "" {
		if q.Digest, err = parseDigest(d); err != nil {
			return query{}, err
		}
	}
	if in := v.Get("part"); in != "" {
		if q.Part.Length, err = strconv.ParseInt(in, 10, 64); err != nil || q.Part.Length <= 0 || q.Part.Length > maxPart {
			return query{}, errQuery
		}
	}
	if q.Feed, q.came, err = readFeed(v); err != nil {
		return query{}, err
	}
	if in := v.Get("pause"); in != "" {
		seconds, err := strconv.ParseUint(in, 10, 31)
		if err != nil {
			return query{}, errQuery
		}
		q.pause = time.Duration(seconds) * time.Second
	}
	if len(q.accept) > maxAccept || slices.ContainsFunc(q.accept, func(t string) bool { return !acceptable(t) }) || !q.WellFormed() {
		return query{}, errQuery
	}
	return q, nil
}

// parseDigest reads a digest that can be verified.
func parseDigest(s string) (digest.Digest, error) {
	d := digest.Digest(s)
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 && d.Algorithm() != digest.SHA512 {
		return "", errQuery
	}
	return d, nil
}
