package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/gate"
	"oci-proxy/transfer/holdings"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// lookUp asks a node what pulls would get.
func lookUp(t *testing.T, p *proxy, header []string, names ...string) (all lookupAnswer) {
	t.Helper()
	a := p.get("/_/image?"+url.Values{"name": names}.Encode(), header...)
	if err := json.Unmarshal(a.body, &all); err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%d %v %s", a.StatusCode, err, a.body)
	}
	return all
}

// why is what refuses a pull, "" if nothing does.
func why(r *lookupRefusal) string {
	if r == nil {
		return ""
	}
	return r.Why
}

// What a lookup says and what a pull gets is the same, for everybody and every name.
func TestALookupSaysWhatAPullGets(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	up.PutImage(repo, "v1", random(1, 1000))
	up.PutImage("open/app", "v1", random(2, 1000))
	p := newProxy(t, up, settings{
		top:      users + "whitelist_mode: true\n" + fmt.Sprintf("access:\n- {users: [bob], allow: [%q]}\n- {deny: [%q]}", up.Host()+"/team/**", "mine/"+repo),
		registry: "alias: [mine]",
	})
	for _, name := range []string{repo, "open/app", up.Host() + "/" + repo, "mine/" + repo, "mine/open/app", "ghcr.io/a/b", "127.0.0.1:9/a/b"} {
		for who, header := range map[string][]string{"bob": basic("bob", "x7"), "a stranger": nil, "a wrong bob": basic("bob", "wrong")} {
			line := lookUp(t, p, header, name+":v1").Names[0]
			a := p.get("/v2/"+name+"/manifests/v1", header...)
			if refused := a.StatusCode == http.StatusForbidden; refused != (line.Refused != nil) {
				t.Errorf("%s: %s is answered %d, and looked up as %+v", who, name, a.StatusCode, line.Refused)
			} else if refused && !strings.Contains(line.Refused.Reason, a.wantError(t, http.StatusForbidden, "DENIED").Reason) {
				t.Errorf("%s: %s: the pull says %s, the lookup %q", who, name, a.body, line.Refused.Reason)
			}
		}
	}
	bob := lookUp(t, p, basic("bob", "x7"), repo, "open/app")
	if bob.User != "bob" || bob.Names[0].Refused != nil || why(bob.Names[0].WithoutLogin) != "access" || bob.Names[1].WithoutLogin != nil {
		t.Errorf("bob is told %+v", bob)
	}
}

func TestALookupTellsStrangersNothing(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	up.PutImage(repo, "v1", random(1, 1000))
	p := newProxy(t, up, settings{top: login + "}\nwhitelist_mode: true\naccess: [{deny: ['ghcr.io/**']}]"})
	user := basic("puller", "right:one")
	p.get("/v2/"+repo+"/manifests/v1", user...).want(t, http.StatusOK)
	for who, header := range map[string][]string{"a stranger": nil, "a wrong user": basic("puller", "wrong")} {
		if got := lookUp(t, p, header, repo+":v1", "ghcr.io/a/b"); !got.Login || !got.Auth || got.User != "" || len(got.Names) != 0 {
			t.Errorf("%s is told %+v", who, got)
		}
	}
	got := lookUp(t, p, user, repo+":v1", "ghcr.io/a/b", "Not A Name")
	if got.Login || got.User != "puller" || why(got.Names[0].WithoutLogin) != "login" || why(got.Names[1].Refused) != "whitelist" || got.Names[2].Error == "" {
		t.Errorf("the user is told %+v", got)
	}
}

// It asks no registry. What is held of private registries, and what the rules refuse, is not
// told.
func TestALookupTellsWhatIsHeld(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	s := shelf{t, up, random(9, 5_000)}
	img := s.put(repo, "v1", "arm64", 1)
	s.put(repo, "v2", "amd64", 2)
	p := newProxy(t, up, settings{})
	for _, path := range []string{"/manifests/v1", "/manifests/v2", "/blobs/" + img.Config.String(), "/blobs/" + img.Layers[0].String()} {
		p.get("/v2/"+repo+path).want(t, http.StatusOK)
	}
	before := len(up.Requests())
	all := lookUp(t, p, nil, repo+":v1", repo+"@"+img.Manifest.String(), repo+":none", "other/app").Names
	for i, line := range all[:2] {
		if len(line.Cached) != 1 {
			t.Fatalf("%d: %+v", i, line)
		}
		c := line.Cached[0]
		if c.Digest != img.Manifest.String() || strings.Join(c.Platforms, " ") != "linux/arm64" || c.Held <= 10_000 || c.Size-c.Held != 5_000 {
			t.Errorf("%d: %+v", i, c)
		}
	}
	if strings.Join(all[0].Tags, " ") != "v2" || len(all[2].Cached) != 0 || strings.Join(all[2].Tags, " ") != "v1 v2" || len(all[3].Cached)+len(all[3].Tags) != 0 {
		t.Errorf("%+v", all)
	}
	if n := len(up.Requests()) - before; n != 0 {
		t.Errorf("%d requests reached the registry", n)
	}
	hidden := newProxy(t, up, settings{registry: "private: true"})
	hidden.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	if got := lookUp(t, hidden, nil, repo+":v1").Names[0]; got.Cached != nil || got.Tags != nil || got.Refused != nil {
		t.Errorf("of a private registry: %+v", got)
	}
}

