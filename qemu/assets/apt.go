// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// release is the Debian release that the guests run and U-Boot is built from.
const release = "bookworm"

// keyring verifies what the mirrors serve.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Packages is a set of package versions.
type Packages string

// The two sets differ as a system differs from itself after some months.
const (
	// Base is the release as of its last point release.
	Base Packages = "base"
	// Updated is Base with its security and other updates.
	Updated Packages = "updated"
)

// A source is one archive of the release.
type source struct{ uri, suite string }

// sources asks the machine's apt for the mirrors of the release. Only Debian's
// own archives count, whatever else the machine uses.
func sources(ctx context.Context) ([]source, error) {
	out, err := run(ctx, command{argv: []string{"apt-get", "indextargets", "--format",
		"$(ORIGIN)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages"}})
	if err != nil {
		return nil, err
	}
	found, err := parseSources(string(out))
	if err != nil {
		return nil, fmt.Errorf("read apt's configuration: %w", err)
	}
	return found, nil
}

func parseSources(targets string) ([]source, error) {
	found := map[string]source{}
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
			found[suite] = source{uri: uri, suite: suite}
		}
	}
	if _, ok := found[release]; !ok {
		return nil, errors.New("no source of Debian " + release + ", component main; add one to /etc/apt/sources.list.d")
	}
	var list []source
	for _, suite := range suites {
		if s, ok := found[suite]; ok {
			list = append(list, s)
		}
	}
	return list, nil
}

var suites = []string{release, release + "-updates", release + "-security"}

// sourcesList is the text of a sources.list for one set of packages.
func sourcesList(all []source, set Packages, kind string) string {
	var b strings.Builder
	for _, s := range all {
		if set == Base && s.suite != release {
			continue
		}
		fmt.Fprintf(&b, "%s [signed-by=%s] %s %s main\n", kind, keyring, s.uri, s.suite)
	}
	return b.String()
}

// An aptState is apt with its own lists, for another architecture, beside the machine's.
type aptState struct{ dir, config string }

// newApt makes an aptState in dir and fetches the lists of packages.
func newApt(ctx context.Context, dir string, set Packages) (*aptState, error) {
	all, err := sources(ctx)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	a := &aptState{dir: dir, config: filepath.Join(dir, "apt.conf")}
	// Read after the machine's own configuration, so that its proxies stay in force.
	config := fmt.Sprintf(`APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Dir::State %q;
Dir::State::lists %q;
Dir::State::status %q;
Dir::Cache %q;
Dir::Etc::sourcelist %q;
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
`, dir, dir+"/lists", dir+"/status", dir, dir+"/sources.list")
	for name, text := range map[string]string{
		"apt.conf":     config,
		"status":       "",
		"sources.list": sourcesList(all, set, "deb") + sourcesList(all, set, "deb-src"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	_, err = a.run(ctx, "", "apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any")
	return a, err
}

func (a *aptState) run(ctx context.Context, dir string, argv ...string) ([]byte, error) {
	argv = append([]string{argv[0], "-c", a.config}, argv[1:]...)
	return run(ctx, command{dir: dir, argv: argv})
}

// download fetches packages by name and returns the files.
func (a *aptState) download(ctx context.Context, names ...string) ([]string, error) {
	dir := filepath.Join(a.dir, "debs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if _, err := a.run(ctx, dir, append([]string{"apt-get", "-q", "download"}, names...)...); err != nil {
		return nil, err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err == nil && len(debs) < len(names) {
		err = fmt.Errorf("download packages: asked for %d, got %d", len(names), len(debs))
	}
	return debs, err
}
