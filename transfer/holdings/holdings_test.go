package holdings

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// of is the digest of a name.
func of(name string) digest.Digest { return digest.FromString(name) }

// an inventory is built of lines: "blob 10", "man 5: blob config" and "repo:tag = man".
func inventory(t *testing.T, lines ...string) *Inventory {
	t.Helper()
	v := &Inventory{}
	for _, line := range lines {
		if key, man, is := strings.Cut(line, " = "); is {
			repo, tag, _ := strings.Cut(key, ":")
			v.Tags = append(v.Tags, Tag{Key: "r.test " + repo + " " + tag + " a/b", Digest: of(man), Checked: time.Unix(int64(1000+len(v.Tags)), 0)})
			continue
		}
		head, lists, isManifest := strings.Cut(line, ": ")
		var name string
		var size int64
		if _, err := fmt.Sscan(head, &name, &size); err != nil {
			t.Fatal(line, err)
		}
		name, pinned := strings.CutSuffix(name, "!")
		v.Blobs = append(v.Blobs, Blob{Digest: of(name), Registry: "r.test", Size: size, Used: time.Unix(size, 0), Pinned: pinned})
		if !isManifest {
			continue
		}
		name, repo, _ := strings.Cut(name, "@")
		v.Blobs[len(v.Blobs)-1].Digest = of(name)
		m := Manifest{Digest: of(name), Repository: repo}
		for l := range strings.FieldsSeq(lists) {
			m.Lists = append(m.Lists, oci.Listed{Digest: of(l), Size: 7, Manifest: strings.HasPrefix(l, "m"), Platform: strings.TrimPrefix(l, "m")})
		}
		v.Manifests = append(v.Manifests, m)
	}
	return v
}

// names are by which the tests' registries are known.
var names = Names{
	Default:   "hub.test",
	Canonical: func(registry string) string { return strings.Replace(registry, "docker.io", "hub.test", 1) },
	Shown:     func(registry string) string { return strings.Replace(registry, "hub.test", "docker.io", 1) },
	Image: func(name string) (oci.Ref, error) {
		canonical := func(registry string) string { return strings.Replace(registry, "docker.io", "hub.test", 1) }
		return oci.ParseImage(name, oci.Names{Default: "hub.test", Hub: "hub.test", Canonical: canonical})
	},
}

func TestInventoryAsText(t *testing.T) {
	t.Parallel()
	v := inventory(t, "blob 10", "pinned! 20", "m1@team/app 5: blob m2", "m2 6: blob", "team/app:v1 = m1")
	v.Manifests[0].MediaType, v.Manifests[0].Platform = "application/json", "linux/amd64"
	v.Pins = []string{"r.test/team/app:v1"}
	v.Blobs[0].Used, v.Blobs[0].Registry = time.Time{}, ""
	got, err := Decode(v.Encode())
	if err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("%v\n%+v\n%+v", err, got, v)
	}
	if empty, err := Decode((&Inventory{}).Encode()); err != nil || !reflect.DeepEqual(empty, &Inventory{}) {
		t.Errorf("%v %+v", err, empty)
	}
	newer := string(v.Encode()) + "z of a later version\n"
	if _, err := Decode([]byte(newer)); err != nil {
		t.Error(err)
	}
}

// A word of a registry never makes a line of its own.
func TestInventoryIsNotForged(t *testing.T) {
	t.Parallel()
	v := inventory(t, "m1@team/app 5: blob", "team/app:v1 = m1")
	v.Manifests[0].MediaType = "a\nb sha256:1"
	v.Manifests[0].Platform = "linux\n/amd64 1"
	v.Manifests[0].Lists[0].Platform = "x y"
	v.Tags[0].Key += "\nb " + of("forged").String() + " r 1 1 1"
	v.Pins = []string{"p\nb forged"}
	got, err := Decode(v.Encode())
	if err != nil || len(got.Blobs) != 1 || len(got.Manifests) != 1 || len(got.Tags) != 1 || got.Manifests[0].Platform != "" || got.Manifests[0].MediaType != "" {
		t.Errorf("%v %+v", err, got)
	}
}