func TestALookupIsBounded(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	p.get("/_/image").wantError(t, http.StatusBadRequest, "UNSUPPORTED")
	p.get("/_/image?"+strings.Repeat("name=a&", lookupNames+1)).wantError(t, http.StatusBadRequest, "UNSUPPORTED")
	ask(t, p, http.MethodGet, "/_/image?name=a", "evil.example").wantError(t, http.StatusMisdirectedRequest, "DENIED")
}

// A name that is asked for again costs nothing more and is told once.
func TestALookupAnswersEachNameOnce(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	up.PutImage(repo, "v1", random(1, 1000))
	p := newProxy(t, up, settings{})
	p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	names := slices.Repeat([]string{repo + ":v1", "other/app", "Not A Name"}, lookupNames/3)
	got := lookUp(t, p, nil, names...).Names
	if len(got) != 3 {
		t.Fatalf("%d names have %d lines, want 3", len(names), len(got))
	}
	for i, line := range got {
		if line.Name != names[i] || (len(line.Cached) == 1) != (i == 0) || (line.Error != "") != (i == 2) {
			t.Errorf("%d: %+v", i, line)
		}
	}
}

// A lookup waits for its turn as a pull does, and so does a stranger's question who holds a blob.
// One that only asks for a login needs none, nor does an operator.
func TestALookupTakesATurn(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	none := gate.Limits{Files: 18000, Pulls: 0, Waiting: 4500}
	full := served(t, up, settings{top: "queue_timeout: 0s"}, none)
	if dt := full.get("/_/image?name=a").wantError(t, http.StatusServiceUnavailable, "UNAVAILABLE"); dt.Reason != gate.ErrBusy.Error() {
		t.Errorf("%+v", dt)
	}
	path := "/_/owner/" + digest.FromString("a").String()
	full.get(path, stranger...).wantError(t, http.StatusServiceUnavailable, "UNAVAILABLE")
	full.get(path).want(t, http.StatusOK)
	closed := served(t, up, settings{top: login + "}\nqueue_timeout: 0s"}, none)
	if got := lookUp(t, closed, nil, "a"); !got.Login {
		t.Errorf("a stranger is told %+v", got)
	}
}

// scanned is what held is to find, by a look at all images.
func scanned(images []holdings.Image, ref oci.Ref) (cached, tags []string) {
	for _, one := range images {
		switch {
		case one.Ref.Registry != ref.Registry || one.Ref.Repository != ref.Repository:
		case ref.Digest != "" && one.Digest == ref.Digest, ref.Digest == "" && one.Ref.Tag == ref.Tag:
			if len(cached) == 0 {
				cached = append(cached, one.Digest.String())
			}
		case one.Ref.Tag != "" && len(tags) < lookupTags:
			tags = append(tags, one.Ref.Tag)
		}
	}
	return cached, tags
}

// some are images of a few repositories, sorted by name: untagged ones, and tags of which
// several mean the same.
func some() (images []holdings.Image) {
	for _, name := range []string{"a", "a/b", "b"} {
		for i := range 40 {
			d := digest.FromString(fmt.Sprint(i / 3))
			ref := oci.Ref{Registry: "r.example", Repository: name, Tag: fmt.Sprintf("v%02d", i)}
			if i < 5 {
				ref.Tag, ref.Digest = "", d
			}
			images = append(images, holdings.Image{Ref: ref, Digest: d})
		}
	}
	return images
}

func TestTheIndexFindsWhatALookAtAllFinds(t *testing.T) {
	t.Parallel()
	images := some()
	index := newImageIndex(images)
	for _, registry := range []string{"q.example", "r.example", "s.example"} {
		for _, name := range []string{"", "a", "a/a", "a/b", "b", "c"} {
			for i := range 50 {
				for _, ref := range []oci.Ref{{Tag: fmt.Sprintf("v%02d", i)}, {Digest: digest.FromString(fmt.Sprint(i))}} {
					ref.Registry, ref.Repository = registry, name
					cached, tags := held(index, ref)
					wantCached, wantTags := scanned(images, ref)
					if !slices.Equal(tags, wantTags) || len(cached) != len(wantCached) || len(cached) == 1 && cached[0].Digest != wantCached[0] {
						t.Fatalf("%+v: %v %v, want %v %v", ref, cached, tags, wantCached, wantTags)
					}
				}
			}
		}
	}
}

// All who ask at a time share one look, and its index.
func TestALooksIndexIsMadeOnce(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	now := p.node.steward.look(t.Context())
	if one, other := now.names(), now.names(); one != other {
		t.Error("there are two")
	}
}
