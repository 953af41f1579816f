package config

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// hashed returns the hash of a password, at the lowest cost.
func hashed(t *testing.T) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func TestUsersOfAnHtpasswdFile(t *testing.T) {
	t.Parallel()
	h := hashed(t)
	y := strings.Replace(h, "$2a$", "$2y$", 1) // as Apache's htpasswd writes it
	users, err := ReadUsers(write(t, "# the team\n\nann:"+h+"\r\n bob:"+y+"\n"))
	if err != nil || !slices.Equal(slices.Sorted(maps.Keys(users)), []string{"ann", "bob"}) || users["bob"].Reveal() != y {
		t.Errorf("%v, %v", users, err)
	}
	for text, want := range map[string]string{
		"ann:" + h + "\nann:" + h:               "line 2: this user is on an earlier line too; keep one of them",
		":" + h:                                 "line 1: not in the form user:hash",
		"ann":                                   "line 1: not in the form user:hash",
		"a\x01:" + h:                            "line 1: contains a control character",
		"ann:" + h[:59]:                         "line 1: not a bcrypt hash",
		"ann:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=": "line 1: not a bcrypt hash",
		"ann:" + strings.Replace(h, "$04$", "$31$", 1): "line 1: the hash has cost 31, which is too slow; use at most 14",
		"#": "holds no user; add one with htpasswd -B",
	} {
		_, err := ReadUsers(write(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		} else if strings.Contains(err.Error(), h[7:]) {
			t.Errorf("the error shows the hash: %v", err)
		}
	}
}

func TestALoginIsAskedForIfThereIsAnyUser(t *testing.T) {
	t.Parallel()
	file := write(t, "ann:"+hashed(t))
	for text, asked := range map[string]bool{
		"": false, "auth: {username: u, password: p}": true, "auth: {anonymous_from: [10.0.0.0/8], htpasswd_file: " + file + "}": true,
	} {
		if c := must(t, text); c.Auth.Asked() != asked {
			t.Errorf("%q: %v", text, !asked)
		}
	}
}

func TestANodeIsFoundThoughItsFilesAreBad(t *testing.T) {
	t.Parallel()
	bad := write(t, "half")
	file := write(t, "port: 81\nauth: {htpasswd_file: "+bad+"}\ntls: {cert_file: "+bad+", key_file: "+bad+"}")
	if _, err := Load(file, nil); err == nil {
		t.Error("Load accepts bad files")
	}
	if c, err := Find(file, nil); err != nil || c.Port != 81 || !c.TLS.On() || !c.Auth.Asked() {
		t.Errorf("%+v, %v", c, err)
	}
	for _, text := range []string{"prot: 81", "tls: {cert_file: " + bad + "}"} {
		if _, err := Find(write(t, text), nil); err == nil {
			t.Errorf("Find accepts %q", text)
		}
	}
	if _, err := Find(file+".none", nil); err == nil {
		t.Error("Find accepts a file that is not there")
	}
}
