package config

import (
	"slices"
	"strings"
	"testing"
)

func TestImagesOfFiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want string // the images, or what the error says
	}{
		"a list":            {"# what we run\nalpine:3\n\n ghcr.io/org/app:v1 # ours\nalpine:3\n", "alpine:3 ghcr.io/org/app:v1"},
		"a line":            {"quay.io/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000", "quay.io/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000"},
		"compose":           {"services:\n  web: {image: nginx}\n  db:\n    image: \"postgres:16\"\n    build: .\n  own: {build: .}\n", "nginx postgres:16"},
		"compose anchors":   {"x-base: &base {image: busybox}\nservices: {a: {<<: *base}, b: {image: &i redis}, c: {image: *i}}", "busybox redis"},
		"kubernetes":        {"kind: Deployment\nspec:\n  template:\n    spec:\n      initContainers:\n      - name: i\n        image: busybox:1\n      containers:\n      - image: 'registry.k8s.io/pause:3.9'\n---\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: a.io:5000/b}]}}}}}\n---\n", "busybox:1 registry.k8s.io/pause:3.9 a.io:5000/b"},
		"json":              {`{"kind":"List","items":[{"spec":{"containers":[{"image":"x/y:z"}]}}]}`, "x/y:z"},
		"values of a chart": {"image: {repository: a, tag: b}\nside: {image: c}", "c"},
		"a variable":        {"services: {a: {image: 'x:${TAG}'}}", `"x:${TAG}" has a variable`},
		"no images":         {"kind: Service\nspec: {ports: []}\n", "no list of images"},
		"broken":            {"services:\n  a: {image: nginx\n", "no list of images"},
		"a tab":             {"a:\n\t- b", "no list of images"},
		"an option":         {"-rf", `"-rf" is not the name of an image`},
		"empty":             {"\n# nothing\n", "names no image"},
		"a bomb":            {"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c]\nimage: ok", "ok"},
	} {
		got, err := Images([]byte(c.text))
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%s: %q, %v; want %s", name, got, err, c.want)
		}
	}
}
