package upstream

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestChallengesAreReadAsRegistriesWriteThem(t *testing.T) {
	t.Parallel()
	type params = map[string]string
	for name, c := range map[string]struct {
		header []string
		want   []challenge
	}{
		"none":  {nil, nil},
		"empty": {[]string{"", " , ,"}, nil},
		"docker hub": {
			[]string{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull"`},
			[]challenge{{"bearer", params{"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:library/nginx:pull"}}},
		},
		"commas in quotes": {
			[]string{`Bearer realm="https://a/t?x=1,2",scope="repository:a:pull,push"`},
			[]challenge{{"bearer", params{"realm": "https://a/t?x=1,2", "scope": "repository:a:pull,push"}}},
		},
		"two in one header": {
			[]string{`Basic realm="a, b", Bearer realm="https://a/t", service=x`},
			[]challenge{{"basic", params{"realm": "a, b"}}, {"bearer", params{"realm": "https://a/t", "service": "x"}}},
		},
		"two headers": {
			[]string{`Basic realm=r`, `Bearer realm="https://a/t"`},
			[]challenge{{"basic", params{"realm": "r"}}, {"bearer", params{"realm": "https://a/t"}}},
		},
		"mixed case keeps values": {
			[]string{`bEaReR ReAlM="https://Auth.Example/ToKen",SERVICE="Svc"`},
			[]challenge{{"bearer", params{"realm": "https://Auth.Example/ToKen", "service": "Svc"}}},
		},
		"spaces around": {
			[]string{"  Bearer   realm = \"u\" ,\tservice= s  "},
			[]challenge{{"bearer", params{"realm": "u", "service": "s"}}},
		},
		"unquoted URL":        {[]string{`Bearer realm=https://a/t?x=y,service=s`}, []challenge{{"bearer", params{"realm": "https://a/t?x=y", "service": "s"}}}},
		"no commas":           {[]string{`Bearer realm="u" service="s"`}, []challenge{{"bearer", params{"realm": "u", "service": "s"}}}},
		"escaped quote":       {[]string{`Basic realm="a \"b\" \\ c"`}, []challenge{{"basic", params{"realm": `a "b" \ c`}}}},
		"open quote":          {[]string{`Basic realm="abc`}, []challenge{{"basic", params{"realm": "abc"}}}},
		"scheme alone":        {[]string{`Negotiate`, `Basic`}, []challenge{{"negotiate", params{}}, {"basic", params{}}}},
		"first of a name":     {[]string{`Bearer realm=a,realm=b`}, []challenge{{"bearer", params{"realm": "a"}}}},
		"param before scheme": {[]string{`realm="x", Basic realm=y`}, []challenge{{"basic", params{"realm": "y"}}}},
		"stray signs":         {[]string{`= " , Basic realm=y`}, []challenge{{"basic", params{"realm": "y"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := challengesOf(http.Header{"Www-Authenticate": c.header})
			if len(got) != len(c.want) || len(got) > 0 && !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestChallengesAreBounded(t *testing.T) {
	t.Parallel()
	many := http.Header{"Www-Authenticate": {strings.Repeat("Basic realm=x, ", 5000), "Bearer realm=y"}}
	if n := len(challengesOf(many)); n != maxChallenges {
		t.Errorf("%d challenges, want %d", n, maxChallenges)
	}
	long := parseChallenges(`Basic realm="` + strings.Repeat("x", 1<<20))
	if n := len(long[0].params["realm"]); n > maxChallengeBytes {
		t.Errorf("a value of %d bytes", n)
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"`)
	f.Add(`Basic realm="a \"b\"", Bearer realm=x`)
	f.Add(`Negotiate abc==, Digest qop="auth,auth-int"`)
	f.Add(`="=,"\`)
	f.Fuzz(func(t *testing.T, value string) {
		for _, ch := range parseChallenges(value) {
			if ch.scheme == "" || ch.scheme != strings.ToLower(ch.scheme) || len(fmt.Sprint(ch.params)) > 4*maxChallengeBytes {
				t.Errorf("%q gives %v", value, ch)
			}
		}
	})
}
