// Command roadside is what the labs' pods, clients and databases run. Each
// part says who it sees at the other end, so that an address that was
// translated on the way shows.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `usage: roadside serve NAME LISTEN            a web server that says who asks
       roadside database LISTEN              a TCP server that says who connects
       roadside ask ADDRESS                  connect to a database and print its answer
       roadside stream URL RATE              send RATE requests a second, each on a new connection,
                                             until SIGINT; then print how many there were and were lost
`

// patience is how long a connection may take.
const patience = 2 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "roadside:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 3 && args[0] == "serve":
		return serve(ctx, args[1], args[2])
	case len(args) == 2 && args[0] == "database":
		return database(ctx, args[1])
	case len(args) == 2 && args[0] == "ask":
		return ask(ctx, args[1])
	case len(args) == 3 && args[0] == "stream":
		return stream(ctx, args[1], args[2])
	}
	fmt.Fprint(os.Stderr, usage)
	return errors.New("unknown command")
}
