package oci_test

import (
	"encoding/json"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
)

const aConfig = `"config":{"digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5}`

func TestIsManifest(t *testing.T) {
	t.Parallel()
	for body, is := range map[string]bool{
		`{"schemaVersion":2,` + aConfig + `,"layers":[]}`:   true,
		`{"schemaVersion":2,` + aConfig + `,"layers":null}`: true, // as some write no layers
		`{` + aConfig + `}`:                  true,
		` {"layers":[],` + aConfig + `} `:    true,
		`{"schemaVersion":2,"manifests":[]}`: true,
		`{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}`:               true,
		`{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","artifactType":"a/b"}`:     true,
		`{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[{}],"history":[{}],"signatures":1}`: true,
		`{"mediaType":"application/vnd.own.thing.v1+json","x":1}`:                                true, // under that Content-Type

		``:                                    false,
		` `:                                   false,
		`null`:                                false,
		`[]`:                                  false,
		`{}`:                                  false,
		`"ok"`:                                false,
		`OK`:                                  false,
		`{"schemaVersion":2}`:                 false,
		`{"errors":[{"code":"UNAVAILABLE"}]}`: false,
		`{"errors":[],"manifests":[]}`:        false,
		`{"message":"no Route matched"}`:      false,
		`{"status":"ok","config":{}}`:         false,
		`{"config":"x","layers":[]}`:          false,
		`{"manifests":{}}`:                    false,
		`{"manifests":null}`:                  false,
		`{"fsLayers":[]}`:                     false,
		`<html><body>{}</body></html>`:        false,
		`{"schemaVersion":2,` + aConfig + `,"layers":[`:              false, // cut short
		`{"schemaVersion":2,"manifests":[]}{"schemaVersion":2}`:      false,
		`{"schemaVersion":2,"manifests":[]}<!-- 0.2 ms -->`:          false,
		`{"mediaType":"application/vnd.other.thing.v1+json","x":1}`:  false, // not the Content-Type
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json"}`: false,
		`{"mediaType":"application/vnd.oci.image.index.v1+json"}`:    false,
		`{"mediaType":"text/html"}`:                                  false,
		`{"mediaType":7,"config":[]}`:                                false,
	} {
		if got := oci.IsManifest("application/vnd.own.thing.v1+json; charset=utf-8", []byte(body)); got != is {
			t.Errorf("%q: %v, want %v", body, got, is)
		}
	}
}

func TestMayBeManifest(t *testing.T) {
	t.Parallel()
	for body, is := range map[string]bool{
		`{"schemaVersion":2}`: true, ` {} `: true, `{"x":{"errors":[]}}`: true, `{"x":1}`: true,
		``: false, `[]`: false, `"x"`: false, `null`: false, `<html>`: false, `{"x":`: false, `{}{}`: false,
		`{"errors":[{"code":"X"}]}`: false, `{"token":"t"}`: false, `{"access_token":"t","expires_in":3}`: false,
	} {
		if got := oci.MayBeManifest([]byte(body)); got != is {
			t.Errorf("%q: %v, want %v", body, got, is)
		}
	}
}

// FuzzIsManifest: what is taken for a manifest is a whole JSON object, and no error; cut
// short anywhere it is none.
func FuzzIsManifest(f *testing.F) {
	f.Add("application/vnd.oci.image.index.v1+json", `{"manifests":[]}`, 3)
	f.Add("", `{`+aConfig+`}`, 20)
	f.Add("application/vnd.x+json", `{"mediaType":"application/vnd.x+json"}`, 1)
	f.Add("text/html", `{"errors":[{"code":"X"}]}`, 5)
	f.Fuzz(func(t *testing.T, mediaType, body string, cut int) {
		if !oci.IsManifest(mediaType, []byte(body)) {
			return
		}
		var m map[string]any
		if json.Unmarshal([]byte(body), &m) != nil || m == nil || m["errors"] != nil {
			t.Errorf("%q is taken", body)
		}
		whole := strings.TrimSpace(body)
		if cut > 0 && cut < len(whole) && oci.IsManifest(mediaType, []byte(whole[:cut])) {
			t.Errorf("a part of it is taken: %q", whole[:cut])
		}
	})
}
