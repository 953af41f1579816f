package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxSmall bounds the files that the config names (passwords, certificates), in
// bytes.
const maxSmall = 1 << 20

// readSmall reads a regular file. It refuses pipes and devices, which might never
// end.
func readSmall(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err != nil {
		return nil, unreadable(name, err)
	}
	if len(text) > maxSmall {
		return nil, fmt.Errorf("%q is larger than %d bytes", name, maxSmall)
	}
	return text, nil
}

// unreadable explains why name cannot be read, without repeating the name.
func unreadable(name string, err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return fmt.Errorf("%q cannot be read: %w", name, err)
}

// ReadPassword reads a password_file. It cuts the one newline that echo or an editor
// leaves at the end. Errors name the file and quote nothing of it.
func ReadPassword(file string) (Secret, error) {
	s, err := readSecret(file)
	return Secret(s), err
}

// readSecret reads a file that holds a secret. It cuts the one newline that echo
// or an editor leaves at the end.
func readSecret(name string) (string, error) {
	text, err := readSmall(name)
	if err != nil {
		return "", err
	}
	s, cut := strings.CutSuffix(string(text), "\n")
	if cut {
		s = strings.TrimSuffix(s, "\r")
	}
	if s == "" {
		return "", fmt.Errorf("%q is empty", name)
	}
	return s, nil
}

// ReadCertificate reads a certificate and its key.
func ReadCertificate(t TLS) (*tls.Certificate, error) {
	cert, err := readSmall(t.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := readSmall(t.KeyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%q and %q are not a certificate and its key: %w", t.CertFile, t.KeyFile, err)
	}
	return &pair, nil
}
