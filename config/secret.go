package config

import (
	"fmt"
	"io"
	"log/slog"
)

const stars = "******"

// Secret is a string that prints as stars, as a value of its own or inside of
// another one. Convert it to a string to use it. It is no key for a map:
// encoders take the keys as they are.
type Secret string

// String hides the secret.
func (s Secret) String() string { return stars }

// GoString hides the secret.
func (s Secret) GoString() string { return stars }

// Format hides the secret from every verb, wrong ones included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, stars) }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(stars) }

// MarshalText hides the secret from encoders, JSON and YAML among them.
func (s Secret) MarshalText() ([]byte, error) { return []byte(stars), nil }

// MarshalJSON hides the secret.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + stars + `"`), nil }
