// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/BurntSushi/toml"
)

// Bounds of a policy file.
const (
	maxPolicy  = 256 << 10 // bytes
	maxRules   = 32
	maxSigners = 64
	maxOrigin  = 256 // bytes
)

// policyFile is docs/security.md#policy-file.
type policyFile struct {
	Revoked []string              `toml:"revoked"`
	Denied  []string              `toml:"denied"`
	Signers map[string]fileSigner `toml:"signers"`
	Logs    map[string]fileLog    `toml:"logs"`
	Rules   []fileRule            `toml:"rule"`
}

type fileLog struct {
	File   string `toml:"file"`
	Origin string `toml:"origin"`
}

type fileSigner struct {
	File      string `toml:"file"`
	ID        string `toml:"id"`
	NotBefore moment `toml:"not_before"`
	NotAfter  moment `toml:"not_after"`
	Subject   string `toml:"subject"`
}

// A moment is a time with a zone. The decoder would take what has none for the
// zone of this machine.
type moment struct{ time.Time }

func (m *moment) UnmarshalTOML(v any) error {
	at, ok := v.(time.Time)
	if !ok || strings.HasSuffix(at.Location().String(), "-local") {
		return errors.New("want a full time with a zone, such as 2029-01-01T00:00:00Z")
	}
	m.Time = at.UTC()
	return nil
}

type fileRule struct {
	Classes   []string `toml:"classes"`
	Channels  []string `toml:"channels"`
	Signers   []string `toml:"signers"`
	Logs      []string `toml:"logs"`
	Threshold int      `toml:"threshold"`
}

// policyKeys are the keys of a policy file; "*" stands for any name.
var policyKeys = []string{
	"revoked", "denied",
	"signers", "signers.*", "signers.*.file", "signers.*.id", "signers.*.not_before", "signers.*.not_after", "signers.*.subject",
	"logs", "logs.*", "logs.*.file", "logs.*.origin",
	"rule", "rule.classes", "rule.channels", "rule.signers", "rule.logs", "rule.threshold",
}

// LoadPolicy reads a policy file about the keys and certificates of a keyring.
func LoadPolicy(path string, keyring *Keyring) (*Policy, error) {
	b, err := readSmall(path, maxPolicy)
	if err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	p, err := ParsePolicy(b, keyring)
	if err != nil {
		return nil, fmt.Errorf("load policy %s: %w", path, err)
	}
	return p, nil
}

// ParsePolicy is LoadPolicy of the content of a file. It fails closed: a key that
// it does not know, a name that is nowhere defined, or a rule that nobody could
// meet is an error.
func ParsePolicy(b []byte, keyring *Keyring) (*Policy, error) {
	p, err := parsePolicy(b, keyring)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	return p, nil
}

func parsePolicy(b []byte, keyring *Keyring) (*Policy, error) {
	if len(b) > maxPolicy {
		return nil, fmt.Errorf("more than %d bytes", maxPolicy)
	}
	if keyring == nil {
		return nil, errors.New("there is no keyring")
	}
	var f policyFile
	meta, err := toml.Decode(string(b), &f)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "toml: "))
	}
	// The decoder passes over what it does not know, and over upper and lower case.
	for _, key := range meta.Keys() {
		if !slices.ContainsFunc(policyKeys, func(known string) bool { return spelt(known, key) }) {
			return nil, fmt.Errorf("unknown key %s", key)
		}
	}
	p := &Policy{keyring: keyring, revoked: f.Revoked, denied: f.Denied}
	for _, id := range f.Revoked {
		if !isKeyID(id) {
			return nil, fmt.Errorf("revoked: %.80q is no key id, which has 64 lower-case hex digits", id)
		}
	}
	for _, digest := range f.Denied {
		if hex, found := strings.CutPrefix(digest, "sha256:"); !found || !isKeyID(hex) {
			return nil, fmt.Errorf("denied: %.80q is no digest, such as \"updater-bundle info\" shows: sha256: and 64 lower-case hex digits", digest)
		}
	}
	signers, err := f.signers(keyring)
	if err != nil {
		return nil, err
	}
	if p.logs, err = f.logs(keyring); err != nil {
		return nil, err
	}
	if n := len(f.Rules); n == 0 || n > maxRules {
		return nil, fmt.Errorf("%d rules, want 1 to %d; write [[rule]], with signers and threshold", n, maxRules)
	}
	for i, r := range f.Rules {
		made, err := r.rule(signers, p.logs, p.revoked)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		made.number = i + 1
		p.rules = append(p.rules, *made)
	}
	return p, nil
}

func spelt(known string, key toml.Key) bool {
	parts := strings.Split(known, ".")
	return slices.EqualFunc(parts, key, func(part, name string) bool { return part == "*" || part == name })
}

// isKeyID reports whether s has the form of a key id.
func isKeyID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && s == strings.ToLower(s)
}

