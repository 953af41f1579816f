package upstreamtest

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// An Account is a login beside the one of Basic or Bearer.
type Account struct {
	User, Password string
	Repos          []string // that it may see; nil: all of them
	Unseen         int      // how it is refused others; 0: with 404
}

// Accounts gives a registry with Basic or Bearer further logins.
func Accounts(all ...Account) Option {
	return func(o *options) { o.accounts = append(o.accounts, all...) }
}

// accounts are the further logins, and how each user is answered.
type accounts struct {
	further []Account

	mu      sync.Mutex
	answers map[string]accountAnswer // by user
}

// An accountAnswer is what requests of a user are answered.
type accountAnswer struct {
	status int
	header http.Header
}

// AnswerUser has the requests of a user answered with that status (0: as always) and these
// headers beside the usual ones.
func (s *accounts) AnswerUser(user string, status int, header http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answers == nil {
		s.answers = map[string]accountAnswer{}
	}
	s.answers[user] = accountAnswer{status, header}
}

// has reports whether a further login is this one.
func (s *accounts) has(user, password string) bool {
	return slices.ContainsFunc(s.further, func(a Account) bool { return a.User == user && a.Password == password })
}

// hasLogin reports whether a request shows a further login.
func (s *accounts) hasLogin(req *http.Request) bool {
	user, password, ok := req.BasicAuth()
	return ok && s.has(user, password)
}

// letIn reports whether the user's request for repo may go on. If not, it has answered it.
func (s *accounts) letIn(w *wire, user, repo string) bool {
	s.mu.Lock()
	answer := s.answers[user]
	s.mu.Unlock()
	maps.Copy(w.Header(), answer.header)
	if answer.status != 0 {
		w.fail(answer.status, "TOOMANYREQUESTS")
		return false
	}
	for _, a := range s.further {
		if a.User != user || repo == "" || a.Repos == nil || slices.Contains(a.Repos, repo) {
			continue
		}
		status := a.Unseen
		if status == 0 {
			status = http.StatusNotFound
		}
		w.fail(status, "NAME_UNKNOWN")
		return false
	}
	return true
}

// userOf returns the user that a request is of, "" for a guest.
func (s *issuer) userOf(req *http.Request) string {
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok {
		user, _, _ := req.BasicAuth()
		return user
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens[token].user
}