func TestInventoryIsMalformed(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"b", "b sha256:x r 1 1 1", "b " + of("a").String() + " r -1 1 1", "b " + of("a").String() + " r x 1 1", "l " + of("a").String() + " 1 0 0 -",
		"t x 1 a b c", "m ../../etc - - -", "b " + of("a").String() + " r 99999999999999999999 1 1",
	} {
		if v, err := Decode([]byte(header + "\n" + line + "\n")); !errors.Is(err, errText) {
			t.Errorf("%q: %+v %v", line, v, err)
		}
	}
	for _, text := range []string{"", "x", "oci-proxy holdings 2\n"} {
		if _, err := Decode([]byte(text)); !errors.Is(err, errText) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(header + "\nb " + of("a").String() + " r 1 1 1\nm " + of("a").String() + " - - -\nl " + of("b").String() + " 1 1 0 -\nt " + of("a").String() + " 1 r x v a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := Decode(text)
		if err != nil {
			return
		}
		m := Merge([]*Inventory{v, v})
		images := m.Images()
		m.Plan(images, []Pattern{{parts: []string{"**"}, shown: names.Shown}})
		for _, one := range images {
			if one.Held > one.Size || one.Size < 0 && one.Held >= 0 && len(v.Blobs) < 2 {
				t.Errorf("%+v", one)
			}
		}
	})
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	ref := func(name string) (oci.Ref, digest.Digest) {
		name, d, isDigest := strings.Cut(name, "@")
		registry, rest, _ := strings.Cut(name, "/")
		r := oci.Ref{Registry: registry, Repository: rest}
		if isDigest {
			r.Digest = digest.Digest(d)
			return r, r.Digest
		}
		at := strings.LastIndex(rest, ":")
		r.Repository, r.Tag = rest[:at], rest[at+1:]
		return r, of("x")
	}
	x := "@" + of("x").String()
	for pattern, want := range map[string]string{
		"**":                       "hub.test/library/alpine:3 hub.test/library/alpine:latest ghcr.io/org/app:v1 ghcr.io/org/deep/app:v2 ghcr.io/org/app" + x + " localhost:5000/a:v1",
		"*":                        "",
		"*/**":                     "hub.test/library/alpine:3 hub.test/library/alpine:latest ghcr.io/org/app:v1 ghcr.io/org/deep/app:v2 ghcr.io/org/app" + x + " localhost:5000/a:v1",
		"**:v1":                    "ghcr.io/org/app:v1 localhost:5000/a:v1",
		"**:v*":                    "ghcr.io/org/app:v1 ghcr.io/org/deep/app:v2 localhost:5000/a:v1",
		"ghcr.io/**":               "ghcr.io/org/app:v1 ghcr.io/org/deep/app:v2 ghcr.io/org/app" + x,
		"ghcr.io/*/app":            "ghcr.io/org/app:v1 ghcr.io/org/app" + x,
		"ghcr.io/org/*":            "ghcr.io/org/app:v1 ghcr.io/org/app" + x,
		"ghcr.io/*/*:v1":           "ghcr.io/org/app:v1",
		"ghcr.io/**/app":           "ghcr.io/org/app:v1 ghcr.io/org/deep/app:v2 ghcr.io/org/app" + x,
		"ghcr.io/o*g/d*p/*":        "ghcr.io/org/deep/app:v2",
		"docker.io/library/*":      "hub.test/library/alpine:3 hub.test/library/alpine:latest",
		"hub.test/library/*:3":     "hub.test/library/alpine:3",
		"docker.*/**":              "hub.test/library/alpine:3 hub.test/library/alpine:latest",
		"library/alpine:*":         "hub.test/library/alpine:3 hub.test/library/alpine:latest",
		"alpine":                   "hub.test/library/alpine:latest",
		"docker.io/library/alpine": "hub.test/library/alpine:latest",
		"ghcr.io/org/app" + x:      "ghcr.io/org/app:v1 ghcr.io/org/app" + x, // the tag means the same
		"ghcr.io/org/app:v1":       "ghcr.io/org/app:v1",
		"localhost:5000/*":         "localhost:5000/a:v1",
		"ghcr.io/**/**/**/**/x":    "",
	} {
		p, err := names.Parse(pattern)
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		var got []string
		for _, name := range []string{"hub.test/library/alpine:3", "hub.test/library/alpine:latest", "ghcr.io/org/app:v1", "ghcr.io/org/deep/app:v2", "ghcr.io/org/app" + x, "localhost:5000/a:v1"} {
			if r, d := ref(name); p.Matches(r, d) {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s chooses\n%s, not\n%s", pattern, strings.Join(got, " "), want)
		}
	}
	for _, bad := range []string{"", "a//*", "/*", "*/", "a**b/*", "***", "ghcr.io/*:", "a b*", "x*@sha256:1", "UPPER/x", "a:b:c", strings.Repeat("a*/", 1000)} {
		if p, err := names.Parse(bad); err == nil {
			t.Errorf("%q is a pattern: %+v", bad, p)
		}
	}
}

