// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/updaterd/updaterd/bundle/bench/debian"
	"github.com/updaterd/updaterd/qemu/uboot"
)

// LoaderImage is the name of the image in a second stage's FIT.
const LoaderImage = "uboot"

// loaderVersions are what the two second stages call themselves on the console.
var loaderVersions = map[Packages]string{Base: "1.0", Updated: "2.0"}

// Loader builds U-Boot as a second stage, which a first stage starts from a
// slot, and returns the path of its FIT with hashes. On the console it says
// "U-Boot 2023.01-bootloader-1.0", and so on.
func (b *Builder) Loader(ctx context.Context, p Packages) (string, error) {
	env, err := uboot.Default(uboot.SecondEnv)
	if err != nil {
		return "", err
	}
	dir, err := b.cached(ctx, "uboot-second", key(1, uboot.Config, uboot.Text(env), uboot.SecondConfig, ubootFlags, debian.Release), func(dir string) error {
		work, err := os.MkdirTemp(b.cache, "uboot-second-work-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		return buildLoaders(ctx, work, dir, uboot.Text(env))
	})
	return filepath.Join(dir, loaderVersions[p]+".itb"), err
}

// buildLoaders builds all versions in one place: only the first takes long.
func buildLoaders(ctx context.Context, work, out, env string) error {
	src, err := unpackUBoot(ctx, work)
	if err != nil {
		return err
	}
	for _, version := range loaderVersions {
		fragment := fmt.Sprintf("%sCONFIG_LOCALVERSION=%q\n", uboot.SecondConfig, "-bootloader-"+version)
		if err := configureUBoot(ctx, src, uboot.Config, env, fragment); err != nil {
			return err
		}
		if err := makeUBoot(ctx, src, ubootFlags); err != nil {
			return err
		}
		if err := WriteFIT(ctx, filepath.Join(src, "u-boot.bin"), filepath.Join(out, version+".itb")); err != nil {
			return err
		}
	}
	return nil
}

// loaderSource is a FIT with one image. The address is that of first.env.
const loaderSource = `/dts-v1/;
/ {
	description = "second stage";
	#address-cells = <1>;
	images {
		%[1]s {
			description = "bootloader";
			data = /incbin/("%[2]s");
			type = "firmware";
			arch = "arm64";
			os = "u-boot";
			compression = "none";
			load = <0x42000000>;
			hash-1 { algo = "sha256"; };
		};
	};
	configurations {
		default = "conf";
		conf { firmware = "%[1]s"; };
	};
};
`

// WriteFIT wraps a program for the first stage, with the hash that it has.
func WriteFIT(ctx context.Context, program, path string) error {
	source := path + ".its"
	if err := os.WriteFile(source, fmt.Appendf(nil, loaderSource, LoaderImage, program), 0o644); err != nil {
		return err
	}
	defer os.Remove(source)
	_, err := run(ctx, command{argv: []string{"mkimage", "-f", source, path}})
	return err
}
