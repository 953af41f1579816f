package config

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// maxCost bounds the cost of a hash: 2^14 rounds take a core about a second.
const maxCost = 14

// ReadUsers reads a file in the form that htpasswd -B writes: on each line a user,
// a colon and the bcrypt hash of the password. Errors name the line and quote
// nothing of it.
func ReadUsers(file string) (map[string]Secret, error) {
	text, err := readSmall(file)
	if err != nil {
		return nil, err
	}
	users := map[string]Secret{}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		user, hash, err := parseUserLine(line)
		if _, twice := users[user]; err == nil && twice {
			err = errors.New("this user is on an earlier line too; keep one of them")
		}
		if err != nil {
			return nil, fmt.Errorf("%q, line %d: %w", file, number, err)
		}
		users[user] = hash
	}
	if len(users) == 0 {
		return nil, fmt.Errorf("%q holds no user; add one with htpasswd -B", file)
	}
	return users, nil
}

// parseUserLine splits one line of such a file.
func parseUserLine(line string) (user string, hash Secret, err error) {
	user, text, ok := strings.Cut(line, ":")
	if !ok || user == "" {
		return "", "", errors.New("not in the form user:hash")
	}
	if _, err := parseText(user); err != nil {
		return "", "", err
	}
	cost, err := bcrypt.Cost([]byte(text))
	// Cost checks nothing after the start of the salt.
	if err != nil || len(text) != len("$2y$10$")+22+31 {
		return "", "", errors.New("not a bcrypt hash; make one with htpasswd -B")
	}
	if cost > maxCost {
		return "", "", fmt.Errorf("the hash has cost %d, which is too slow; use at most %d", cost, maxCost)
	}
	return user, Secret(text), nil
}
