package speaker

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

const (
	// maxLine bounds what is kept of a line that does not end.
	maxLine = 64 << 10
	// maxRest bounds what is kept of a dying process's last words.
	maxRest = 2 << 10
)

// relay is the child's standard error: its log lines go to the parent's log
// with their levels, anything else (a panic) is kept for the reason of its
// death.
type relay struct {
	log *slog.Logger

	mu   sync.Mutex
	part []byte // a line not ended yet
	said []byte // what was no log line
}

// Write implements io.Writer. It never fails: a child must not stop over its
// log.
func (r *relay) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.part = append(r.part, b...)
	for {
		line, rest, ended := bytes.Cut(r.part, []byte("\n"))
		if !ended {
			break
		}
		r.line(line)
		r.part = rest
	}
	if len(r.part) > maxLine {
		r.line(r.part)
		r.part = nil
	}
	if len(r.part) == 0 {
		r.part = nil // let go of the array behind it
	}
	return len(b), nil
}

// line passes one line on.
func (r *relay) line(line []byte) {
	level, msg, args, ok := parseRecord(line)
	if ok {
		r.log.Log(context.Background(), level, msg, args...)
		return
	}
	if room := maxRest - len(r.said); room > 0 && len(line) > 0 {
		r.said = append(append(r.said, line[:min(len(line), room)]...), '\n')
	}
}

// rest is what the process said that was no log line: a panic's message.
func (r *relay) rest() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.TrimSpace(string(r.said))
}

// parseRecord reads a line of slog's JSON handler.
func parseRecord(line []byte) (level slog.Level, msg string, args []any, ok bool) {
	var fields map[string]any
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &fields) != nil {
		return 0, "", nil, false
	}
	name, _ := fields[slog.LevelKey].(string)
	msg, isText := fields[slog.MessageKey].(string)
	if !isText || level.UnmarshalText([]byte(name)) != nil {
		return 0, "", nil, false
	}
	keys := make([]string, 0, len(fields))
	for k := range fields {
		if k != slog.LevelKey && k != slog.MessageKey && k != slog.TimeKey {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		args = append(args, k, fields[k])
	}
	return level, msg, args, true
}

// lowestLevel is the lowest of slog's levels that log passes on.
func lowestLevel(log *slog.Logger) slog.Level {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if log.Enabled(context.Background(), l) {
			return l
		}
	}
	return slog.LevelError
}
