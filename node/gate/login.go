package gate

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/netip"
	"runtime"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/crypto/bcrypt"

	"oci-proxy/node/config"
	"oci-proxy/node/reload"
	"oci-proxy/transfer/wait"
)

// maxLogins bounds the logins remembered.
const maxLogins = 4096

// A loginKey stands for a login, and for the network it came from if that
// matters. It cannot be turned back into a password, here or elsewhere.
type loginKey [sha256.Size]byte

// logins know who may use the node: the config's user, and those of an htpasswd
// file.
type logins struct {
	user   string // of the config, "" for none
	hash   [sha256.Size]byte
	users  *reload.Files[*users] // nil for no file
	secret [sha256.Size]byte
	desk   *desk // bcrypt takes a core and must not take all of them
	// compare is bcrypt's; tests look at what it is given.
	compare func(hash, password []byte) error

	life   *wait.Life
	hashes *wait.Calls[loginKey, outcome]
	right  *lru.Cache[loginKey, proof]
}

// users are those of one state of an htpasswd file.
type users struct {
	hashes map[string]config.Secret
	dummy  []byte // takes as long to compare as the slowest of them
}

// An outcome is what comparing with a hash gave.
type outcome struct {
	ok bool
	of *users // that it was compared with
}

// A proof is why a login is believed.
type proof struct {
	of    *users // the file's state that it holds for, nil without a file
	until time.Time
}

func newLogins(cfg *config.Config, log *slog.Logger) (*logins, error) {
	right, err := lru.New[loginKey, proof](maxLogins)
	if err != nil {
		return nil, err
	}
	l := &logins{
		user: cfg.Auth.Username, hash: hashLogin(cfg.Auth.Username, cfg.Auth.Password.Reveal()),
		desk:    newDesk(max(1, runtime.GOMAXPROCS(0)/2)),
		compare: bcrypt.CompareHashAndPassword,
		life:    wait.NewLife(), right: right,
	}
	l.hashes = wait.NewCalls[loginKey, outcome](l.life, hashTime)
	_, _ = rand.Read(l.secret[:]) // never fails (crypto/rand)
	if file := cfg.Auth.HtpasswdFile; file != "" {
		l.users, err = reload.Open("auth.htpasswd_file", []string{file}, func() (*users, error) { return readUsers(file) }, log)
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
// name has no colon (RFC 7617 section 2), so no two logins are the same string.
func hashLogin(user, password string) [sha256.Size]byte {
	return sha256.Sum256([]byte(user + ":" + password))
}

// anywhere is the network of a login whose hash need not be computed again,
// whatever network it comes from.
const anywhere = "anywhere"

// key returns what a login is remembered by.
func (l *logins) key(from, user, password string) (k loginKey) {
	login := hashLogin(user, password)
	mac := hmac.New(sha256.New, l.secret[:])
	mac.Write(login[:])
	mac.Write([]byte(from)) // login has one length, so the two cannot run into each other
	mac.Sum(k[:0])
	return k
}

// known reports whether a login from that network was right of late. It is then
// believed for as long again.
func (l *logins) known(from netip.Prefix, user, password string) bool {
	return l.recall(l.key(from.String(), user, password), l.listed())
}

// listed returns the users of the file as they are now, nil without a file.
func (l *logins) listed() *users {
	if l.users == nil {
		return nil
	}
	return l.users.Get()
}

// check reports whether a login is right. An error means that nobody knows: ctx
// ended, the hash took too long, or too many wait for theirs (errCrowded).
func (l *logins) check(ctx context.Context, from netip.Prefix, user, password string) (bool, error) {
	got := outcome{ok: l.configured(user, password), of: l.listed()}
	if !got.ok && got.of != nil {
		var err error
		if got, err = l.compared(ctx, got.of, from, user, password); err != nil {
			return false, err
		}
	}
	if got.ok {
		l.remember(l.key(from.String(), user, password), got.of)
	}
	return got.ok, nil
}

// exists reports whether there is such a user. An unknown name is not logged: it
// may be a password in the wrong field.
func (l *logins) exists(user string) bool {
	if user == "" || user == l.user {
		return user != ""
	}
	now := l.listed()
	if now == nil {
		return false
	}
	_, ok := now.hashes[user]
	return ok
}

// configured compares with the config's login.
func (l *logins) configured(user, password string) bool {
	given := hashLogin(user, password)
	return subtle.ConstantTimeCompare(given[:], l.hash[:]) == 1 && l.user != ""
}

// compared compares with the htpasswd file. All who send the same login at a
// time share one computation.
func (l *logins) compared(ctx context.Context, now *users, from netip.Prefix, user, password string) (outcome, error) {
	k := l.key(anywhere, user, password)
	if l.recall(k, now) {
		return outcome{true, now}, nil
	}
	got, _, err := l.hashes.Do(ctx, k, func(ctx context.Context) (outcome, error) {
		ok, err := l.compute(ctx, now, from, user, password)
		if ok {
			l.remember(k, now)
		}
		return outcome{ok, now}, err
	})
	return got, err
}

// compute compares with a hash in its turn. An unknown user costs as much as a
// known one.
func (l *logins) compute(ctx context.Context, now *users, from netip.Prefix, user, password string) (right bool, err error) {
	end, err := l.desk.take(ctx, from, user)
	if err != nil {
		return false, err
	}
	defer func() { end(right) }()
	hash, exists := now.hashes[user]
	against := []byte(hash.Reveal())
	if !exists {
		against = now.dummy
	}
	return l.compare(against, []byte(password)) == nil && exists, nil
}

// recall reports whether a login is believed for the file as it is now, and
// believes it for as long again.
func (l *logins) recall(k loginKey, now *users) bool {
	p, ok := l.right.Get(k)
	if !ok || p.of != now || time.Until(p.until) <= 0 {
		return false
	}
	l.remember(k, now)
	return true
}

// remember notes that a login is right for a state of the file. If there is no
// room, the login that was not used for longest is forgotten: it costs one hash.
func (l *logins) remember(k loginKey, of *users) {
	l.right.Add(k, proof{of, time.Now().Add(loginAge)})
}
