package config

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] < '1' {
		return 0, errors.New("is not a port; use a number from 1 to 65535")
	}
	return int(n), nil
}

func parseParallel(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 64 {
		return 0, errors.New("is not a number from 1 to 64")
	}
	return n, nil
}

func parseCopies(s string) (int, error) {
	if s != "1" && s != "2" {
		return 0, errors.New("is neither 1 nor 2")
	}
	return int(s[0] - '0'), nil
}

func parsePercent(s string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(s, "%"))
	if err != nil || n < 0 || n > 100 {
		return 0, errors.New("is not a percentage from 0 to 100")
	}
	return n, nil
}

func parseRequests(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 4096 {
		return 0, errors.New("is not a number from 1 to 4096")
	}
	return n, nil
}

var sizeText = regexp.MustCompile(`^([0-9]+)(?:([kmgt])i?b?)?$`)

// parseSize returns bytes: 10g, 10G, 10GB, 10Gi and 10GiB are all 10·1024³.
func parseSize(s string) (int64, error) {
	m := sizeText.FindStringSubmatch(strings.ToLower(s))
	if m == nil {
		return 0, errors.New("is not a size; use for example 10g, 500m, or 0 for no limit" + meantSize(s))
	}
	shift := map[string]int{"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[m[2]]
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, errors.New("is too large; use 0 for no limit")
	}
	return n << shift, nil
}

// meantSize returns a hint at the size in a text that is not one.
func meantSize(s string) string {
	plain := strings.NewReplacer(" ", "", "_", "", "+", "").Replace(s)
	if plain != s && sizeText.MatchString(strings.ToLower(plain)) {
		return " (did you mean " + plain + "?)"
	}
	if number, unit, ok := strings.Cut(s, "."); ok && number != "" && strings.Trim(unit, "0123456789kmgtibKMGTIB ") == "" {
		return " (write whole numbers: 1536m for 1.5g)"
	}
	return ""
}

// daysAndWeeks matches the units that time.ParseDuration does not know.
var daysAndWeeks = regexp.MustCompile(`([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([dw])`)

// parseDuration takes what time.ParseDuration takes, and days of 24 hours (30d) and
// weeks (2w).
func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(inHours(s))
	if err != nil {
		hint := ""
		if plain := strings.ToLower(strings.ReplaceAll(s, " ", "")); plain != s {
			if _, err := parseDuration(plain); err == nil {
				hint = " (did you mean " + plain + "?)"
			}
		}
		return 0, errors.New("is not a duration; use for example 60s, 12h or 0s" + hint)
	}
	if d < 0 {
		return 0, errors.New("is negative; use for example 60s, 12h or 0s")
	}
	return d, nil
}

// inHours returns the text of a duration with its days and weeks as hours.
func inHours(s string) string {
	return daysAndWeeks.ReplaceAllStringFunc(s, func(part string) string {
		n, err := strconv.ParseFloat(part[:len(part)-1], 64)
		if err != nil {
			return part // too many digits: not a duration
		}
		hours := map[byte]float64{'d': 24, 'w': 7 * 24}[part[len(part)-1]]
		return strconv.FormatFloat(n*hours, 'f', -1, 64) + "h"
	})
}
