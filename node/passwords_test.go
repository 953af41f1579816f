package node

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// rotations are ways in which a password_file gets new content.
var rotations = map[string]func(t *testing.T, file, text string){
	"a rename": func(t *testing.T, file, text string) { testkit.Replace(t, file, text) },
	"in place, after it was empty": func(t *testing.T, file, text string) {
		write(t, file, "")
		write(t, file, text)
	},
	"a newline at the end": func(t *testing.T, file, text string) { testkit.Replace(t, file, text+"\n") },
	"a link that flips, as Kubernetes does it": func(t *testing.T, file, text string) {
		dir := filepath.Dir(file)
		data, err := os.MkdirTemp(dir, "..")
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(data, "password"), text)
		for _, link := range [][2]string{{filepath.Base(data), "..data"}, {"..data/password", filepath.Base(file)}} {
			next := filepath.Join(dir, "..next")
			if err := os.Symlink(link[0], next); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(next, filepath.Join(dir, link[1])); err != nil {
				t.Fatal(err)
			}
		}
	},
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A password that ends is replaced by the one that its file has by then. No pull fails.
func TestPasswordFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	for name, rotate := range rotations {
		for kind, option := range map[string]upstreamtest.Option{
			"Basic": upstreamtest.Basic("robot", "first"), "tokens": upstreamtest.Bearer(upstreamtest.BearerAuth{User: "robot", Password: "first"}),
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				up := upstreamtest.New(t, option)
				file := filepath.Join(t.TempDir(), "password")
				write(t, file, "first")
				p := newProxy(t, up, settings{registry: fmt.Sprintf("auth: {username: robot, password_file: %q}", file)})
				for i, password := range []string{"first", "second", "third"} {
					if i > 0 {
						rotate(t, file, password)
						up.SetPassword(password)
						up.RevokeTokens()
					}
					img := up.PutImage(repo, fmt.Sprint("v", i), random(uint64(i), 1000))
					for _, path := range []string{"/v2/" + repo + "/manifests/v" + fmt.Sprint(i), blobPath(img.Layers[0]), "/v2/" + repo + "/tags/list"} {
						p.get(path).want(t, http.StatusOK)
					}
				}
				if got := p.get("/_/health"); !strings.Contains(string(got.body), `"healthy"`) {
					t.Errorf("health: %s", got.body)
				}
				if strings.Contains(p.log.String(), "second") {
					t.Error("a password is in the log")
				}
			})
		}
	}
}

// A registry may refuse a login that has ended by 403, as ECR does.
func TestAPasswordThatEndsWith403(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.Basic("AWS", "first"))
	img := up.PutImage(repo, "v1", random(1, 1000))
	file := filepath.Join(t.TempDir(), "password")
	write(t, file, "first")
	p := newProxy(t, up, settings{registry: fmt.Sprintf("auth: {username: AWS, password_file: %q}", file)})
	p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	up.SetPassword("second")
	up.Fault(upstreamtest.Fault{BeforeAuth: true, Wrap: func(w http.ResponseWriter, r *http.Request) bool {
		switch _, password, _ := r.BasicAuth(); password {
		case "second":
			return false
		case "":
			w.Header().Set("WWW-Authenticate", `Basic realm="ecr"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`)
		return true
	}})
	p.get("/v2/"+repo+"/manifests/v1").wantError(t, http.StatusForbidden, "DENIED") // nobody has a new one yet
	testkit.Replace(t, file, "second\n")
	p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	p.get("/v2/"+repo+"/manifests/"+img.Manifest.String()).want(t, http.StatusOK)
	p.get(blobPath(img.Layers[0])).want(t, http.StatusOK)
}

// While a password_file can't be read its last good content is used, and the node says so.
func TestPasswordFilesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(t *testing.T, file string)
		says  string
	}{
		"empty": {func(t *testing.T, file string) { write(t, file, "") }, "is empty"},
		"gone": {func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
		"a directory": {func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(file, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		"a link to nowhere": {func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("nowhere", file); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t, upstreamtest.Basic("robot", "first"))
			up.PutImage(repo, "v1", random(1, 1000))
			dir := t.TempDir()
			file := filepath.Join(dir, "password")
			write(t, file, "first")
			p := newProxy(t, up, settings{registry: fmt.Sprintf("auth: {username: robot, password_file: %q}", file)})
			c.spoil(t, file)
			p.node.passwords.Load().byKey["registries."+up.Host()+".auth"].loginSource.(passwordFile).file.Expire()
			reason := ""
			for range 3 {
				p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
				reason = string(p.get("/_/health").body)
			}
			if !strings.Contains(reason, "registries."+up.Host()+".auth.password_file: ") || !strings.Contains(reason, c.says) {
				t.Errorf("health: %s", reason)
			}
			up.SetPassword("second")
			p.get("/v2/"+repo+"/manifests/v1").wantError(t, http.StatusForbidden, "DENIED")
			if err := os.RemoveAll(file); err != nil {
				t.Fatal(err)
			}
			write(t, file, "second")
			p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
			if got := string(p.get("/_/health").body); strings.Contains(got, "password_file") {
				t.Errorf("health: %s", got)
			}
		})
	}
}
