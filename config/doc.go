// Package config reads the agent's YAML file. Load gives a whole, checked
// configuration or all that is wrong with it, each problem with its line, its
// key and the way out. Watch says when it is time to load again.
//
// The types are the schema: a field's key tag names it, its other tags give
// the default and the values it may have, and its comment is its entry in
// docs/configuration.md, which the generator below writes.
//
// Precedence, highest first: environment variable, file, default. Viper
// merges the three; everything else about it stays inside of this package.
package config

//go:generate go run ./internal/docgen -source . -out ../docs/configuration.md
