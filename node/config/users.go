package config

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// maxCost bounds a password's hash: 2^14 rounds take a core a second or so.
const maxCost = 14

// ReadUsers reads a file as htpasswd -B writes it: a user and the bcrypt hash of
// a password on each line, with a colon between them. Errors name the line and
// nothing of what stands there.
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
			err = errors.New("has a user whom a line before has")
		}
		if err != nil {
			return nil, fmt.Errorf("%q, line %d: %w", file, number, err)
		}
		users[user] = hash
	}
	if len(users) == 0 {
		return nil, fmt.Errorf("%q names no user", file)
	}
	return users, nil
}

// parseUserLine takes a line of such a file apart.
func parseUserLine(line string) (user string, hash Secret, err error) {
	user, text, ok := strings.Cut(line, ":")
	if !ok || user == "" {
		return "", "", errors.New("is not user:hash")
	}
	if _, err := parseText(user); err != nil {
		return "", "", err
	}
	cost, err := bcrypt.Cost([]byte(text))
	// Cost looks no further than the salt's beginning.
	if err != nil || len(text) != len("$2y$10$")+22+31 {
		return "", "", errors.New("has no bcrypt hash; make one with htpasswd -B")
	}
	if cost > maxCost {
		return "", "", fmt.Errorf("has a hash of cost %d, which takes too long; %d at most", cost, maxCost)
	}
	return user, Secret(text), nil
}
