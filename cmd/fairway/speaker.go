package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/fairway-network/fairway/config"
	"github.com/fairway-network/fairway/routes/kernel"
	"github.com/fairway-network/fairway/speaker"
)

// speakerProgram is beside this one.
const speakerProgram = "fairway-speaker"

// speakerOf is the BGP speaker, a process of its own. Where there is to be BGP, its
// program is looked for now: without it nothing would be announced.
func speakerOf(c *config.Config, log *slog.Logger) (speaker.Speaker, error) {
	path, err := beside(speakerProgram)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil && (c.BGP.ASN != 0 || c.BGP.ASNFrom != config.NodeValue{}) {
		return nil, missing(path, err)
	}
	return speaker.NewChild(speaker.Spawn{Path: path, Args: speakerArguments(c.Routes.Learned), Log: log}), nil
}

// speakerArguments are for a speaker of an agent with these settings.
func speakerArguments(l config.LearnedRoutes) []string {
	if !*l.Enabled {
		return nil
	}
	return []string{
		fmt.Sprintf("--learned-table=%d", l.Table), fmt.Sprintf("--learned-protocol=%d", l.Protocol), fmt.Sprintf("--learned-metric=%d", l.Metric),
	}
}

// unlearn removes what an agent with other settings left in the kernel, where these
// are to learn nothing: no speaker is there to do it. An error is for the log
// alone, since such an agent may have no rights to the kernel's routes.
func unlearn(ctx context.Context, l config.LearnedRoutes, log *slog.Logger) {
	if *l.Enabled {
		return
	}
	if err := flush(ctx, kernel.Config{Table: int(l.Table), Protocol: int(l.Protocol)}, log); err != nil {
		log.Warn("learned routes of before, if any, stay in the kernel: remove them with ip route flush", "table", l.Table, "protocol", l.Protocol, "err", err)
	}
}

func flush(ctx context.Context, c kernel.Config, log *slog.Logger) error {
	table, err := kernel.New(c, log)
	if err != nil {
		return err
	}
	return errors.Join(table.Flush(ctx), table.Close())
}
