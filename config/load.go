package config

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

// Load reads the file at path, and the environment over it. The error is
// Problems with all that is wrong if the file could be read, and otherwise
// names the file and wraps the system's error. Password files are read as well.
func Load(path string) (*Config, error) {
	data, _, err := readFile(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return load(path, data)
}

func load(path string, data []byte) (*Config, error) {
	s := newSource(path)
	root := s.tree(data)
	if root == nil {
		return nil, s.verdict()
	}
	schema := schemaOf(reflect.TypeFor[Config]())
	values := s.mapping(root, "", schema)
	s.inherit(values)
	s.complete(values, "", schema, false)
	vars := s.environ(schema)
	c, err := merge(schema, values, vars)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.check(s)
	if err := s.verdict(); err != nil {
		return nil, err
	}
	c.Warnings = s.inOrder(s.warnings)
	return c, nil
}

// merge lays the values of the file over the defaults, and the variables over
// both. All of them are checked, so an error is a mistake in this package.
func merge(schema *shape, values map[string]any, vars map[string]string) (*Config, error) {
	v := viper.New()
	if err := v.MergeConfigMap(values); err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(vars)) {
		if err := v.BindEnv(key, vars[key]); err != nil {
			return nil, err
		}
	}
	v.SetDefault("runDir", schema.at("runDir").def)
	setDefaults(v, schema, "", v.GetString("runDir"))
	c := &Config{}
	err := v.UnmarshalExact(c, func(d *mapstructure.DecoderConfig) {
		d.TagName = "key"
		d.WeaklyTypedInput = false
		d.DecodeHook = mapstructure.DecodeHookFuncType(decodeScalar)
	})
	return c, err
}

// setDefaults gives viper what holds without the file. A default may have the
// run directory in it.
func setDefaults(v *viper.Viper, s *shape, prefix, runDir string) {
	for _, f := range s.fields {
		path := join(prefix, f.key)
		switch def := f.defaultValue().(type) {
		case string:
			if def != "" {
				v.SetDefault(path, strings.ReplaceAll(def, "{runDir}", runDir))
			}
		case []any:
			if f.def != "" {
				v.SetDefault(path, def)
			}
		}
		if f.shape.isMapping() {
			setDefaults(v, f.shape, path, runDir)
		}
	}
}

// decodeScalar makes the typed value of a text; lists and mappings pass.
func decodeScalar(_, to reflect.Type, data any) (any, error) {
	if pairs, ok := data.([]any); ok && to == reflect.TypeFor[Labels]() {
		return labelsOf(pairs), nil
	}
	text, ok := data.(string)
	if !ok || !isScalar(to) {
		return data, nil
	}
	return parseAs(to, text)
}

// hostName is this host's name as Kubernetes has it.
func hostName() (string, error) {
	name, err := os.Hostname()
	return strings.ToLower(name), err
}
