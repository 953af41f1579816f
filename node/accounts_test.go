package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// twoAccounts are the kinds of registry that know two users: robot, and second, whose
// password is in a file.
var twoAccounts = map[string]upstreamtest.Option{
	"Basic": upstreamtest.Basic("robot", "first-pw"), "tokens": upstreamtest.Bearer(upstreamtest.BearerAuth{User: "robot", Password: "first-pw"}),
}

// accountsOf is the config of both users, and the file of the second's password.
func accountsOf(t *testing.T, password string) (keys, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "password")
	write(t, file, password)
	return fmt.Sprintf("rate_limit_reserve: 10, auth: {username: robot, password: first-pw}, accounts: [{username: second, password_file: %q}]", file), file
}

// usersOf returns whose requests the registry has let in since the first n, each once.
func usersOf(up *upstreamtest.Registry, n int) (users []string) {
	for _, req := range up.Requests()[n:] {
		if req.User != "" && !slices.Contains(users, req.User) {
			users = append(users, req.User)
		}
	}
	slices.Sort(users)
	return users
}

// upstreamOfNode returns the registry's row in /_/upstreams.
func upstreamOfNode(t *testing.T, p *proxy) upstreamRow {
	t.Helper()
	var rows []upstreamRow
	if err := json.Unmarshal(p.get("/_/upstreams").body, &rows); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(rows, func(row upstreamRow) bool { return row.Registry == p.up.Host() })
	if i < 0 {
		t.Fatalf("%s is not among %+v", p.up.Host(), rows)
	}
	return rows[i]
}

// No client sees the limit of one account while there is another. When both are limited,
// cached tags are served, and what is new is refused for as long as the shorter rest.
func TestPullsGoOnWithTheOtherAccount(t *testing.T) {
	t.Parallel()
	for kind, option := range twoAccounts {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t, option, upstreamtest.Accounts(upstreamtest.Account{User: "second", Password: "second-pw"}))
			for i := range 8 {
				up.PutImage(repo, fmt.Sprint("v", i), random(uint64(i), 1000))
			}
			keys, _ := accountsOf(t, "second-pw")
			p := newProxy(t, up, settings{registry: keys})
			left := func(n string) http.Header {
				return http.Header{"Ratelimit-Limit": {"100;w=3600"}, "Ratelimit-Remaining": {n}}
			}
			up.AnswerUser("robot", 0, left("70"))
			up.AnswerUser("second", 0, left("60"))
			pull := func(n int) answer { return p.get("/v2/" + repo + "/manifests/v" + fmt.Sprint(n)) }
			pull(0).want(t, http.StatusOK)
			pull(1).want(t, http.StatusOK)
			if got := usersOf(up, 0); len(got) != 2 {
				t.Errorf("requests came by %v alone", got)
			}
			if row := upstreamOfNode(t, p); row.RateLimit == nil || *row.RateLimit != 200 || *row.RateRemaining != 130 {
				t.Errorf("/_/upstreams: %+v", row)
			}
			limit := func(user, after string) {
				up.AnswerUser(user, http.StatusTooManyRequests, http.Header{"Retry-After": {after}})
			}
			limit("robot", "600")
			for i := 2; i < 6; i++ {
				pull(i).want(t, http.StatusOK)
			}
			if row := upstreamOfNode(t, p); row.State != "up" {
				t.Errorf("/_/upstreams: %+v", row)
			}
			limit("second", "900")
			pull(5).want(t, http.StatusOK)
			a := pull(6)
			a.wantError(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
			if after := a.Header.Get("Retry-After"); len(after) != 3 || after > "600" {
				t.Errorf("Retry-After: %s", after)
			}
			if row := upstreamOfNode(t, p); row.State != "limited" {
				t.Errorf("/_/upstreams: %+v", row)
			}
		})
	}
}

// What robot may not see, its fellow pulls: private content is served to all who may use the
// proxy, and nothing is forgotten for the refusals of one account.
func TestOneAccountSeesWhatTheOtherDoesNot(t *testing.T) {
	t.Parallel()
	for kind, option := range twoAccounts {
		for _, unseen := range []int{http.StatusNotFound, http.StatusForbidden} {
			t.Run(fmt.Sprint(kind, " ", unseen), func(t *testing.T) {
				t.Parallel()
				up := upstreamtest.New(t, option, upstreamtest.Accounts(upstreamtest.Account{User: "second", Password: "second-pw", Repos: []string{}, Unseen: unseen}))
				img := up.PutImage(repo, "v1", random(1, 1000))
				keys, _ := accountsOf(t, "second-pw")
				p := newProxy(t, up, settings{registry: keys})
				for range 4 {
					for _, path := range []string{"/v2/" + repo + "/manifests/v1", blobPath(img.Layers[0]), blobPath(img.Config), "/v2/" + repo + "/tags/list", "/v2/" + repo + "/referrers/" + img.Manifest.String()} {
						p.get(path).want(t, http.StatusOK)
					}
				}
				if got := p.get("/_/health"); !strings.Contains(string(got.body), `"healthy"`) {
					t.Errorf("health: %s", got.body)
				}
				p.get("/v2/"+repo+"/manifests/v2").wantError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
			})
		}
	}
}

// A wrong login costs no pull, and /_/health names it. A new password is read from its file.
func TestTheSecondAccountIsWrong(t *testing.T) {
	t.Parallel()
	for kind, option := range twoAccounts {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t, option, upstreamtest.Accounts(upstreamtest.Account{User: "second", Password: "second-pw"}))
			keys, file := accountsOf(t, "wrong-pw")
			p := newProxy(t, up, settings{registry: keys})
			for i := range 4 {
				up.PutImage(repo, fmt.Sprint("v", i), random(uint64(i), 1000))
				p.get("/v2/"+repo+"/manifests/v"+fmt.Sprint(i)).want(t, http.StatusOK)
			}
			reason := "registries." + up.Host() + ".accounts[0]: the registry refuses this login"
			if got := string(p.get("/_/health").body); !strings.Contains(got, reason) {
				t.Errorf("health: %s", got)
			}
			if got := usersOf(up, 0); !slices.Equal(got, []string{"robot"}) {
				t.Errorf("requests came by %v", got)
			}
			if n := strings.Count(p.log.String(), "login refused; the other accounts are used instead"); n != 1 || strings.Contains(p.log.String(), "-pw") {
				t.Errorf("the log has it %d times, or a password", n)
			}
			before := len(up.Requests())
			testkit.Replace(t, file, "second-pw")
			p.node.passwords.Load().byKey["registries."+up.Host()+".accounts[0]"].loginSource.(passwordFile).file.Expire()
			for i := range 6 {
				up.PutImage(repo, fmt.Sprint("w", i), random(uint64(i), 2000))
				p.get("/v2/"+repo+"/manifests/w"+fmt.Sprint(i)).want(t, http.StatusOK)
			}
			if got := usersOf(up, before); !slices.Equal(got, []string{"robot", "second"}) {
				t.Errorf("after the change requests came by %v", got)
			}
			if got := string(p.get("/_/health").body); !strings.Contains(got, `"healthy"`) {
				t.Errorf("health: %s", got)
			}
		})
	}
}
