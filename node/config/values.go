package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A kind is a type of value: its name, and how to parse it. An error of parse
// continues the sentence that the value begins ("is not a size; …").
type kind[V any] struct {
	name   string
	hidden bool // the value is not shown in errors
	parse  func(text string) (V, error)
	doubt  func(text string) string // continues the sentence likewise if a valid value is most likely not meant, else ""; nil: never
}

var (
	textKind     = kind[string]{"text", false, parseAnnounced, nil}
	userKind     = kind[string]{"text", false, parseUser, nil}
	pathKind     = kind[string]{"path", false, parsePath, doubtPath}
	secretKind   = kind[Secret]{"secret", true, func(s string) (Secret, error) { return Secret(s), nil }, nil}
	argumentKind = kind[string]{"text", true, parseArgument, nil}
	flagKind     = kind[bool]{"true/false", false, parseFlag, nil}
	portKind     = kind[int]{"port", false, parsePort, nil}
	parallelKind = kind[int]{"number", false, parseParallel, nil}
	percentKind  = kind[int]{"percentage", false, parsePercent, nil}
	copiesKind   = kind[int]{"number", false, parseCopies, nil}
	requestsKind = kind[int]{"number", false, parseRequests, nil}
	sizeKind     = kind[int64]{"size", false, parseSize, doubtSize}
	rateKind     = kind[int64]{"size", false, parseSize, doubtRate}
	idleKind     = kind[time.Duration]{"duration", false, parseDuration, doubtIdle}
	durationKind = kind[time.Duration]{"duration", false, parseDuration, nil}
	levelKind    = kind[slog.Level]{"level", false, parseLevel, nil}
	formatKind   = kind[string]{"text/json", false, parseFormat, nil}
	cidrKind     = kind[netip.Prefix]{"CIDR", false, parseCIDR, doubtCIDR}
	baseKind     = kind[string]{"URL", false, parseBase, doubtBase}
	proxyKind    = kind[*url.URL]{"URL", true, parseProxy, nil}
	addressKind  = kind[string]{"host", false, parseAddress, nil}
	oneHostKind  = kind[string]{"host", false, parseOneHost, nil}
	hostKind     = kind[string]{"host[:port]", false, parseHost, nil}
	registryKind = kind[string]{"host[:port]", false, parseRegistry, doubtRegistry}
	mirrorKind   = kind[string]{"host[:port]", false, parseMirror, nil}
	bindKind     = kind[string]{"host:port", false, parseBind, nil}
	seedKind     = kind[string]{"host:port", false, parseSeed, nil}
	prefixKind   = kind[string]{"URL path", false, parsePrefix, nil}
	partKind     = kind[string]{"path part", false, parsePart, nil}
	imageKind    = kind[string]{"image", false, parseImage, nil}
	platformKind = kind[string]{"os/arch", false, parsePlatform, nil}
	scheduleKind = kind[time.Duration]{"duration", false, parseSchedule, nil}
	patternKind  = kind[string]{"pattern", false, parsePattern, nil}
	ruleUserKind = kind[string]{"text", false, parseRuleUser, nil}
	reposKind    = kind[string]{"pattern", false, parseRepositories, doubtRepositories}
	clusterKind  = kind[string]{"text", false, parseClusterID, nil}
)

func parseText(s string) (string, error) {
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", errors.New("contains a control character")
	}
	return s, nil
}

// maxAnnounced is the length in bytes of the longest text that other members accept
// (node/membership/meta.go).
const maxAnnounced = 64

// parseAnnounced parses a text that members send each other and show to people.
func parseAnnounced(s string) (string, error) {
	if len(s) > maxAnnounced {
		return "", fmt.Errorf("is %d bytes long; the limit is %d", len(s), maxAnnounced)
	}
	if _, err := parseText(s); err != nil {
		return "", err
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", errors.New("contains an unprintable character")
	}
	return s, nil
}