func (f *policyFile) signers(keyring *Keyring) (map[string]party, error) {
	if len(f.Signers) > maxSigners {
		return nil, fmt.Errorf("more than %d signers", maxSigners)
	}
	signers := make(map[string]party)
	owner := make(map[string]string) // of a key, by its id
	for _, name := range slices.Sorted(maps.Keys(f.Signers)) {
		s, err := f.Signers[name].party(keyring)
		if err == nil && s.key != "" && owner[s.key] != "" {
			err = fmt.Errorf("it has the same key as signer %q", owner[s.key])
		}
		if err == nil {
			err = checkName(name)
		}
		if err != nil {
			return nil, fmt.Errorf("signer %.80q: %w", name, err)
		}
		s.name = name
		signers[name] = *s
		if s.key != "" {
			owner[s.key] = name
		}
	}
	return signers, nil
}

func (f fileSigner) party(keyring *Keyring) (*party, error) {
	s := &party{notBefore: f.NotBefore.Time, notAfter: f.NotAfter.Time, subject: f.Subject}
	switch {
	case (f.File == "") == (f.ID == ""):
		return nil, errors.New("either file or id must say which one of the keyring it is")
	case f.ID != "":
		if _, found := keyring.find(f.ID); !found {
			return nil, fmt.Errorf("the keyring has no key with the id %.80q", f.ID)
		}
		s.key = f.ID
	default:
		// Only names that were found in the directory are known, so none can lead out of it.
		var found bool
		if s.member, found = keyring.files[f.File]; !found {
			return nil, fmt.Errorf("the keyring has no file %.80q", f.File)
		}
	}
	limited := !f.NotBefore.IsZero() || !f.NotAfter.IsZero()
	switch {
	case !f.NotAfter.IsZero() && !f.NotAfter.After(f.NotBefore.Time):
		return nil, errors.New("not_after is not later than not_before")
	case s.authority != nil && limited:
		return nil, errors.New("not_before and not_after are for keys; certificates have their own")
	case s.authority == nil && f.Subject != "":
		return nil, errors.New("subject is for certificates; this is a key")
	}
	return s, nil
}

// logs lists the logs that are not revoked.
func (f *policyFile) logs(keyring *Keyring) ([]transparencyLog, error) {
	if len(f.Logs) > maxLogs {
		return nil, fmt.Errorf("more than %d logs", maxLogs)
	}
	var logs []transparencyLog
	for _, name := range slices.Sorted(maps.Keys(f.Logs)) {
		l := f.Logs[name]
		key, found := keyring.logs[l.File]
		err := checkName(name)
		switch {
		case err != nil:
		case !found:
			err = fmt.Errorf("the keyring has no file %.80q with the key of a log; its name must end in %s", l.File, logKeyFile)
		case l.Origin == "" || len(l.Origin) > maxOrigin || strings.ContainsFunc(l.Origin, unicode.IsControl):
			err = errors.New("origin must be what the log calls itself, the first line of its checkpoints")
		case slices.Contains(keyring.KeyIDs(), key.id):
			err = errors.New("its key is that of a signer too; a log needs one of its own")
		}
		if err != nil {
			return nil, fmt.Errorf("log %.80q: %w", name, err)
		}
		if !slices.Contains(f.Revoked, key.id) {
			logs = append(logs, transparencyLog{trustedKey: key, name: name, origin: l.Origin})
		}
	}
	return logs, nil
}

func (f fileRule) rule(signers map[string]party, logs []transparencyLog, revoked []string) (*rule, error) {
	r := &rule{classes: f.Classes, channels: f.Channels, threshold: f.Threshold, logs: f.Logs}
	for _, list := range []struct {
		what  string
		names []string
	}{{"classes", f.Classes}, {"channels", f.Channels}, {"signers", f.Signers}, {"logs", f.Logs}} {
		if list.names != nil && len(list.names) == 0 {
			return nil, fmt.Errorf("%s is empty; leave it out to mean all", list.what)
		}
		for i, name := range list.names {
			if err := checkName(name); err != nil {
				return nil, fmt.Errorf("%s: %w", list.what, err)
			}
			if slices.Contains(list.names[:i], name) {
				return nil, fmt.Errorf("%s: %q is there twice", list.what, name)
			}
		}
	}
	if f.Threshold < 1 || f.Threshold > MaxSignatures {
		return nil, fmt.Errorf("threshold is %d; it must be between 1 and %d keys", f.Threshold, MaxSignatures)
	}
	for _, name := range f.Logs {
		if !slices.ContainsFunc(logs, func(l transparencyLog) bool { return l.name == name }) {
			return nil, fmt.Errorf("there is no log %q whose key is not revoked; write [logs.%s]", name, name)
		}
	}
	keys, open := 0, false
	for _, name := range f.Signers {
		s, found := signers[name]
		if !found {
			return nil, fmt.Errorf("there is no signer %q; write [signers.%s]", name, name)
		}
		r.signers = append(r.signers, s)
		open = open || s.authority != nil
		if s.authority == nil && !slices.Contains(revoked, s.key) {
			keys++
		}
	}
	if !open && keys < f.Threshold {
		return nil, fmt.Errorf("its signers have %d keys that are not revoked, and %d must have signed: no release could be installed", keys, f.Threshold)
	}
	return r, nil
}

// checkName is for what people call signers, classes and channels.
func checkName(s string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	if s == "" || len(s) > 64 || strings.Trim(s, allowed) != "" {
		return fmt.Errorf("%.80q: want letters, digits, dot, dash and underscore, at most 64", s)
	}
	return nil
}
