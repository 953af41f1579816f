package page

import (
	"maps"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A palette maps the names of style sheets' colours to their values.
type palette map[string]string

// colours returns the custom colours that a style sheet sets, on top of others.
func colours(sheet string, below palette) palette {
	p := palette{}
	maps.Copy(p, below)
	for _, m := range regexp.MustCompile(`--([\w-]+):\s*(#[0-9a-f]{3,6})\b`).FindAllStringSubmatch(sheet, -1) {
		p[m[1]] = m[2]
	}
	return p
}

// luminance is a colour's relative luminance (WCAG 2.2).
func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	hex := strings.TrimPrefix(colour, "#")
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || len(hex) != 6 {
		t.Fatalf("%q is no colour", colour)
	}
	part := func(shift uint) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*part(16) + 0.7152*part(8) + 0.0722*part(0)
}

// contrast is the ratio of two colours (WCAG 2.2).
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func TestEveryTextStandsOutFromItsGround(t *testing.T) {
	t.Parallel()
	light := colours(read(t, "style.css"), nil)
	themes := map[string]palette{"light": light, "dark": colours(read(t, "dark.css"), light)}
	pairs := [][2]string{ // text, ground; a name of the palette or a colour
		{"ink", "ground"},
		{"ink", "card"},
		{"ink", "field"},
		{"ink", "raised"},
		{"ink", "wash"},
		{"soft", "ground"},
		{"soft", "card"},
		{"soft", "field"},
		{"soft", "wash"},
		{"accent", "ground"},
		{"accent", "card"},
		{"accent", "field"},
		{"accent-ink", "accent"},
		{"good", "card"},
		{"warn", "card"},
		{"bad", "card"},
		{"good", "ground"},
		{"warn", "ground"},
		{"bad", "ground"},
		{"code-ink", "code"},
		{"code-soft", "code"},
		{"code-ink", "code-line"},
		{"code-soft", "code-line"},
		{"#fff", "code-line"},
	}
	for theme, p := range themes {
		of := func(name string) string {
			if strings.HasPrefix(name, "#") {
				return name
			}
			return p[name]
		}
		for _, pair := range pairs {
			if c := contrast(t, of(pair[0]), of(pair[1])); c < 4.5 {
				t.Errorf("%s: %s on %s has a contrast of %.2f", theme, pair[0], pair[1], c)
			}
		}
	}
	if len(light) < 15 {
		t.Errorf("only %d colours were found", len(light))
	}
}

// Rules that set text and ground by themselves are the same in both themes.
func TestEveryRuleWithItsOwnColoursStandsOut(t *testing.T) {
	t.Parallel()
	light := colours(read(t, "style.css"), nil)
	checked := 0
	for _, sheet := range []string{"style.css", "pull.css", "views.css"} {
		for _, rule := range regexp.MustCompile(`(?m)^\s*([^{}@]+)\{([^{}]*)\}`).FindAllStringSubmatch(read(t, sheet), -1) {
			ink := regexp.MustCompile(`(?:^|[\s;])color:\s*(#[0-9a-f]{3,6})`).FindStringSubmatch(rule[2])
			ground := regexp.MustCompile(`background(?:-color)?:\s*(#[0-9a-f]{3,6})`).FindStringSubmatch(rule[2])
			if ink == nil || ground == nil {
				continue
			}
			checked++
			if c := contrast(t, ink[1], ground[1]); c < 4.5 {
				t.Errorf("%s: %s has a contrast of %.2f", sheet, strings.TrimSpace(rule[1]), c)
			}
		}
	}
	if checked == 0 || light["code"] == "" {
		t.Error("no rule was checked")
	}
}
