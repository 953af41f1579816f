package logins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Exec returns a Getter that runs a command, given as its program and arguments. No shell is
// between them. The command prints a JSON object with username, password, and expires_in in
// seconds; without the latter it is run again every 5 minutes of use.
func Exec(argv []string) Getter {
	return func(ctx context.Context) (Login, error) {
		out, err := run(ctx, argv, "")
		if err != nil {
			return Login{}, err
		}
		login, err := parse(out)
		if err != nil {
			return Login{}, fmt.Errorf("what the command %q prints cannot be used: %w", argv[0], err)
		}
		return login, nil
	}
}

// parse reads what a command printed.
func parse(out []byte) (login Login, err error) {
	var said struct {
		Username, Password string
		ExpiresIn          any `json:"expires_in"`
	}
	if json.Unmarshal(out, &said) != nil {
		return login, errors.New("it is no JSON object with username and password") // without the cause, which may quote it
	}
	login.Again = untoldAgain
	if seconds := number(said.ExpiresIn); seconds > 0 {
		life := time.Duration(min(seconds, mostLife.Seconds()) * float64(time.Second))
		login.Life = max(life, leastLife)
		login.Again = after(login.Life)
	}
	login.Credentials, err = credentials(said.Username, said.Password)
	return login, err
}

// number reads a number, or a string of one; 0 if it is neither.
func number(v any) float64 {
	switch v := v.(type) {
	case float64:
		return v
	case string:
		n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		if err == nil {
			return n
		}
	}
	return 0
}
