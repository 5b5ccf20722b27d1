package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// pluginProgram is beside this one, and its type in network configurations.
const pluginProgram = "fairway-ipam"

func installCommand() *cobra.Command {
	var pluginDir, network, networkDir string
	cmd := &cobra.Command{
		Use:   "install-cni",
		Short: "Put the CNI plugin, and a network configuration, where this node's container runtime looks for them",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return installCNI(cmd.OutOrStdout(), pluginDir, network, networkDir)
		},
	}
	cmd.Flags().StringVar(&pluginDir, "plugin-dir", "/opt/cni/bin", "the `folder` of the runtime's CNI plugins")
	cmd.Flags().StringVar(&network, "network", "", "a network configuration `file` to install, too; it keeps its name")
	cmd.Flags().StringVar(&networkDir, "network-dir", "/etc/cni/net.d", "the `folder` of the runtime's network configurations")
	return cmd
}

// installCNI puts the plugin that is beside this program into pluginDir, and then the file
// network, unless it is "", into networkDir: with that a node may get its first pod. Each
// is there as a whole or as it was, and a plugin that runs meanwhile goes on.
func installCNI(out io.Writer, pluginDir, network, networkDir string) error {
	plugin, err := beside(pluginProgram)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(plugin)
	if err != nil {
		return missing(plugin, err)
	}
	var text []byte
	if network != "" {
		if text, err = os.ReadFile(network); err != nil {
			return fmt.Errorf("the network configuration: %w", err)
		}
		if err := checkNetwork(text); err != nil {
			return fmt.Errorf("the network configuration %s: %w", network, err)
		}
	}
	if err := installFile(out, filepath.Join(pluginDir, pluginProgram), program, 0o755); err != nil || network == "" {
		return err
	}
	return installFile(out, filepath.Join(networkDir, filepath.Base(network)), text, 0o600)
}

// checkNetwork says what is wrong with a network configuration for this agent (CNI
// specification 1.1, section 1).
func checkNetwork(text []byte) error {
	type plugin struct {
		Type string
		IPAM struct{ Type string }
	}
	var list struct {
		CNIVersion, Name string
		Plugins          []plugin
		plugin
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("it is no JSON object: %w", err)
	}
	if list.Name == "" {
		return errors.New(`it has no "name"`)
	}
	for _, p := range append(list.Plugins, list.plugin) {
		if p.IPAM.Type == pluginProgram {
			return nil
		}
	}
	return fmt.Errorf(`no plugin in it has "ipam": {"type": %q}, so that pods would get no address of Fairway's`, pluginProgram)
}

// isInstalled says whether path is a file with content and a mode.
func isInstalled(path string, content []byte, mode os.FileMode) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != mode {
		return false
	}
	is, err := os.ReadFile(path)
	return err == nil && bytes.Equal(is, content)
}

// installFile makes path a file with content, in one step, unless it is that already. A file
// that is another's is replaced: to change it would take more than the right to write.
func installFile(out io.Writer, path string, content []byte, mode os.FileMode) (err error) {
	if isInstalled(path, content, mode) {
		fmt.Fprintln(out, path, "is there already")
		return nil
	}
	fresh, err := os.CreateTemp(filepath.Dir(path), ".fairway-") // which a runtime passes over
	if err != nil {
		return fmt.Errorf("install %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("install %s: %w", path, err), os.Remove(fresh.Name()))
		}
	}()
	_, err = fresh.Write(content)
	if err = errors.Join(err, fresh.Chmod(mode), fresh.Sync(), fresh.Close()); err != nil {
		return err
	}
	if err = os.Rename(fresh.Name(), path); err != nil {
		return err
	}
	fmt.Fprintln(out, "installed", path)
	return nil
}
