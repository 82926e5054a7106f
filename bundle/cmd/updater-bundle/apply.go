// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutApply = `Usage: updater-bundle apply --keyring DIR --image CLASS [--source OLDFILE]... -o OUT FILE

Makes an image from a bundle as a device does. With --source it takes the delta
for that older image, or, if there is none and the bundle has a blocks recipe,
what all sources have of the new image. A chunk that does not come out right,
because the source was touched, comes from the bundle alone. Tells how many
chunks that were and the bytes a device would have downloaded. An encrypted
bundle needs the --identity of one of its recipients.

  updater-bundle apply --keyring keys/ --image rootfs --source v1.1.ext4 -o v1.2.ext4 demo-1.2.0.upb
`

func (c *command) apply(ctx context.Context, args []string) error {
	f := c.Flags("apply", aboutApply)
	class := f.String("image", "", "`CLASS` of the image to make")
	var sources cli.List
	f.Var(&sources, "source", "`OLDFILE`: an older image; may be given again; without it the full recipe is taken")
	out := f.String("o", "", "write the image to `OUT`")
	f.StringVar(out, "out", "", "`OUT`: the same as -o")
	trust, ids := cli.TrustOptions(f), identityOptions(f)
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if trust.Dir == "" || *class == "" || *out == "" {
		return cli.Misuse("--keyring, --image and -o are needed")
	}
	if err := cli.Apart(*out, append(sources, operands[0])...); err != nil {
		return err
	}
	file, err := open(trust, operands[0])
	if err != nil {
		return err
	}
	defer file.Close()
	if err := ids.unlock(file.Manifest); err != nil {
		return err
	}
	report, end := c.progress("applying")
	a, err := file.Apply(ctx, *class, sources, *out, report)
	end()
	if err != nil {
		return err
	}
	img := file.Manifest.Image(*class)
	fmt.Fprintf(c.Stdout, "recipe: %s (%s)\n", img.Recipes[a.Recipe].Kind, a.Why)
	fmt.Fprintf(c.Stdout, "chunks: %d, %d from patches, %d fell back to the full recipe\n", a.Chunks, a.Patched, a.Fallback)
	if img.Recipes[a.Recipe].Kind == bundle.KindBlocks {
		fmt.Fprintf(c.Stdout, "frames: %d from the sources, the others in %d ranges\n", a.Reused, a.Requests)
	}
	fmt.Fprintf(c.Stdout, "download: %d bytes, %d of them for the fall-back\n", a.Fetched, a.FallbackBytes)
	fmt.Fprintf(c.Stdout, "%s: %d bytes, %v\n", *out, img.Size, img.Digest)
	return nil
}
