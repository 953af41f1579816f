package logins

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstream"
)

func TestWhatCommandsPrint(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		out   string
		want  Login
		wrong string
	}{
		"with an end":         {`{"username":"AWS","password":"p","expires_in":43200}`, Login{upstream.Credentials{Username: "AWS", Password: "p"}, 12 * time.Hour, 12 * time.Hour * 4 / 5}, ""},
		"the end as a string": {`{"username":"u","password":"p","expires_in":"100"}`, Login{upstream.Credentials{Username: "u", Password: "p"}, 100 * time.Second, 80 * time.Second}, ""},
		"without an end":      {"\n{\"username\":\"u\",\"password\":\"p\\n\",\"more\":[1]}\n", Login{upstream.Credentials{Username: "u", Password: "p"}, 0, untoldAgain}, ""},
		"no end at all":       {`{"username":"u","password":"p","expires_in":0}`, Login{upstream.Credentials{Username: "u", Password: "p"}, 0, untoldAgain}, ""},
		"an end at once":      {`{"username":"u","password":"p","expires_in":1}`, Login{upstream.Credentials{Username: "u", Password: "p"}, leastLife, leastLife * 4 / 5}, ""},
		"an end never":        {`{"username":"u","password":"p","expires_in":1e300}`, Login{upstream.Credentials{Username: "u", Password: "p"}, mostLife, mostLife * 4 / 5}, ""},
		"an identity token":   {`{"username":"<token>","password":"p"}`, Login{upstream.Credentials{Username: upstream.IdentityUser, Password: "p"}, 0, untoldAgain}, ""},
		"a bare token":        {secret, Login{}, "no JSON object"},
		"nothing":             {"", Login{}, "no JSON object"},
		"two objects":         {`{"username":"u","password":"` + secret + `"}{}`, Login{}, "no JSON object"},
		"a number":            {`{"username":"u","password":5551234}`, Login{}, "no JSON object"},
		"no user":             {`{"password":"` + secret + `"}`, Login{}, "no user name"},
		"no password":         {`{"username":"` + secret + `"}`, Login{}, "no password"},
		"a colon":             {`{"username":"a:b","password":"` + secret + `"}`, Login{}, "cannot have"},
		"a second line":       {`{"username":"u","password":"a\nb` + secret + `"}`, Login{}, "cannot have"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			login, err := parse([]byte(c.out))
			if c.wrong == "" && (err != nil || login != c.want) || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
				t.Errorf("%+v, %v", login, err)
			}
			silent(t, err)
			if err != nil && strings.Contains(err.Error(), "5551234") {
				t.Errorf("a value is told: %v", err)
			}
		})
	}
}

// The command has the node's environment but its own secrets, its arguments as they stand, no
// shell and nothing to read.
func TestHowCommandsRun(t *testing.T) {
	t.Setenv("OCI_PROXY_CLUSTER__SECRET", secret)
	t.Setenv("NOTIFY_SOCKET", "/run/x")
	t.Setenv("AWS_PROFILE", "pullers")
	program := script(t, "login", `printf '{"username":"%s","password":"%s %s"}' "$AWS_PROFILE$OCI_PROXY_CLUSTER__SECRET$NOTIFY_SOCKET" "$1" "$#"; cat`)
	login, err := Exec([]string{program, "$(id) `id` * ;", ""})(t.Context())
	if err != nil || login.Username != "pullers" || login.Password != "$(id) `id` * ; 2" {
		t.Errorf("%+v, %v", login, err)
	}
}

// A command that fails is told by its name and how it ended, never by what it printed.
func TestCommandsThatFail(t *testing.T) {
	t.Parallel()
	says := fmt.Sprintf(`echo %s; echo %s >&2; `, secret, secret)
	notExecutable := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(notExecutable, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ program, wrong string }{
		"by its status":   {script(t, "login", says+"exit 3"), "exit status 3"},
		"by a signal":     {script(t, "login", says+"kill -9 $$"), "signal: killed"},
		"not there":       {"no-such-program-" + t.Name(), "not found"},
		"no path":         {"/no/such/login", "no such file"},
		"not executable":  {notExecutable, "permission denied"},
		"no format":       {script(t, "login", ""), "no JSON object"},
		"without an end":  {script(t, "login", "exec tr '\\0' x </dev/zero"), "more than 65536 bytes"},
		"a bit too much":  {script(t, "login", "head -c 65537 /dev/zero"), "more than 65536 bytes"},
		"just not enough": {script(t, "login", "head -c 65536 /dev/zero"), "no JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Exec([]string{c.program, secret})(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.wrong) || !strings.Contains(err.Error(), filepath.Base(c.program)) {
				t.Errorf("%v", err)
			}
			silent(t, err)
		})
	}
}

// A command that hangs is killed, with what it began.
func TestACommandThatHangs(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	program := script(t, "login", `sleep 1000 & echo $! > "$1"; wait`)
	_, err := runWithin(t.Context(), 300*time.Millisecond, []string{program, file}, "")
	if err == nil || !strings.Contains(err.Error(), "did not end within 10s") {
		t.Errorf("%v", err)
	}
	if pid := pidIn(t, file); pid != 0 {
		testkit.Await(t, "what the command began is gone", func() bool { return syscall.Kill(pid, 0) != nil })
	}
}

// What a command leaves behind does not hold up its login.
func TestACommandThatLeavesAProcess(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t) // pipeTime
	file := filepath.Join(t.TempDir(), "pid")
	program := script(t, "login", `sleep 1000 & echo $! > "$1"; echo '{"username":"u","password":"p"}'`)
	login, err := Exec([]string{program, file})(t.Context())
	if err != nil || login.Password != "p" {
		t.Errorf("%+v, %v", login, err)
	}
	if pid := pidIn(t, file); pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
}

// pidIn returns the pid that a file holds, 0 if the program did not get that far.
func pidIn(t *testing.T, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil && len(text) > 0 {
		t.Fatal(err)
	}
	return pid
}
