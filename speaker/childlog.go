package speaker

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
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

// parseRecord reads a line of slog's JSON handler; args are as they stand in it.
func parseRecord(line []byte) (level slog.Level, msg string, args []any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber() // an ASN is no 4.2e+09
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return 0, "", nil, false
	}
	var leveled, worded bool
	for d.More() {
		key, err := d.Token()
		var value any
		if err != nil || d.Decode(&value) != nil {
			return 0, "", nil, false
		}
		text, _ := value.(string)
		switch key {
		case slog.TimeKey:
		case slog.LevelKey:
			leveled = level.UnmarshalText([]byte(text)) == nil
		case slog.MessageKey:
			msg, worded = value.(string)
		default:
			args = append(args, key, value)
		}
	}
	if _, err := d.Token(); err != nil || !leveled || !worded || len(bytes.TrimSpace(line[d.InputOffset():])) > 0 {
		return 0, "", nil, false
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
