package oci

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
)

// maxSignatures bounds the signatures of one manifest.
const maxSignatures = 16

// Matches reports whether d is the digest of a manifest. That of a signed one (Docker's
// image manifest, schema 1) is the digest of what was signed: the manifest without its
// signatures, which anybody may add to.
func Matches(d digest.Digest, manifest []byte) bool {
	if d.Algorithm().FromBytes(manifest) == d {
		return true
	}
	signed, ok := payload(manifest)
	return ok && d.Algorithm().FromBytes(signed) == d
}

// DigestOf returns the digest that a registry knows a manifest by: sha256, of what was
// signed if the manifest is a signed one.
func DigestOf(manifest []byte) digest.Digest {
	if signed, ok := payload(manifest); ok {
		return digest.FromBytes(signed)
	}
	return digest.FromBytes(manifest)
}

// payload returns what the signatures of a schema 1 manifest sign ("Image Manifest
// Version 2, Schema 1", "Signed Manifests"). It is not ok for any other document.
//
// The bytes that are not signed must hold the signatures and nothing else: a reader
// that does not take the payload apart may see no other fields in the whole than in
// the part that the digest names.
func payload(manifest []byte) ([]byte, bool) {
	whole, ok := object(manifest)
	if !ok || string(whole["schemaVersion"]) != "1" {
		return nil, false
	}
	signatures := whole.list("signatures")
	if len(signatures) == 0 || len(signatures) > maxSignatures {
		return nil, false
	}
	var signed []byte
	for _, raw := range signatures {
		one, ok := signedBy(raw, manifest)
		if !ok || signed != nil && !bytes.Equal(one, signed) {
			return nil, false
		}
		signed = one
	}
	part, ok := object(signed)
	delete(whole, "signatures")
	if !ok || len(part) != len(whole) {
		return nil, false
	}
	for name, value := range part {
		if !bytes.Equal(value, whole[name]) {
			return nil, false
		}
	}
	return signed, true
}

// signedBy returns what one signature signs: the beginning of the manifest and a tail,
// as its protected header says.
func signedBy(signature json.RawMessage, manifest []byte) ([]byte, bool) {
	s, ok := object(signature)
	if !ok {
		return nil, false
	}
	header, err := unpadded(s.text("protected"))
	if err != nil {
		return nil, false
	}
	h, ok := object(header)
	if !ok {
		return nil, false
	}
	var length int
	if json.Unmarshal(h["formatLength"], &length) != nil || length <= 0 || length > len(manifest) {
		return nil, false
	}
	tail, err := unpadded(h.text("formatTail"))
	return append(bytes.Clone(manifest[:length]), tail...), err == nil
}

// unpadded decodes base64url, with or without padding (RFC 7515 section 2).
func unpadded(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
}
