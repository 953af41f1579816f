package oci_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

const payload = "{\n   \"schemaVersion\": 1,\n   \"name\": \"org/app\",\n   \"fsLayers\": [\n      {\n         \"blobSum\": \"sha256:aa\"\n      }\n   ]\n}"

// signature is one of payload's first length bytes and tail.
func signature(length int, tail string) string {
	enc := base64.RawURLEncoding.EncodeToString
	header := fmt.Sprintf(`{"formatLength":%d,"formatTail":%q,"time":"2026-01-01T00:00:00Z"}`, length, enc([]byte(tail)))
	return fmt.Sprintf(`{"header":{"jwk":{},"alg":"ES256"},"signature":"c2ln","protected":%q}`, enc([]byte(header)))
}

// sign is payload with what follows its last value, and signatures.
func sign(more string, signatures ...string) []byte {
	return []byte(payload[:len(payload)-2] + more + ",\n   \"signatures\": [\n" + strings.Join(signatures, ",") + "\n   ]\n}")
}

func TestSignedManifests(t *testing.T) {
	t.Parallel()
	d, good := digest.FromString(payload), signature(len(payload)-2, "\n}")
	padded := strings.Replace(good, base64.RawURLEncoding.EncodeToString([]byte("\n}")), base64.URLEncoding.EncodeToString([]byte("\n}")), 1)
	for name, manifest := range map[string][]byte{
		"one signature":  sign("", good),
		"two signatures": sign("", good, strings.Replace(good, "c2ln", "b3RoZXI", 1)),
		"padding":        sign("", padded),
	} {
		if !oci.Matches(d, manifest) || oci.DigestOf(manifest) != d || !oci.Matches(digest.SHA512.FromString(payload), manifest) {
			t.Errorf("%s: the digest is %s", name, oci.DigestOf(manifest))
		}
		if !oci.Matches(digest.FromBytes(manifest), manifest) {
			t.Errorf("%s: its bytes' own digest does not match", name)
		}
		if oci.Matches(digest.FromString("other"), manifest) {
			t.Errorf("%s: matches another digest", name)
		}
	}
	many := make([]string, 17)
	for i := range many {
		many[i] = good
	}
	for name, manifest := range map[string][]byte{
		"no signature":                       sign(""),
		"too many":                           sign("", many...),
		"signatures of different things":     sign("", good, signature(len(payload)-3, "\n}")),
		"one that is none":                   sign("", good, `{}`),
		"a length beyond the end":            sign("", signature(1<<20, "\n}")),
		"a negative length":                  sign("", signature(-1, payload)),
		"no length":                          sign("", signature(0, payload)),
		"another field after what is signed": sign(`, "architecture": "evil"`, good),
		"a field twice":                      sign(`, "fsLayers": []`, good),
		"a field in another spelling":        sign(`, "FSLayers": []`, good),
		"another payload in the tail":        sign("", signature(1, `"schemaVersion": 1, "fsLayers": []}`)),
		"no JSON":                            append(sign("", good), 'x'),
		"schema 2":                           []byte(strings.Replace(string(sign("", good)), `Version": 1`, `Version": 2`, 1)),
		"a schema of text":                   []byte(strings.Replace(string(sign("", good)), `Version": 1`, `Version":"1`, 1)),
		"nothing":                            {},
		"unsigned":                           []byte(payload + "\n"),
	} {
		if oci.Matches(d, manifest) || oci.DigestOf(manifest) != digest.FromBytes(manifest) {
			t.Errorf("%s: is taken for the payload", name)
		}
	}
}

func FuzzSigned(f *testing.F) {
	f.Add(sign("", signature(len(payload)-2, "\n}")))
	f.Add(sign(`,"x":1`, signature(len(payload)-2, "\n}")))
	f.Fuzz(func(t *testing.T, manifest []byte) {
		if d := oci.DigestOf(manifest); !oci.Matches(d, manifest) {
			t.Errorf("%q does not match its own digest %s", manifest, d)
		}
	})
}
