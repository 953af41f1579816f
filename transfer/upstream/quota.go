package upstream

import (
	"cmp"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Quota is what a registry says of its rate limit. The zero value says nothing.
type Quota struct {
	Limit     int64     // requests in a window; 0: the registry tells no limit
	Remaining int64     // of them
	Reset     time.Time // when there will be Limit again, at the latest
}

// Low reports whether less than that percentage of the limit is left now.
func (q Quota) Low(percent int) bool {
	return q.Limit > 0 && time.Now().Before(q.Reset) && q.Remaining*100 < int64(percent)*q.Limit
}

// quotaFor is how long a quota counts whose end the registry does not tell.
const quotaFor = time.Minute

// believedFor is how long a quota counts as low without another word of the registry, however far
// off the end of its window is said to be: while it does, nothing need ask the registry again.
const believedFor = time.Hour

// mostQuota is the largest number that is believed, and longestWindow the longest window.
const (
	mostQuota     = 1 << 40
	longestWindow = 31 * 24 * time.Hour
)

// quotaOf reads what an answer says of the rate limit, and whether it says anything. There
// are three dialects: one header a number, as Docker Hub ("100;w=21600"), GitLab and
// GitHub have it, with or without X-; and the two forms of the IETF's RateLimit, one header
// for all (draft-ietf-httpapi-ratelimit-headers, 07 and later).
func quotaOf(h http.Header, now time.Time) (Quota, bool) {
	// As net/http spells them: other spellings cost an allocation each, with every answer.
	limit, remaining := first(h, "Ratelimit-Limit", "X-Ratelimit-Limit", "X-Rate-Limit-Limit"), first(h, "Ratelimit-Remaining", "X-Ratelimit-Remaining", "X-Rate-Limit-Remaining")
	reset := first(h, "Ratelimit-Reset", "X-Ratelimit-Reset", "X-Rate-Limit-Reset")
	window := cmp.Or(parameter(limit, "w"), parameter(remaining, "w"))
	if one := h.Get("Ratelimit"); limit == "" && one != "" {
		policy := h.Get("Ratelimit-Policy")
		limit = cmp.Or(parameter(one, "limit"), parameter(policy, "q"), policy)
		remaining = cmp.Or(parameter(one, "remaining"), parameter(one, "r"))
		reset = cmp.Or(parameter(one, "reset"), parameter(one, "t"))
		window = parameter(policy, "w")
	}
	most, ok := number(limit)
	left, told := number(remaining)
	if !ok || !told || most == 0 {
		return Quota{}, false
	}
	return Quota{Limit: most, Remaining: min(left, most), Reset: resetOf(reset, window, now)}, true
}

// resetOf is when a window ends: a number of seconds from now or since 1970, or when all of
// the window is over.
func resetOf(reset, window string, now time.Time) time.Time {
	const sinceEpoch = 1 << 30 // in 2004; nobody's window has that many seconds
	in := quotaFor
	if n, ok := number(window); ok && n > 0 {
		in = seconds(n)
	}
	if n, ok := number(reset); ok && n >= sinceEpoch {
		in = min(time.Unix(n, 0).Sub(now), longestWindow)
	} else if ok && n > 0 {
		in = seconds(n)
	}
	return now.Add(in)
}

// seconds is so many of them, but no longer than a window may be.
func seconds(n int64) time.Duration {
	return time.Duration(min(n, int64(longestWindow/time.Second))) * time.Second
}

// first returns the first of the headers that is set.
func first(h http.Header, names ...string) string {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// leadingNumber is a number at the beginning of a value, of the first of several if there is a list.
var leadingNumber = regexp.MustCompile(`^\s*(\d{1,13})\s*(?:[;,]|$)`)

// number reads the number that a value begins with.
func number(v string) (int64, bool) {
	m := leadingNumber.FindStringSubmatch(v)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	return n, err == nil && n <= mostQuota
}

// parameter returns a parameter of the first item of a value: r of `"default";r=50;t=30`,
// and limit of "limit=100, remaining=50", where each is an item. It is "" if there is none.
func parameter(v, name string) string {
	for part := range strings.FieldsFuncSeq(v, func(r rune) bool { return r == ';' || r == ',' }) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(part), name+"="); ok {
			return value
		}
	}
	return ""
}
