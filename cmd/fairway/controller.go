package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// controllerProgram is beside this one.
const controllerProgram = "fairway-controller"

func controllerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "controller",
		Short: "Run the controller of a Kubernetes cluster: accept pools, free the blocks of nodes that are gone, report",
		// The other program knows its flags.
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			return becomeController(args)
		},
	}
}

// becomeController returns only if it fails.
func becomeController(args []string) error {
	path, err := beside(controllerProgram)
	if err != nil {
		return err
	}
	return missing(path, syscall.Exec(path, append([]string{path}, args...), os.Environ()))
}

// beside is where a program is that is installed with this one.
func beside(program string) (path string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find %s, which is installed beside this program: %w", program, err)
	}
	return filepath.Join(filepath.Dir(self), program), nil
}

// missing says what to do about a program that can't be started.
func missing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: install it there, beside fairway, from the same release", path)
	}
	return fmt.Errorf("start %s: %w", path, err)
}
