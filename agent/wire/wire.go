// Package wire is what cmd/fairway-ipam and the agent say to each other over
// the agent's unix socket. The plugin is started for every pod, so this
// package imports nothing.
//
// The plugin connects, sends one request and closes its sending side; the
// agent sends one answer and closes. A request is the CNI_* environment, each
// as NAME=value ended by a NUL, one more NUL, then the standard input as it
// came. An answer is one byte, the exit status of the plugin, then what the
// plugin prints. Both ends bound what they read.
package wire

const (
	// DefaultSocket is where the agent listens unless it is told otherwise.
	DefaultSocket = "/run/fairway/ipam.sock"
	// MaxRequest and MaxAnswer bound what is read, in bytes.
	MaxRequest = 1 << 20
	MaxAnswer  = 1 << 20
)

// Prefix of the variables that are passed on.
const envPrefix = "CNI_"

// AppendRequest appends the request made of environ and stdin to b.
func AppendRequest(b []byte, environ []string, stdin []byte) []byte {
	for _, e := range environ {
		if len(e) > len(envPrefix) && e[:len(envPrefix)] == envPrefix {
			b = append(append(b, e...), 0)
		}
	}
	return append(append(b, 0), stdin...)
}

// SplitRequest undoes AppendRequest. ok is false when b is not a request; env
// and stdin alias b.
func SplitRequest(b []byte) (env [][]byte, stdin []byte, ok bool) {
	for {
		n := indexNUL(b)
		switch {
		case n < 0:
			return nil, nil, false
		case n == 0:
			return env, b[1:], true
		}
		env, b = append(env, b[:n]), b[n+1:]
	}
}

func indexNUL(b []byte) int {
	for i, c := range b {
		if c == 0 {
			return i
		}
	}
	return -1
}
