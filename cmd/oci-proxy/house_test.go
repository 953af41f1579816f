package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

const (
	// maxMethods bounds the methods of a type, so that it can be known.
	maxMethods = 25
	// maxHomes bounds the files that they stand in.
	maxHomes = 5
)

// TestTypesStaySmall: no type has more methods, or is spread over more files, than a
// reader can keep in mind.
func TestTypesStaySmall(t *testing.T) {
	t.Parallel()
	methods := map[string]int{}
	homes := map[string]map[string]bool{}
	eachFile(t, func(path string, f *ast.File) {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			name := filepath.Dir(path) + "." + receiver(fn.Recv.List[0].Type)
			methods[name]++
			if homes[name] == nil {
				homes[name] = map[string]bool{}
			}
			homes[name][path] = true
		}
	})
	for name, n := range methods {
		if n > maxMethods || len(homes[name]) > maxHomes {
			t.Errorf("%s has %d methods in %d files; at most %d and %d", name, n, len(homes[name]), maxMethods, maxHomes)
		}
	}
	if len(methods) < 100 {
		t.Errorf("only %d types were found", len(methods))
	}
}

// receiver returns the name of a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	default:
		return "?"
	}
}

// TestOnlyGrantsOpenTheStore: what a shard holds can be opened with a grants.Pass alone.
// No other room can name a store, or open one, so that none can hold one.
func TestOnlyGrantsOpenTheStore(t *testing.T) {
	t.Parallel()
	found := 0
	eachFile(t, func(path string, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			room, ok := sel.X.(*ast.Ident)
			if !ok || room.Name != "cache" || sel.Sel.Name != "Store" && sel.Sel.Name != "Open" {
				return true
			}
			found++
			if filepath.Dir(path) != filepath.FromSlash("transfer/grants") {
				t.Errorf("%s names cache.%s: ask grants for a Pass", path, sel.Sel.Name)
			}
			return true
		})
		for _, i := range f.Imports {
			if i.Path.Value == `"oci-proxy/cache"` && i.Name != nil {
				t.Errorf("%s imports cache under another name", path)
			}
		}
	})
	if found == 0 {
		t.Error("nobody opens a store: does this test still see it?")
	}
}

// eachFile parses every Go file of the program that is no test.
func eachFile(t *testing.T, look func(path string, f *ast.File)) {
	t.Helper()
	root := filepath.Join("..", "..")
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err == nil {
			look(rel, f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
