package main

import (
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func TestNamesAreAnswered(t *testing.T) {
	t.Parallel()
	const zone = "a.example 192.0.2.1 2001:db8::1\nquiet.example silent\nbad.example fails\n\n"
	for _, c := range []struct {
		zone, name string
		kind       dnsmessage.Type
		want       string
		code       dnsmessage.RCode
		silent     bool
	}{
		{zone, "a.example.", dnsmessage.TypeA, "192.0.2.1", dnsmessage.RCodeSuccess, false},
		{zone, "A.EXAMPLE.", dnsmessage.TypeAAAA, "2001:db8::1", dnsmessage.RCodeSuccess, false},
		{zone, "b.example.", dnsmessage.TypeA, "", dnsmessage.RCodeNameError, false},
		{zone + "* 198.18.0.1", "b.example.", dnsmessage.TypeA, "198.18.0.1", dnsmessage.RCodeSuccess, false},
		{"* 198.18.0.1\n" + zone, "a.example.", dnsmessage.TypeA, "192.0.2.1", dnsmessage.RCodeSuccess, false},
		{zone, "bad.example.", dnsmessage.TypeA, "", dnsmessage.RCodeServerFailure, false},
		{zone, "quiet.example.", dnsmessage.TypeA, "", 0, true},
	} {
		q := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(c.name), Type: c.kind, Class: dnsmessage.ClassINET}}}
		packet, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		reply := answerTo(packet, c.zone)
		var m dnsmessage.Message
		if c.silent != (reply == nil) || reply != nil && m.Unpack(reply) != nil {
			t.Errorf("%s: %q", c.name, reply)
			continue
		}
		got := ""
		for _, a := range m.Answers {
			switch body := a.Body.(type) {
			case *dnsmessage.AResource:
				got += netip.AddrFrom4(body.A).String()
			case *dnsmessage.AAAAResource:
				got += netip.AddrFrom16(body.AAAA).String()
			}
		}
		if got != c.want || m.RCode != c.code {
			t.Errorf("%s %v: %q, %v; want %q, %v", c.name, c.kind, got, m.RCode, c.want, c.code)
		}
	}
	if answerTo([]byte("no question"), zone) != nil {
		t.Error("an answer to nonsense")
	}
}
