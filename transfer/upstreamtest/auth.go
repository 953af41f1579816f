package upstreamtest

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Mixed case, because some clients turn the challenge into lower case.
const (
	tokenPath    = "/Token-Service/auth"
	tokenService = "Upstream.Test"
)

// BearerAuth says how a registry with tokens behaves.
type BearerAuth struct {
	User, Password string        // the login; "": anonymous tokens only
	Anonymous      bool          // anonymous tokens too, although there is a login
	TTL            time.Duration // of tokens; 0: 5 minutes; expires_in has it in seconds, rounded up
	OmitScope      bool          // the challenge names no scope
	OmitExpiry     bool          // the token server's answer has no expires_in
	AccessToken    bool          // the token server's answer has the token in access_token
	ExpiredStatus  int           // for an expired token: 401 (default) or 403, which has no challenge
	Realm          string        // overrides the realm of the challenge
	Extra          []string      // further challenges, each in a header of its own before the right one
	SeparateHost   bool          // the token server has a port of its own
	Identity       string        // an identity token, which a POST exchanges; "": the token server takes none
}

// Basic makes the registry ask for this login by HTTP Basic.
func Basic(user, password string) Option {
	return func(o *options) { o.basic = &credentials{user, password} }
}

// Bearer makes the registry ask for tokens. They are opaque and valid only for the
// repositories of their scopes.
func Bearer(b BearerAuth) Option {
	return func(o *options) { o.bearer = &b }
}

// A grant is what the registry knows of a token.
type grant struct {
	user       string
	repos      []string
	expires    time.Time
	generation int
}

// An issuer gives out tokens and knows them again.
type issuer struct {
	how BearerAuth

	mu          sync.Mutex
	tokens      map[string]grant
	generation  int    // of tokens; those of earlier ones are revoked
	expireAfter int    // authorised requests left until all tokens expire; < 0: they do not
	password    string // of the login by now, "": as the registry was given it
}

// newIssuer returns an issuer that behaves as how says.
func newIssuer(how *BearerAuth) *issuer {
	s := &issuer{tokens: map[string]grant{}, expireAfter: -1}
	if how != nil {
		s.how = *how
	}
	return s
}

// RevokeTokens makes all tokens given out so far count as expired.
func (s *issuer) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
}

// ExpireTokensAfter makes all tokens of that moment expire once n more requests have
// been let in. Tokens given out later are valid.
func (s *issuer) ExpireTokensAfter(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expireAfter = n
}

// SetPassword changes the password of the registry's login. Tokens stay valid.
func (s *issuer) SetPassword(password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = password
}

// right reports whether password is that of the login, which was made with former.
func (s *issuer) right(password, former string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return password == cmp.Or(s.password, former)
}