// A plan takes what the chosen images alone need.
func TestPlan(t *testing.T) {
	t.Parallel()
	one := inventory(t, "m1 5: base a1 config1", "base 100", "a1 10", "config1 1", "team/a:v1 = m1", "team/gone:v1 = mgone", "stray 9")
	two := inventory(t, "m2 5: base b1", "base 100", "b1 20", "team/b:v1 = m2", "m3@team/c 5: mx my", "mx 6: c1 base", "c1 30", "m4 5: d1", "d1 40")
	for name, c := range map[string]struct {
		patterns string
		images   int
		blobs    string
		tags     int
		unused   int
	}{
		"shared stays":    {"r.test/team/a:v1", 1, "a1 config1 m1", 1, 0},
		"all that need":   {"r.test/team/*", 3, "a1 b1 base c1 config1 m1 m2 m3 mx", 3, 0},
		"by digest":       {"r.test/team/c@" + of("m3").String(), 1, "c1 m3 mx", 0, 0},
		"nothing of it":   {"r.test/team/gone:v1", 0, "", 1, 0},
		"the tag only":    {"r.test/*/b:v1", 1, "b1 m2", 1, 0},
		"no tag":          {"r.test/*/c:*", 0, "", 0, 1},
		"nothing matches": {"other.test/**", 0, "", 0, 1},
		"everything":      {"**", 3, "a1 b1 base c1 config1 d1 m1 m2 m3 m4 mx stray", 3, 0},
		"a registry":      {"r.test/**", 3, "a1 b1 base c1 config1 d1 m1 m2 m3 m4 mx stray", 3, 0},
		"twice":           {"r.test/team/a:v1 r.test/team/a:* x.test/none", 1, "a1 config1 m1", 1, 1},
	} {
		var patterns []Pattern
		for text := range strings.FieldsSeq(c.patterns) {
			p, err := names.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			patterns = append(patterns, p)
		}
		m := Merge([]*Inventory{one, two})
		p := m.Plan(m.Images(), patterns)
		var blobs []string
		for b := range strings.FieldsSeq("a1 b1 base c1 config1 d1 m1 m2 m3 m4 mx my stray") {
			if _, goes := p.Blobs[of(b)]; goes {
				blobs = append(blobs, b)
			}
		}
		tags := 0
		for _, f := range p.Tags {
			tags += len(f.Keys)
		}
		if len(p.Images) != c.images || strings.Join(blobs, " ") != c.blobs || len(p.Blobs) != len(blobs) || tags != c.tags || len(p.Unused) != c.unused {
			t.Errorf("%s: %d images, %d tags, %d unused, blobs %v", name, len(p.Images), tags, len(p.Unused), blobs)
		}
	}
}

