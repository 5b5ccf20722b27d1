package routes

import (
	"fmt"
	"net/netip"
)

// SyncError is the error of a table that could not be made what was wanted in
// every route. All other routes are as wanted. A table that could not even be
// read gives another error.
type SyncError struct {
	// Missing are the wanted prefixes that the table does not deliver.
	Missing []netip.Prefix
	// Lingering are prefixes of ours that are not wanted and still there.
	Lingering []netip.Prefix
	// Err says why, naming each route.
	Err error
}

func (e *SyncError) Error() string {
	return fmt.Sprintf("%d routes missing, %d not removed: %v", len(e.Missing), len(e.Lingering), e.Err)
}

func (e *SyncError) Unwrap() error { return e.Err }
