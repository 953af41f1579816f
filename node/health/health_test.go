package health

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oci-proxy/transfer/testkit"
)

// The table in docs/operations.md is generated from the code.
func TestCodesDoc(t *testing.T) {
	t.Parallel()
	testkit.Document(t, "../../docs/operations.md", "codes", Table())
}

// Each code is in the table, some room gives it, and some test of another room makes it happen.
func TestEachCodeIsDocumentedGivenAndTested(t *testing.T) {
	t.Parallel()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "health.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	given, tested := uses(t)
	for name, code := range constants(file) {
		if !slices.Contains(Codes(), code) {
			t.Errorf("%s is in no row", name)
		}
		if code == Other {
			continue
		}
		if !given["health."+name] || !tested["health."+name] {
			t.Errorf("health.%s: given by some room %v, in a test %v", name, given["health."+name], tested["health."+name])
		}
	}
	if len(Rows) < 15 {
		t.Errorf("%d rows", len(Rows))
	}
}

// constants returns the constant strings of a file by name.
func constants(file *ast.File) map[string]Code {
	all := map[string]Code{}
	for _, decl := range file.Decls {
		g, ok := decl.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, spec := range g.Specs {
			if v, ok := spec.(*ast.ValueSpec); ok && len(v.Values) == 1 {
				if text, ok := v.Values[0].(*ast.BasicLit); ok {
					all[v.Names[0].Name] = Code(strings.Trim(text.Value, `"`))
				}
			}
		}
	}
	return all
}

// uses returns what other packages below node use of this one: in code, and in tests.
func uses(t *testing.T) (code, tests map[string]bool) {
	t.Helper()
	code, tests = map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		in := code
		if strings.HasSuffix(path, "_test.go") {
			in = tests
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok {
					in[x.Name+"."+s.Sel.Name] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return code, tests
}

func TestCodes(t *testing.T) {
	t.Parallel()
	plain := errors.New("tls: it is bad")
	coded := Because(TLS, plain)
	if Because(TLS, nil) != nil || !errors.Is(coded, plain) || CodeOf(fmt.Errorf("more: %w", coded)) != TLS || CodeOf(plain) != Other || CodeOf(nil) != Other {
		t.Error("codes of errors are wrong")
	}
	if got := CodesOf([]error{coded, plain, coded, Because(Seed, coded)}); !slices.Equal(got, []Code{TLS, Other, Seed}) {
		t.Errorf("codes %v", got)
	}
	for want, err := range map[string]error{"tls: it is bad": coded, "other: tls: it is bad": plain, "seed: tls: it is bad": Because(Seed, coded)} {
		if got := Text(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, row := range Rows {
		if row.Meaning == "" || row.Do == "" || strings.ContainsAny(row.Meaning+row.Do, "|\n") {
			t.Errorf("the row of %s does not fit into a table", row.Code)
		}
	}
}
