// SPDX-License-Identifier: Apache-2.0

// Package debian finds the mirrors of the Debian release that images are built
// from: those that the machine's own apt is set up for, so that the project
// names none.
package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Release is the Debian release that the images are built from.
const Release = "bookworm"

// Its suites.
const (
	Main     = Release
	Updates  = Release + "-updates"
	Security = Release + "-security"
)

// keyring verifies what the mirrors serve.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// A Source is one archive of the release.
type Source struct{ URI, Suite string }

// Sources asks the machine's apt for the mirrors of the release. Only Debian's
// own archives count, whatever else the machine uses.
func Sources(ctx context.Context) ([]Source, error) {
	out, err := output(ctx, "apt-get", "indextargets", "--format",
		"$(ORIGIN)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return nil, err
	}
	found, err := parse(string(out))
	if err != nil {
		return nil, fmt.Errorf("read apt's configuration: %w", err)
	}
	return found, nil
}

func parse(targets string) ([]Source, error) {
	suites := []string{Main, Updates, Security}
	found := map[string]Source{}
	for line := range strings.Lines(targets) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 4 {
			return nil, fmt.Errorf("line %q is not understood", line)
		}
		origin, suite, component, uri := f[0], f[1], f[2], f[3]
		// Without downloaded lists apt does not know the origin; the signatures tell in the end.
		if origin != "Debian" && !strings.HasPrefix(origin, "$") || component != "main" {
			continue
		}
		if _, have := found[suite]; !have && slices.Contains(suites, suite) {
			found[suite] = Source{URI: uri, Suite: suite}
		}
	}
	if _, ok := found[Main]; !ok {
		return nil, errors.New("no source of Debian " + Release + ", component main; add one to /etc/apt/sources.list.d")
	}
	var list []Source
	for _, suite := range suites {
		if s, ok := found[suite]; ok {
			list = append(list, s)
		}
	}
	return list, nil
}

// List is the text of a sources.list, of kind deb or deb-src, for those of the
// sources that are of the suites.
func List(kind string, sources []Source, suites ...string) string {
	var b strings.Builder
	for _, s := range sources {
		if slices.Contains(suites, s.Suite) {
			fmt.Fprintf(&b, "%s [signed-by=%s] %s %s main\n", kind, keyring, s.URI, s.Suite)
		}
	}
	return b.String()
}

// MmdebstrapOptions are options for mmdebstrap, which does not read the
// machine's apt configuration: its proxies and retries, and whether it minds
// the age of what a mirror serves.
func MmdebstrapOptions(ctx context.Context) ([]string, error) {
	dump, err := output(ctx, "apt-config", "dump", "--no-empty")
	if err != nil {
		return nil, err
	}
	var opts []string
	for line := range strings.Lines(string(dump)) {
		line = strings.TrimSuffix(strings.TrimSpace(line), ";")
		for _, prefix := range []string{"Acquire::http::", "Acquire::https::", "Acquire::Retries", "Acquire::Check-Valid-Until"} {
			if strings.HasPrefix(line, prefix) {
				opts = append(opts, "--aptopt="+line)
			}
		}
	}
	return opts, nil
}

func output(ctx context.Context, argv ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w\n%s", strings.Join(argv, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
