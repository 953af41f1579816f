package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// serveNames is a DNS server on addr, over UDP, until ctx ends. Each question reads the
// file anew: a line is a name, or * for all others, and what is said of it: addresses,
// "silent" for no answer, "fails" for SERVFAIL. A name without a line does not exist.
func serveNames(ctx context.Context, addr, file string) error {
	conn, err := new(net.ListenConfig).ListenPacket(ctx, "udp", addr)
	if err != nil {
		return fmt.Errorf("listening for questions: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	for packet := make([]byte, 1<<12); ; {
		n, from, err := conn.ReadFrom(packet)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a question: %w", err)
		}
		zone, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading the names: %w", err)
		}
		if reply := answerTo(packet[:n], string(zone)); reply != nil {
			_, _ = conn.WriteTo(reply, from) // who asks will ask again
		}
	}
}

// answerTo returns the answer to a question, nil for none.
func answerTo(question []byte, zone string) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	said, known := saidOf(zone, strings.TrimSuffix(strings.ToLower(q.Name.String()), "."))
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	switch {
	case !known:
		m.RCode = dnsmessage.RCodeNameError
	case said[0] == "silent":
		return nil
	case said[0] == "fails":
		m.RCode = dnsmessage.RCodeServerFailure
	}
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}
	for _, s := range said {
		switch ip, err := netip.ParseAddr(s); {
		case err != nil:
		case q.Type == dnsmessage.TypeA && ip.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: ip.As4()}})
		case q.Type == dnsmessage.TypeAAAA && ip.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// saidOf returns what the zone says of a name.
func saidOf(zone, name string) (said []string, known bool) {
	for lines := bufio.NewScanner(strings.NewReader(zone)); lines.Scan(); {
		switch f := strings.Fields(lines.Text()); {
		case len(f) < 2:
		case f[0] == name:
			return f[1:], true
		case f[0] == "*":
			said, known = f[1:], true
		}
	}
	return said, known
}
