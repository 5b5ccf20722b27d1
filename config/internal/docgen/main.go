// Command docgen writes the reference of the configuration file from the
// schema in package config and the comments of its fields.
package main

import (
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/fairway-network/fairway/config"
)

func main() {
	source := flag.String("source", ".", "directory of package config")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	page, err := render(*source)
	if err == nil {
		err = os.WriteFile(*out, page, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

//go:embed configuration.md.tmpl
var page string

// section is one table of the page.
type section struct {
	Title string
	Text  string
	Keys  []entry
}

type entry struct {
	config.Key
	Doc string
}

// render gives the whole page.
func render(source string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return nil, err
	}
	docs := map[string]string{}
	for _, file := range files {
		if err := fieldDocs(file, docs); err != nil {
			return nil, err
		}
	}
	sections, err := sectionsOf(config.Keys(), docs)
	if err != nil {
		return nil, err
	}
	t, err := template.New("page").Funcs(template.FuncMap{
		"file": func(name string) (string, error) {
			text, err := os.ReadFile(filepath.Join(source, name))
			return strings.TrimRight(string(text), "\n"), err
		},
		"default": defaultOf,
		"cell":    func(s string) string { return strings.ReplaceAll(s, "|", `\|`) },
	}).Parse(page)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, sections)
	return b.Bytes(), err
}

// sectionsOf puts keys that are in no mapping first, then a table for each
// mapping and list at the top of the file.
func sectionsOf(keys []config.Key, docs map[string]string) ([]section, error) {
	out := []section{{Title: "At the top"}}
	explained := map[string]bool{}
	for _, k := range keys {
		if explained[k.Field] && strings.HasPrefix(k.Path, "templates[]") {
			continue // it is what it is of a peer
		}
		explained[k.Field] = true
		doc := docs[k.Field]
		if doc == "" {
			return nil, fmt.Errorf("%s (%s) has no comment", k.Field, k.Path)
		}
		top := !strings.Contains(k.Path, ".")
		group := k.Type == "" || k.Type == "list"
		switch {
		case top && group:
			title := "`" + k.Path + "`"
			if k.Type == "list" {
				title += ", a list"
			}
			out = append(out, section{Title: title, Text: doc})
		case top:
			out[0].Keys = append(out[0].Keys, entry{k, doc})
		default:
			last := &out[len(out)-1]
			last.Keys = append(last.Keys, entry{k, doc})
		}
	}
	return out, nil
}

// defaultOf is the cell of the Default column.
func defaultOf(e entry) string {
	switch {
	case e.Required:
		return "required"
	case e.Default == "":
		return e.Otherwise
	case strings.HasPrefix(e.Type, "list"):
		return "`[\"" + strings.ReplaceAll(e.Default, ",", `", "`) + "\"]`"
	case strings.HasPrefix(e.Default, "{runDir}/"):
		return "`" + strings.TrimPrefix(e.Default, "{runDir}/") + "` in `runDir`"
	}
	return "`" + e.Default + "`"
}

// fieldDocs adds to docs the comments of all struct fields in a file, as one
// line each, by "Type.Field".
func fieldDocs(file string, docs map[string]string) error {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					docs[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
		}
		return false
	})
	return nil
}
