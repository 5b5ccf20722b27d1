package wire

// Code is a CNI error code: those of the CNI specification 1.1, section 5, and
// above 99 our own.
type Code int

const (
	IncompatibleVersion  Code = 1
	InvalidEnvironment   Code = 4
	IOFailure            Code = 5
	DecodingFailure      Code = 6
	InvalidNetworkConfig Code = 7
	TryAgainLater        Code = 11
	NotAvailable         Code = 50
	// NotOwner: the address or the attachment is another pod's.
	NotOwner Code = 100
	// CheckFailed: what is leased is not what the previous result says.
	CheckFailed Code = 101
	// Refused: no pool serves the pod as things are.
	Refused Code = 102
	// Internal is what the specification's reference plugins use for the rest.
	Internal Code = 999
)

// Fault is an error as CNI wants it printed.
type Fault struct {
	Code    Code
	Msg     string // names the thing and the value
	Details string // the way out; may be empty
}

// Error is the message and the way out.
func (f *Fault) Error() string {
	if f.Details == "" {
		return f.Msg
	}
	return f.Msg + "; " + f.Details
}

// AppendJSON appends the error object for a runtime that asked in version, in
// the newest one if that is not Supported.
func (f *Fault) AppendJSON(b []byte, version string) []byte {
	if versions := Versions(); !Supported(version) {
		version = versions[len(versions)-1]
	}
	b = AppendString(append(b, `{"cniVersion":`...), version)
	b = appendUint(append(b, `,"code":`...), uint(f.Code))
	b = AppendString(append(b, `,"msg":`...), f.Msg)
	if f.Details != "" {
		b = AppendString(append(b, `,"details":`...), f.Details)
	}
	return append(b, "}\n"...)
}

func appendUint(b []byte, n uint) []byte {
	if n >= 10 {
		b = appendUint(b, n/10)
	}
	return append(b, '0'+byte(n%10))
}
