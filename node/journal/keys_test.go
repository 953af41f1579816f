package journal

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"oci-proxy/transfer/testkit"
)

// The table in docs/operations.md is generated from the code.
func TestKeysDoc(t *testing.T) {
	t.Parallel()
	testkit.Document(t, "../../docs/operations.md", "keys", Table())
}

// What any code of the program logs has a key that is documented, and each documented key is
// logged by some code. A time span has its unit in its key.
func TestEachLoggedKeyIsDocumented(t *testing.T) {
	t.Parallel()
	logged := map[string]string{"time": "", "level": "", "msg": ""} // key → where
	set := token.NewFileSet()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if d.IsDir() && d.Name() != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testkit" || d.Name() == "upstreamtest") {
			return filepath.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			at := set.Position(call.Pos()).String()
			keys, err := keysOf(call)
			if err != nil {
				t.Errorf("%s: %v", at, err)
			}
			for _, key := range keys {
				logged[key] = at
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, k := range Keys {
		if documented[k.Name] || k.Meaning == "" || strings.ContainsAny(k.Meaning, "|\n") {
			t.Errorf("%s is there twice, or its meaning %q does not fit into a table", k.Name, k.Meaning)
		}
		documented[k.Name] = true
		if _, ok := logged[k.Name]; !ok {
			t.Errorf("%s is documented, and no code logs it", k.Name)
		}
	}
	for key, at := range logged {
		if !documented[key] {
			t.Errorf("%s: %q is logged and stands not in Keys", at, key)
		}
	}
}

// firstKey says which argument of a logger's method is the first key.
var firstKey = map[string]int{
	"Info": 1, "Warn": 1, "Debug": 1, "Error": 1,
	"InfoContext": 2, "WarnContext": 2, "DebugContext": 2, "ErrorContext": 2, "tell": 2,
	"Log": 3, "With": 0,
}

// keysOf returns the keys that a call logs, none if it is no call of log/slog. It knows the
// calls by the form that they have in this program: constant messages and keys.
func keysOf(call *ast.CallExpr) (keys []string, err error) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil, nil
	}
	if of, ok := method.X.(*ast.Ident); ok && of.Name == "slog" {
		switch method.Sel.Name {
		case "Duration", "DurationValue":
			return nil, fmt.Errorf("a time span without a unit: log wait.Milliseconds under a key that ends in _ms")
		case "String", "Int", "Int64", "Uint64", "Float64", "Bool", "Time", "Any":
			key, ok := text(call.Args[0])
			if !ok {
				return nil, fmt.Errorf("a key that is no constant")
			}
			return []string{key}, nil
		}
		return nil, nil
	}
	first, ok := firstKey[method.Sel.Name]
	if !ok || len(call.Args) <= first {
		return nil, nil
	}
	if first > 0 {
		if _, ok := text(call.Args[first-1]); !ok {
			return nil, nil // a method of that name of something else
		}
	}
	for i := first; i < len(call.Args) && call.Ellipsis == token.NoPos; i += 2 {
		key, ok := text(call.Args[i])
		if !ok {
			if first == 0 {
				return nil, nil // likewise
			}
			return nil, fmt.Errorf("a key that is no constant")
		}
		keys = append(keys, key)
		if i+1 < len(call.Args) && spans(call.Args[i+1]) != strings.HasSuffix(key, "_ms") {
			return nil, fmt.Errorf("%q: a time span is logged by wait.Milliseconds, under a key that ends in _ms", key)
		}
	}
	return keys, nil
}

// spans reports whether an expression is a time span in milliseconds, or looks as if it
// were one that is not.
func spans(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	return ok && slices.Contains([]string{"Milliseconds", "Round", "Truncate", "Since", "Until"}, f.Sel.Name)
}

// text returns the value of a constant string.
func text(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}

// The way in which a line of JSON is looked at finds what is wrong with it.
func TestCheck(t *testing.T) {
	t.Parallel()
	for line, ok := range map[string]bool{
		`{"time":"2024-01-02T03:04:05.123456789Z","level":"INFO","msg":"request","status":200,"stored":true}`: true,
		`{"msg":"x","nobody":1}`: false, `{"took_ms":"1s"}`: false, `{"client":7}`: false, `{"time":"today"}`: false,
		`{"error":null}`: false, `{"error":{"a":1}}`: false, `text`: false,
	} {
		if err := Check([]byte(line)); (err == nil) != ok {
			t.Errorf("%s: %v", line, err)
		}
	}
}