// What is pinned stays, with all that it needs, and with its tag.
func TestPlanOfPinned(t *testing.T) {
	t.Parallel()
	v := inventory(t, "m1! 5: base a1", "base! 100", "a1! 10", "team/a:v1 = m1", "m2 5: base b1", "b1 20", "team/b:v1 = m2")
	v.Manifests[0].Digest, v.Blobs[0].Digest = of("m1"), of("m1")
	m := Merge([]*Inventory{v})
	p := m.Plan(m.Images(), []Pattern{{parts: []string{"**"}, shown: names.Shown}})
	if len(p.Images) != 2 || !p.Images[0].Stays || p.Images[1].Stays || p.Images[1].Frees != 25 || len(p.Blobs) != 2 {
		t.Errorf("%+v", p)
	}
	for _, f := range p.Tags {
		if f.Ref.Repository == "team/a" {
			t.Errorf("its tag goes: %+v", f)
		}
	}
}

// The word of the node that heard of a tag last counts. What it meant before is an image
// without a tag.
func TestImagesOfATagThatMoved(t *testing.T) {
	t.Parallel()
	before := inventory(t, "m1@team/a 5: a1", "a1 10", "team/a:v1 = m1")
	after := inventory(t, "m2@team/a 5: a1 a2", "a2 20", "team/a:v1 = m2")
	after.Tags[0].Checked = before.Tags[0].Checked.Add(time.Hour)
	for _, all := range [][]*Inventory{{before, after}, {after, before}} {
		m := Merge(all)
		images := m.Images()
		if len(images) != 2 || images[0].Ref.Tag != "" || images[0].Digest != of("m1") || images[1].Ref.Tag != "v1" || images[1].Digest != of("m2") {
			t.Fatalf("%+v", images)
		}
		if images[1].Size != 35 || images[1].Held != 35 || !images[1].Checked.Equal(after.Tags[0].Checked) {
			t.Errorf("%+v", images[1])
		}
		p := m.Plan(images, []Pattern{{one: &oci.Ref{Registry: "r.test", Repository: "team/a", Tag: "v1"}}})
		if len(p.Blobs) != 2 || len(p.Tags) != 2 || len(p.Images) != 1 {
			t.Errorf("%+v", p)
		}
	}
}

// Manifests that list each other, or themselves, end.
func TestImagesInACircle(t *testing.T) {
	t.Parallel()
	v := inventory(t, "m1@team/a 5: m2", "m2@team/a 5: m1 m2", "team/a:v1 = m1")
	m := Merge([]*Inventory{v})
	images := m.Images()
	if len(images) != 1 || images[0].Size != 10 || len(m.Plan(images, []Pattern{{parts: []string{"**"}, shown: names.Shown}}).Blobs) != 2 {
		t.Errorf("%+v", images)
	}
}

// Of an index, the platforms count that are held. What lies at several nodes counts once.
func TestImageOfSomePlatforms(t *testing.T) {
	t.Parallel()
	one := inventory(t, "mindex 5: marm mx86", "team/a:v1 = mindex", "marm 6: a1 a2", "a1 10")
	two := inventory(t, "mindex 5: marm mx86", "a1 10", "team/a:v1 = mindex")
	m := Merge([]*Inventory{one, two})
	images := m.Images()
	if len(images) != 1 || strings.Join(images[0].Platforms, " ") != "arm" || images[0].Size != 5+6+10+7 || images[0].Held != 5+6+10 || !images[0].Used.Equal(time.Unix(6, 0)) {
		t.Errorf("%+v", images)
	}
	if blobs, bytes := m.Others(images); blobs != 0 || bytes != 0 {
		t.Errorf("%d others, %d bytes", blobs, bytes)
	}
	if content := m.Content(images[0]); len(content) != 4 || content[of("a2")] != 7 || content[of("mx86")] != 0 {
		t.Errorf("%v", content)
	}
}
