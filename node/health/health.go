// Package health says what can be wrong with a node, each under a code.
//
// A room that finds something wrong returns an error that [Because] gave a code. The codes
// are outward: /_/health tells them to everybody and the rest to operators, and
// oci_proxy_degraded_reason has them as labels.
package health

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Code names one kind of thing that is wrong.
type Code string

// The codes. Rows says what they mean.
const (
	CacheDir          Code = "cache_dir"
	DiskFull          Code = "disk_full"
	TLS               Code = "tls"
	CertificateExpiry Code = "certificate_expiry"
	ACME              Code = "acme"
	Auth              Code = "auth"
	LoginSource       Code = "login_source"
	RegistryLogin     Code = "registry_login"
	Archive           Code = "archive"
	Alone             Code = "alone"
	Seed              Code = "seed"
	Secret            Code = "secret"
	Address           Code = "address"
	PeerPort          Code = "peer_port"
	Identity          Code = "identity"
	Ring              Code = "ring"
	VersionSkew       Code = "version_skew"
	Config            Code = "config"
	Other             Code = "other"
)

// A Row is the documentation of a code, in Markdown.
type Row struct {
	Code        Code
	Meaning, Do string
}

// Rows are all codes.
var Rows = []Row{
	{CacheDir, "A cache directory cannot be used, or its disk fails. What lies there is not cached.", "The reason ends with what to do; look for disk errors."},
	{DiskFull, "The disk is full before `cache_max_size` is reached, so the node keeps less.", "Free space, or lower `cache_max_size`."},
	{TLS, "The renewed files of `tls` cannot be used. The old certificate stays in use.", "Install certificate and key again."},
	{CertificateExpiry, "The certificate of the clients' port has expired, or does so within 7 days (of one that is valid for less than 21 days, within the last third of its time; of one by `tls.acme`, the last sixth), or is not valid yet.", "Renew it; it is read again within seconds. By `tls.acme`: see `acme`. Or set the clock."},
	{ACME, "There is no certificate for a name of `tls.acme` yet, or it could not be renewed. The reason has what the certificate authority said.", "As the reason says; mostly the name does not lead to this port 443. Reload the config to try at once."},
	{Auth, "The changed `auth.htpasswd_file` is bad. The users from before stay.", "Repair the line that the reason names."},
	{LoginSource, "The `password_file`, `auth.exec` or `auth.docker_config` of a registry gives no login. The last one stays in use until it ends.", "Look at what writes the file, or run the command by hand."},
	{RegistryLogin, "A registry, or its token server, refuses a login of the config.", "Correct it, or remove it."},
	{Archive, "The bucket of the archive is out of use for now.", "Look at its server, key and quota."},
	{Alone, "No other member is there, although the config has seeds.", "Check seeds, DNS, the firewall (7946 TCP and UDP) and the secret."},
	{Seed, "A seed was never met: its name does not resolve, nothing listens there, or it does not answer.", "As above, or remove the seed."},
	{Secret, "A seed was never met because it turns this node away: it has another secret or `cluster.id`, or is no oci-proxy.", "Make `cluster.secret` and `cluster.id` the same on all nodes."},
	{Address, "The others do not reach this node at the address that it tells them.", "Set `cluster.advertise`, or open the gossip port."},
	{PeerPort, "Members that live do not answer on the peers' port, or do not reach this node's.", "Open 7947 between all nodes, and check the MTU."},
	{Identity, "Another node has this node's id, or the node could not take a new one.", "The reason says what to do."},
	{Ring, "The new division of keys could not be computed. The old one stays.", "Restart the node, and report it as a bug."},
	{VersionSkew, "Members have run different versions for an hour.", "Finish the upgrade."},
	{Config, "The config was reloaded and had a mistake. The one before stays in force.", "Correct it, `check` it, and reload."},
	{Other, "Anything else.", "Read the reason."},
}

// Codes are all codes, in the order of Rows.
func Codes() (all []Code) {
	for _, row := range Rows {
		all = append(all, row.Code)
	}
	return all
}

// Table is the documentation of all codes, a table in Markdown.
func Table() string {
	var out strings.Builder
	out.WriteString("| code | meaning | what to do |\n|---|---|---|\n")
	for _, row := range Rows {
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", row.Code, row.Meaning, row.Do)
	}
	return out.String()
}

// A reason is an error with a code.
type reason struct {
	code Code
	error
}

// Unwrap is for package errors.
func (r *reason) Unwrap() error { return r.error }

// Because returns err, which says what is wrong, under a code. Nil stays nil.
func Because(code Code, err error) error {
	if err == nil {
		return nil
	}
	return &reason{code, err}
}

// CodeOf returns the code of err, or Other.
func CodeOf(err error) Code {
	if r, ok := errors.AsType[*reason](err); ok {
		return r.code
	}
	return Other
}

// CodesOf returns the codes of what is wrong, each once.
func CodesOf(wrong []error) (codes []Code) {
	for _, err := range wrong {
		if c := CodeOf(err); !slices.Contains(codes, c) {
			codes = append(codes, c)
		}
	}
	return codes
}

// Text returns err as operators read it: its code, a colon, and what it says.
func Text(err error) string {
	code := string(CodeOf(err))
	return code + ": " + strings.TrimPrefix(err.Error(), code+": ")
}
