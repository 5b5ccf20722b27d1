package kube

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Files of a cluster's folder.
const (
	caCert                = "ca.crt"
	servingCert           = "kube-apiserver.crt"
	leafKey               = "leaf.key"
	accountKey            = "accounts.key"
	adminKubeconfig       = "admin.kubeconfig"
	controllersKubeconfig = "controllers.kubeconfig"
)

// homes is how the clusters' folders are named.
const homes = "fairway-kube-"

// home is the folder that holds all that a cluster writes. It is locked as long
// as its process lives, so that others know which ones were left behind by a
// process that was killed. A nil one is no folder.
type home struct {
	dir  string
	lock *os.File
}

// newHome makes a folder, in memory if there is room, and removes what killed
// processes have left.
func newHome() (*home, error) {
	base := roomiest()
	sweep(base)
	dir, err := os.MkdirTemp(base, homes)
	if err != nil {
		return nil, err
	}
	h := &home{dir: dir}
	if h.lock, err = lockDir(dir); err != nil {
		return nil, errors.Join(err, h.remove())
	}
	return h, nil
}

func (h *home) path(file string) string { return filepath.Join(h.dir, file) }

func (h *home) write(file string, content []byte) error {
	return os.WriteFile(h.path(file), content, 0o600)
}

func (h *home) remove() error {
	if h == nil {
		return nil
	}
	err := os.RemoveAll(h.dir)
	if h.lock != nil {
		err = errors.Join(err, h.lock.Close())
	}
	return err
}

// roomiest is /dev/shm where that is a tmpfs with room, else the folder for
// temporary files. Containers often have a small /dev/shm, and etcd reserves
// 64 MB at once.
func roomiest() string {
	const shared, enough = "/dev/shm", 1 << 30
	var fs unix.Statfs_t
	if unix.Statfs(shared, &fs) == nil && fs.Type == unix.TMPFS_MAGIC && fs.Bavail*uint64(fs.Bsize) >= enough {
		return shared
	}
	return os.TempDir()
}

// lockDir locks a folder for as long as the file that it returns is open; the
// components do not inherit it.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// sweep removes the folders below base that nobody has locked. What can't be
// removed is left: it belongs to somebody else, or the next one tries.
func sweep(base string) {
	// A younger one may have been made a moment ago and not been locked yet.
	const young = time.Minute
	found, _ := filepath.Glob(filepath.Join(base, homes+"*"))
	for _, dir := range found {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < young {
			continue
		}
		if lock, err := lockDir(dir); err == nil {
			_ = os.RemoveAll(dir)
			_ = lock.Close()
		}
	}
}