var clusterID = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$`)

// parseClusterID parses the id of a cluster. Letters differ by their case: the id is
// compared byte by byte, and keys are made from it.
func parseClusterID(s string) (string, error) {
	if !clusterID.MatchString(s) {
		return "", errors.New("is not an id; use 1 to 64 letters, digits, dots, hyphens and underscores, with a letter or digit at both ends")
	}
	return s, nil
}

// parseUser refuses a colon: it would end the user name (RFC 7617 section 2).
func parseUser(s string) (string, error) {
	if strings.Contains(s, ":") {
		return "", errors.New("contains a colon, which a user name cannot have")
	}
	return parseText(s)
}

// parseArgument parses an argument of a command. No argument has a NUL (execve(2)).
func parseArgument(s string) (string, error) {
	if strings.ContainsRune(s, 0) {
		return "", errors.New("contains a NUL character, which no argument can have")
	}
	return s, nil
}

func parsePath(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	s, err := parseText(s)
	return filepath.Clean(s), err
}

func parseFlag(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "yes", "on":
		return true, nil
	case "false", "no", "off":
		return false, nil
	default:
		return false, errors.New("is not true or false")
	}
}

func parseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("is not a log level; use debug, info, warn or error%s", meant(s, "debug", "info", "warn", "error"))
	}
}

func parseFormat(s string) (string, error) {
	if s = strings.ToLower(s); s != "text" && s != "json" {
		return "", fmt.Errorf("is not a log format; use text or json%s", meant(s, "text", "json"))
	}
	return s, nil
}

func meant(s string, choices ...string) string {
	if near := closest(s, choices); near != "" {
		return " (did you mean " + near + "?)"
	}
	return ""
}

func parseCIDR(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		if p.Addr().Is4In6() && p.Bits() >= 96 { // it would match no address
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Masked(), nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.Prefix{}, fmt.Errorf("is a single address; write %s/%d for it alone", s, a.BitLen())
	}
	return netip.Prefix{}, errors.New("is not a CIDR; use for example 10.0.0.0/8")
}

func parseBase(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https":
		if _, _, ok := strings.Cut(s, "://"); !ok && !strings.Contains(s, "@") && validHostPort(strings.TrimRight(s, "/")) {
			return "", fmt.Errorf("is not an http:// or https:// URL (did you mean https://%s?)", s)
		}
		return "", errors.New("is not an http:// or https:// URL")
	case !validAuthority(u):
		return "", errors.New("has no valid host")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("must end after its host or path; remove the login, query or fragment")
	}
	return strings.TrimRight(s, "/"), nil
}

func parseProxy(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	const schemes = "a proxy URL starts with http://, https://, socks5:// or socks5h://"
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL; " + schemes) // err would show the password
	case !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme):
		if scheme, _, ok := strings.Cut(s, "://"); ok { // otherwise it may be user:password
			return nil, fmt.Errorf("starts with %q; %s", scheme+"://", schemes)
		}
		return nil, errors.New("has no scheme; " + schemes)
	case !validAuthority(u):
		return nil, errors.New("has no valid host; use for example socks5h://proxy.example.com:1080")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("must end after its host and port; remove the path, query or fragment")
	}
	return u, nil
}

func validAuthority(u *url.URL) bool {
	return u.Opaque == "" && validHostPort(u.Host)
}

func parseAddress(s string) (string, error) {
	if s == "" || validIP(s) || validName(s) {
		return s, nil
	}
	return "", errors.New("is not an IP address or host name; write it without a port")
}

// parseOneHost parses an address that other nodes can reach.
func parseOneHost(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Unmap().IsUnspecified() {
		return "", errors.New("means every address; use the one that other nodes reach this node at")
	}
	return parseAddress(s)
}

func parseHost(s string) (string, error) {
	switch {
	case validIP(s) && strings.Contains(s, ":"):
		return "", fmt.Errorf("is an IPv6 address; write it in brackets, as [%s] or [%s]:5000", s, s)
	case !validHostPort(s):
		if why := badPort(s); why != "" {
			return "", errors.New(why)
		}
		return "", errors.New("is not a host; use host or host:port, without https:// or a path" + didYouMean(s))
	}
	return strings.ToLower(s), nil
}

func parseRegistry(s string) (string, error) {
	host, err := parseHost(s)
	return Canonical(host), err
}

// parseMirror is parseRegistry for a place, which is the same with the port of https.
func parseMirror(s string) (string, error) {
	host, err := parseRegistry(s)
	return strings.TrimSuffix(host, ":443"), err
}

// parseBind accepts an empty host, for all interfaces, and port 0, for a free one.
func parseBind(s string) (string, error) {
	host, port, ok := cutPort(s)
	if !ok || host != "" && !validBracketed(host) || port != "0" && !validPort(port) {
		if why := badPort(s); why != "" && port != "0" {
			return "", errors.New(why)
		}
		return "", errors.New("is not an address; use for example 0.0.0.0:7946")
	}
	return s, nil
}

func parseSeed(s string) (string, error) {
	host, port, ok := cutPort(s)
	if !ok || !validBracketed(host) || !validPort(port) {
		if why := badPort(s); why != "" {
			return "", errors.New(why)
		}
		if validBracketed(s) {
			return "", fmt.Errorf("is not a member's address: it has no port; write %s:7946, or the port of its cluster.bind_addr", s)
		}
		return "", errors.New("is not a member's address; use for example node-1:7946")
	}
	return s, nil
}
