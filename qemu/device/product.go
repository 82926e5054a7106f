// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/sign"
)

// Compatible is what the simulated devices are.
const Compatible = "qemu-arm64-board"

// A Product is updaterd as it is installed into systems, and the key that they trust.
type Product struct {
	files  []assets.File
	Signer sign.Signer
	// Keyring is a directory with the public key.
	Keyring string
	// KeyFile is the private key of Signer.
	KeyFile string
}

// NewProduct installs updaterd below dir, by the Makefile's rule, and makes a
// key, unless an earlier product left one there: with the same key and the same
// source, systems that were built before can be used again.
func NewProduct(ctx context.Context, dir string) (*Product, error) {
	top, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	root, binary := filepath.Join(dir, "root"), filepath.Join(dir, "updaterd")
	if err := os.RemoveAll(root); err != nil {
		return nil, err
	}
	if _, err := output(ctx, top, "make", "-s", "--no-print-directory", "device", "install", "ARCH=arm64", "OUT="+binary, "BINARY="+binary, "DESTDIR="+root); err != nil {
		return nil, err
	}
	p := &Product{Keyring: filepath.Join(dir, "keys"), KeyFile: filepath.Join(dir, "release.key")}
	if p.files, err = readTree(root); err != nil {
		return nil, fmt.Errorf("read what was installed: %w", err)
	}
	public, err := p.makeKey()
	if err != nil {
		return nil, err
	}
	p.files = append(p.files, assets.File{Path: "/etc/updaterd/keys/release.pem", Content: public})
	p.Signer, err = sign.LoadSigner(ctx, p.KeyFile, nil)
	return p, err
}

func (p *Product) makeKey() (public []byte, err error) {
	path := filepath.Join(p.Keyring, "release.pem")
	if public, err = os.ReadFile(path); err == nil {
		return public, nil
	}
	private, public, err := sign.GenerateKey("ed25519", nil)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(p.Keyring, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.KeyFile, private, 0o600); err != nil {
		return nil, err
	}
	// Last: a keyring without its private key would be of no use.
	return public, os.WriteFile(path, public, 0o644)
}

// Files is what goes into a system: the product, a configuration, and more files.
func (p *Product) Files(configuration string, more ...assets.File) []assets.File {
	files := append([]assets.File(nil), p.files...)
	files = append(files, assets.File{Path: "/etc/updaterd/updaterd.toml", Content: []byte(configuration)})
	return append(files, more...)
}

// Configuration is updaterd.toml of the simulated devices, with lines of its sections.
func Configuration(boot, download, health string) string {
	return `compatible = "` + Compatible + `"

[boot]
` + boot + `

[slots."rootfs.a"]
device = "/dev/mmcblk0p1"

[slots."rootfs.b"]
device = "/dev/mmcblk0p2"

[watchdog]
device = "/dev/watchdog"
timeout = "20s"

[download]
` + download + `

[health]
` + health + `

[[health.commands]]
name = "application"
argv = ["` + assets.HealthCommand + `"]
timeout = "20s"
`
}

// EMMCSlots is what a board has that starts its bootloader from an eMMC.
const EMMCSlots = `
[slots."bootloader.a"]
device = "/dev/mmcblk1boot0"
type = "emmc-boot"

[slots."bootloader.b"]
device = "/dev/mmcblk1boot1"
type = "emmc-boot"
`

// LoaderSlots is what a board with a second stage has.
const LoaderSlots = `
[slots."bootloader.a"]
device = "/dev/mmcblk0p4"

[slots."bootloader.b"]
device = "/dev/mmcblk0p5"
`

func readTree(root string) ([]assets.File, error) {
	var files []assets.File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		file := assets.File{Path: "/" + strings.TrimPrefix(path, root+"/")}
		if d.Type() == fs.ModeSymlink {
			file.Link, err = os.Readlink(path)
		} else {
			info, statErr := d.Info()
			if statErr != nil {
				return statErr
			}
			file.Mode = int64(info.Mode().Perm())
			file.Content, err = os.ReadFile(path)
		}
		files = append(files, file)
		return err
	})
	return files, err
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, said.String())
	}
	return strings.TrimSpace(string(out)), nil
}