// authorise reports whether req may go on. If not, it has answered req.
func (r *Registry) authorise(w *wire, req *http.Request) bool {
	switch {
	case r.opts.bearer != nil:
		return r.authoriseBearer(w, req)
	case r.opts.basic != nil:
		user, password, _ := req.BasicAuth()
		if user == r.opts.basic.user && r.right(password, r.opts.basic.password) || r.has(user, password) {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="Upstream Test"`)
		w.fail(http.StatusUnauthorized, "UNAUTHORIZED")
		return false
	}
	return true
}

// authoriseBearer is authorise for a registry with tokens.
func (r *Registry) authoriseBearer(w *wire, req *http.Request) bool {
	repo, _, _ := split(req.URL.Path)
	problem := ""
	if token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer "); ok {
		if problem = r.examine(token, repo); problem == "" {
			return true
		}
	}
	b := r.opts.bearer
	if problem == "expired" {
		if b.ExpiredStatus == http.StatusForbidden {
			w.fail(http.StatusForbidden, "DENIED")
			return false
		}
		problem = "invalid_token"
	}
	for _, extra := range b.Extra {
		w.Header().Add("WWW-Authenticate", extra)
	}
	w.Header().Add("WWW-Authenticate", r.challenge(repo, problem))
	w.fail(http.StatusUnauthorized, "UNAUTHORIZED")
	return false
}

// examine returns what is wrong with a token, "" if it is valid for repo ("": any).
func (s *issuer) examine(token, repo string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.tokens[token]
	switch {
	case !ok:
		return "invalid_token"
	case g.generation < s.generation || time.Now().After(g.expires):
		return "expired"
	case repo != "" && !slices.Contains(g.repos, repo):
		return "insufficient_scope"
	}
	if s.expireAfter == 0 {
		s.generation++
		s.expireAfter = -1
		return "expired"
	}
	s.expireAfter = max(s.expireAfter-1, -1)
	return ""
}

// challenge returns the WWW-Authenticate value (RFC 6750, section 3).
func (r *Registry) challenge(repo, problem string) string {
	b := r.opts.bearer
	realm := b.Realm
	if realm == "" {
		realm = r.scheme() + "://" + r.TokenHost() + tokenPath
	}
	s := fmt.Sprintf("Bearer realm=%q,service=%q", realm, tokenService)
	if repo != "" && !b.OmitScope {
		s += fmt.Sprintf(",scope=%q", "repository:"+repo+":pull")
	}
	if problem != "" {
		s += fmt.Sprintf(",error=%q", problem)
	}
	return s
}

// serveToken answers a request to the token server.
func (r *Registry) serveToken(w *wire, req *http.Request) {
	if req.Method == http.MethodPost && r.opts.bearer.Identity != "" {
		r.exchange(w, req)
		return
	}
	query := req.URL.Query()
	repos, ok := scopes(query["scope"])
	switch {
	case req.Method != http.MethodGet:
		w.fail(http.StatusMethodNotAllowed, "UNSUPPORTED")
	case req.URL.Path != tokenPath:
		w.fail(http.StatusNotFound, "UNSUPPORTED")
	case !ok || query.Get("service") != tokenService:
		w.fail(http.StatusBadRequest, "UNSUPPORTED")
	case !r.login(req) && !r.hasLogin(req):
		w.Header().Set("WWW-Authenticate", `Basic realm="Upstream Test"`)
		w.fail(http.StatusUnauthorized, "UNAUTHORIZED")
	default:
		user, _, _ := req.BasicAuth()
		w.content("application/json", encode(r.issue(user, repos)))
	}
}

// exchange answers a POST to the token server (RFC 6749 section 6).
func (r *Registry) exchange(w *wire, req *http.Request) {
	err := req.ParseForm()
	repos, ok := scopes(req.PostForm["scope"])
	switch form := req.PostForm; {
	case err != nil, !ok, form.Get("service") != tokenService, form.Get("grant_type") != "refresh_token", form.Get("client_id") == "", req.URL.RawQuery != "", req.Header.Get("Authorization") != "":
		w.fail(http.StatusBadRequest, "UNSUPPORTED")
	case form.Get("refresh_token") != r.opts.bearer.Identity:
		w.fail(http.StatusUnauthorized, "UNAUTHORIZED")
	default:
		w.content("application/json", encode(r.issue("identity", repos)))
	}
}

// login reports whether a request for a token has the right login.
func (s *issuer) login(req *http.Request) bool {
	b := s.how
	if req.Header.Get("Authorization") == "" {
		return b.Anonymous || b.User == ""
	}
	user, password, ok := req.BasicAuth()
	return ok && b.User != "" && user == b.User && s.right(password, b.Password)
}

// issue makes a token and returns the token server's answer.
func (s *issuer) issue(user string, repos []string) map[string]any {
	b, token := s.how, rand.Text()
	ttl := b.TTL
	if ttl == 0 {
		ttl = 5 * time.Minute
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = grant{user: user, repos: repos, expires: time.Now().Add(ttl), generation: s.generation}
	answer := map[string]any{"token": token}
	if b.AccessToken {
		answer = map[string]any{"access_token": token}
	}
	if !b.OmitExpiry {
		answer["expires_in"] = int64((ttl + time.Second - 1) / time.Second)
	}
	return answer
}

// scopes returns the repositories that these scopes allow pulls from. Each value is a
// list separated by spaces. It is not ok if a scope is not "repository:NAME:…pull…".
func scopes(values []string) (repos []string, ok bool) {
	for scope := range strings.FieldsSeq(strings.Join(values, " ")) {
		name, isRepo := strings.CutPrefix(scope, "repository:")
		i := strings.LastIndexByte(name, ':')
		if !isRepo || i < 0 || !slices.Contains(strings.Split(name[i+1:], ","), "pull") {
			return nil, false
		}
		repos = append(repos, name[:i])
	}
	return repos, true
}
