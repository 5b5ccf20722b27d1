// Package wire is what cmd/fairway-ipam and the agent say to each other over
// the agent's unix socket. The plugin is started for every pod, so this
// package imports nothing.
//
// The plugin connects, sends one request and closes its sending side; the
// agent sends one answer and closes. A request is the CNI_* environment, each
// as NAME=value ended by a NUL, one more NUL, then the standard input as it
// came. An answer is what the plugin prints, then one byte: the exit status of
// the plugin, 0 or 1. Neither byte occurs in JSON, so an answer that was cut
// short is never taken for a whole one. Both ends bound what they read.
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

// maxVersion is longer than any version.
const maxVersion = 32

// Versions of the CNI specification that both ends speak, oldest first.
func Versions() []string { return []string{"0.4.0", "1.0.0", "1.1.0"} }

// Supported says whether version is one of Versions.
func Supported(version string) bool {
	for _, v := range Versions() {
		if v == version {
			return true
		}
	}
	return false
}

// AppendVersions appends what the command VERSION prints for a runtime that
// asks in version, which is repeated (CNI specification 1.1, section 5) if it
// can be one; else it is the newest.
func AppendVersions(b []byte, version string) []byte {
	versions := Versions()
	if version == "" || len(version) > maxVersion {
		version = versions[len(versions)-1]
	}
	b = AppendString(append(b, `{"cniVersion":`...), version)
	b = append(b, `,"supportedVersions":[`...)
	for i, v := range versions {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, v)
	}
	return append(b, "]}\n"...)
}

// AppendRequest appends the request made of environ and stdin to b.
func AppendRequest(b []byte, environ []string, stdin []byte) []byte {
	for _, e := range environ {
		b = AppendVariable(b, e)
	}
	return append(append(b, 0), stdin...)
}

// AppendVariable appends e, NAME=value, if it is one that is passed on. A request
// is such variables, one more NUL and the standard input.
func AppendVariable(b []byte, e string) []byte {
	if len(e) > len(envPrefix) && e[:len(envPrefix)] == envPrefix {
		b = append(append(b, e...), 0)
	}
	return b
}

// Variable is the value of the variable name in a request, as far as it is there;
// it aliases request and is nil if there is none.
func Variable(request []byte, name string) []byte {
	for {
		n := indexNUL(request)
		if n <= 0 {
			return nil
		}
		if e := request[:n]; n > len(name) && e[len(name)] == '=' && string(e[:len(name)]) == name {
			return e[len(name)+1:]
		}
		request = request[n+1:]
	}
}

// SplitRequest undoes AppendRequest. ok is false when b is not a request; env
// and stdin alias b.
func SplitRequest(b []byte) (env [][]byte, stdin []byte, ok bool) {
	env = make([][]byte, 0, 8) // the specification knows six variables
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

// AppendAnswer appends the answer that makes the plugin print text and exit
// with status 0, or with 1 if failed. text must be JSON or empty.
func AppendAnswer(b, text []byte, failed bool) []byte {
	return append(append(b, text...), statusByte(failed))
}

func statusByte(failed bool) byte {
	if failed {
		return 1
	}
	return 0
}

// SplitAnswer undoes AppendAnswer. ok is false when b is not a whole answer;
// text aliases b.
func SplitAnswer(b []byte) (text []byte, failed, ok bool) {
	if len(b) == 0 || b[len(b)-1] > 1 {
		return nil, false, false
	}
	last := len(b) - 1
	return b[:last], b[last] == 1, true
}
