package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a configuration: some thousands of pools.
const maxFile = 1 << 20

// readFile reads a regular file of at most limit bytes. It does not wait for
// a writer, as it would on a pipe.
func readFile(path string, limit int64) ([]byte, os.FileMode, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, fmt.Errorf("%w: is the path right?", err)
	case err != nil:
		return nil, 0, err
	case info.IsDir():
		return nil, 0, fmt.Errorf("%s is a directory: name a file in it", path)
	case !info.Mode().IsRegular():
		return nil, 0, fmt.Errorf("%s is not a regular file: name one", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, 0, fmt.Errorf("%s has more than %d bytes: is it the right file?", path, limit)
	}
	return data, info.Mode(), nil
}

// tree parses the one YAML document of the file. With nil, the problem is noted.
func (s *source) tree(data []byte) *yaml.Node {
	if line, text := misencoded(data); text != "" {
		s.failAt(line, "", "%s", text)
		return nil
	}
	var first, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	err := d.Decode(&first)
	if errors.Is(err, io.EOF) || err == nil && len(first.Content) == 1 && isNull(first.Content[0]) {
		s.failAt(0, "", "the file is empty: see the configuration reference for an example, or write {} to have every default")
		return nil
	}
	if err == nil {
		if err = d.Decode(&second); err == nil {
			s.failAt(second.Line, "", "a second YAML document begins here: one file holds one document, remove the --- or what follows it")
			return nil
		}
	}
	if !errors.Is(err, io.EOF) {
		s.failSyntax(data, err)
		return nil
	}
	return first.Content[0]
}

// misencoded says where data is not plain UTF-8.
func misencoded(data []byte) (line int, text string) {
	for _, mark := range []string{"\xef\xbb\xbf", "\xff\xfe", "\xfe\xff"} {
		if bytes.HasPrefix(data, []byte(mark)) {
			return 1, "the file begins with a byte order mark: save it as UTF-8 without one"
		}
	}
	for i, l := range bytes.Split(data, []byte("\n")) {
		if !utf8.Valid(l) {
			return i + 1, "this line is not UTF-8: save the file as UTF-8"
		}
		if bytes.IndexByte(l, 0) >= 0 {
			return i + 1, "this line has a zero byte: the file is not text"
		}
	}
	return 0, ""
}

var (
	yamlLine    = compiled(`^yaml: (?:line (\d+): )?(.*)`)
	tabIndent   = compiled(`^ *\t`)
	bareAddress = compiled(`[:,\[-]\s*[0-9a-fA-F:]+::?\s*([,\]}#]|$)`)
)

// failSyntax notes what the YAML parser said, and why, if it is one of the
// two usual reasons.
func (s *source) failSyntax(data []byte, err error) {
	m := yamlLine().FindStringSubmatch(strings.Join(strings.Fields(err.Error()), " "))
	if m == nil {
		m = []string{"", "", err.Error()}
	}
	line, _ := strconv.Atoi(m[1])
	lines := strings.Split(string(data), "\n")
	for i, l := range lines {
		if tabIndent().MatchString(l) {
			s.failAt(i+1, "", "not valid YAML (%s): this line is indented with a tab, YAML takes spaces", m[2])
			return
		}
	}
	for i := max(line-1, 1); i <= min(line+1, len(lines)); i++ {
		if bareAddress().MatchString(lines[i-1]) {
			s.failAt(i, "", "not valid YAML (%s): write an IPv6 address that ends in a colon in quotes", m[2])
			return
		}
	}
	s.failAt(line, "", "not valid YAML: %s: look at the indentation and quotes of this line and the one above", m[2])
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }
