package node

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"oci-proxy/node/config"
)

const (
	// loginAge is how long a login that was right is believed without its hash
	// being computed again: clients send it with each layer.
	loginAge = 5 * time.Minute
	// maxLogins bounds the logins remembered.
	maxLogins = 4096
)

// A loginKey stands for a login, and the network it came from if that matters.
// It can't be turned back into a password, on this machine or another.
type loginKey [sha256.Size]byte

// logins knows who may use the proxy.
type logins struct {
	user   string // of the config, "" for none
	hash   [sha256.Size]byte
	users  *watched[*users] // of the htpasswd file, nil for none
	secret [sha256.Size]byte
	turns  chan struct{} // bcrypt takes a core: it must not take all of them
	// compare is bcrypt's; tests look at what it is given.
	compare func(hash, password []byte) error

	mu      sync.Mutex
	of      *users // the file's state that right belongs to
	right   map[loginKey]time.Time
	running map[loginKey]*evaluation
}

// users are those of one state of an htpasswd file.
type users struct {
	hashes map[string]config.Secret
	dummy  []byte // what costs as much as the dearest of them
}

// An evaluation is a login whose hash is being computed, once for all who send it.
type evaluation struct {
	done chan struct{}
	ok   bool
	at   *users // as they were then
}

func newLogins(cfg *config.Config, log *slog.Logger) (*logins, error) {
	l := &logins{
		user: cfg.Auth.Username, hash: hashLogin(cfg.Auth.Username, cfg.Auth.Password.Reveal()),
		turns:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		compare: bcrypt.CompareHashAndPassword,
		right:   map[loginKey]time.Time{}, running: map[loginKey]*evaluation{},
	}
	_, _ = rand.Read(l.secret[:]) // which never fails (crypto/rand)
	if file := cfg.Auth.HtpasswdFile; file != "" {
		var err error
		l.users, err = newWatched("auth.htpasswd_file", []string{file}, func() (*users, error) { return readUsers(file) }, log)
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

func readUsers(file string) (*users, error) {
	hashes, err := config.ReadUsers(file)
	if err != nil {
		return nil, err
	}
	cost := bcrypt.MinCost
	for _, h := range hashes {
		if c, err := bcrypt.Cost([]byte(h.Reveal())); err == nil {
			cost = max(cost, c)
		}
	}
	dummy, err := bcrypt.GenerateFromPassword([]byte(rand.Text()), cost)
	return &users{hashes, dummy}, err
}

// hashLogin makes logins of any length comparable in constant time. A user's
// name has no colon (RFC 7617 section 2), so that no two logins are one string.
func hashLogin(user, password string) [sha256.Size]byte {
	return sha256.Sum256([]byte(user + ":" + password))
}

// anywhere is where a login comes from whose hash need not be computed again.
const anywhere = "anywhere"

// key returns what a login is remembered by: from a network, or from anywhere.
func (l *logins) key(from, user, password string) (k loginKey) {
	login := hashLogin(user, password)
	mac := hmac.New(sha256.New, l.secret[:])
	mac.Write(login[:])
	mac.Write([]byte(from)) // the login before it has one length
	mac.Sum(k[:0])
	return k
}

// known reports whether a login was right from that network a moment ago. It is
// believed for as long again.
func (l *logins) known(from netip.Prefix, user, password string) bool {
	return l.recall(l.key(from.String(), user, password))
}

// check reports whether a login is right. gone is closed when nobody wants to
// know any more.
func (l *logins) check(gone <-chan struct{}, from netip.Prefix, user, password string) bool {
	var at *users
	if l.users != nil {
		at = l.users.get()
	}
	ok := l.configured(user, password)
	if !ok && at != nil {
		ok, at = l.listed(gone, at, user, password)
	}
	if ok {
		l.remember(l.key(from.String(), user, password), at)
	}
	return ok
}

// exists reports whether there is such a user, for the log: what is none may be
// a password in the wrong field.
func (l *logins) exists(user string) bool {
	if user == "" || user == l.user {
		return user != ""
	}
	if l.users == nil {
		return false
	}
	_, ok := l.users.get().hashes[user]
	return ok
}

// configured compares with the config's login.
func (l *logins) configured(user, password string) bool {
	given := hashLogin(user, password)
	return subtle.ConstantTimeCompare(given[:], l.hash[:]) == 1 && l.user != ""
}

// listed compares with the htpasswd file, and returns it as it was then.
func (l *logins) listed(gone <-chan struct{}, now *users, user, password string) (bool, *users) {
	k := l.key(anywhere, user, password)
	if l.recall(k) {
		return true, now
	}
	l.mu.Lock()
	e, joined := l.running[k]
	if !joined {
		e = &evaluation{done: make(chan struct{}), at: now}
		l.running[k] = e
		go l.evaluate(e, k, user, password)
	}
	l.mu.Unlock()
	select {
	case <-e.done:
		return e.ok, e.at
	case <-gone:
		return false, nil
	}
}

// evaluate computes a hash in its turn. Who is no user costs as much as who is.
func (l *logins) evaluate(e *evaluation, k loginKey, user, password string) {
	l.turns <- struct{}{}
	defer func() { <-l.turns }()
	hash, exists := e.at.hashes[user]
	against := []byte(hash.Reveal())
	if !exists {
		against = e.at.dummy
	}
	e.ok = l.compare(against, []byte(password)) == nil && exists
	if e.ok {
		l.remember(k, e.at)
	}
	l.mu.Lock()
	delete(l.running, k)
	l.mu.Unlock()
	close(e.done)
}

// fresh forgets who was right if the file has changed. The caller holds the lock.
func (l *logins) fresh() {
	if l.users == nil {
		return
	}
	if now := l.users.get(); now != l.of {
		l.of = now
		clear(l.right)
	}
}

func (l *logins) recall(k loginKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fresh()
	until, ok := l.right[k]
	if !ok || time.Until(until) <= 0 {
		return false
	}
	l.right[k] = time.Now().Add(loginAge)
	return true
}

// remember notes that a login was right for users as they were at a time. Where
// there is no room some other is forgotten: it costs one hash.
func (l *logins) remember(k loginKey, at *users) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fresh(); at != l.of {
		return
	}
	if len(l.right) >= maxLogins {
		for old := range l.right {
			delete(l.right, old)
			break
		}
	}
	l.right[k] = time.Now().Add(loginAge)
}
