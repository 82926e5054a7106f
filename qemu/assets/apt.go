// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/updaterd/updaterd/bundle/bench/debian"
)

// Packages is a set of package versions.
type Packages string

// The two sets differ as a system differs from itself after some months.
const (
	// Base is the release as of its last point release.
	Base Packages = "base"
	// Updated is Base with its security and other updates.
	Updated Packages = "updated"
)

// suites are those that a set of packages comes from.
func (p Packages) suites() []string {
	if p == Base {
		return []string{debian.Main}
	}
	return []string{debian.Main, debian.Updates, debian.Security}
}

// An aptState is apt with its own lists, for another architecture, beside the machine's.
type aptState struct{ dir, config string }

// newApt makes an aptState in dir and fetches the lists of packages for an
// architecture by Debian's name.
func newApt(ctx context.Context, dir string, set Packages, arch string) (*aptState, error) {
	all, err := debian.Sources(ctx)
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
	config := fmt.Sprintf(`APT::Architecture %q;
APT::Architectures { %q; };
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
`, arch, arch, dir, dir+"/lists", dir+"/status", dir, dir+"/sources.list")
	for name, text := range map[string]string{
		"apt.conf":     config,
		"status":       "",
		"sources.list": debian.List("deb", all, set.suites()...) + debian.List("deb-src", all, set.suites()...),
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
	dir, err := os.MkdirTemp(a.dir, "debs-*")
	if err != nil {
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
