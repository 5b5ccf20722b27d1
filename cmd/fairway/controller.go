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
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find %s, which is installed beside this program: %w", controllerProgram, err)
	}
	path := filepath.Join(filepath.Dir(self), controllerProgram)
	err = syscall.Exec(path, append([]string{path}, args...), os.Environ())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: install it beside %s", path, self)
	}
	return fmt.Errorf("start %s: %w", path, err)
}
