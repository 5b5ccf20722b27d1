package server

import (
	"context"
	"io"
	"log/slog"

	"github.com/fairway-network/fairway/speaker"
)

// ServeChild is speaker.Serve with a Server. What routers tell goes to the sink that
// open makes, as Server.Learn has it; nil is for none.
func ServeChild(ctx context.Context, stderr io.Writer, open func(*slog.Logger) (Sink, error)) error {
	return speaker.Serve(ctx, stderr, func(log *slog.Logger) speaker.Announcer {
		s := New(log)
		if open != nil {
			s.Learn(func() (Sink, error) { return open(log) })
			s.learned.pace.set = s.thrift.collector.spendMore()
		}
		return s
	})
}
