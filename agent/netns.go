package agent

import (
	"errors"
	"io/fs"
	"path/filepath"
	"unicode/utf8"

	"github.com/fairway-network/fairway/pools"
	"golang.org/x/sys/unix"
)

// noteNetns finds out which network namespace is at path, as runtimes keep them:
// mounted on a file. It is the zero Netns where this process can't see one, as
// in a container without the host's directory, or with a copy of its mounts.
func noteNetns(path string) pools.Netns {
	if !filepath.IsAbs(path) || len(path) >= unix.PathMax || !utf8.ValidString(path) {
		return pools.Netns{}
	}
	dir, err := fileAt(filepath.Dir(path))
	if err != nil {
		return pools.Netns{}
	}
	namespace, isNamespace, err := namespaceAt(path)
	if err != nil || !isNamespace {
		return pools.Netns{}
	}
	return pools.Netns{Path: path, Namespace: namespace, Dir: dir}
}

// sandbox is what is known of a sandbox by its network namespace.
type sandbox int

const (
	sandboxUnknown sandbox = iota // it can't be seen from here
	sandboxStands
	sandboxGone
)

// lookFor says whether a namespace that was noted is still where it was. That it
// is not there is evidence only in the directory where it was seen: an agent in
// a container may since have been given another one, or none. A file without a
// namespace on it is none either, for its mount may not have come through.
func lookFor(n pools.Netns) sandbox {
	if n.Namespace == (pools.FileID{}) {
		return sandboxUnknown
	}
	if dir, err := fileAt(filepath.Dir(n.Path)); err != nil || dir != n.Dir {
		return sandboxUnknown
	}
	there, isNamespace, err := namespaceAt(n.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sandboxGone
	case err != nil || !isNamespace:
		return sandboxUnknown
	case there == n.Namespace:
		return sandboxStands
	}
	return sandboxGone
}

func fileAt(path string) (pools.FileID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return pools.FileID{}, err
	}
	return pools.FileID{Dev: st.Dev, Inode: st.Ino}, nil
}

// namespaceAt is the file at path, and whether it is a namespace.
func namespaceAt(path string) (id pools.FileID, isNamespace bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return id, false, err
	}
	id, err = fileAt(path)
	return id, st.Type == unix.NSFS_MAGIC, err
}
