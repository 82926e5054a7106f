// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
)

// Options says where the environment is.
type Options struct {
	// Config is the path of fw_env.config, "/etc/fw_env.config" unless given.
	Config string
	// LockFile is what the configuration names, or DefaultLockFile, unless given.
	LockFile string
	// Scheme is the one that the environment follows unless given.
	Scheme Scheme
}

// DefaultConfig is where U-Boot's tools look for their configuration.
const DefaultConfig = "/etc/fw_env.config"

// Control is [bootctl.Control] on U-Boot's environment.
type Control struct {
	store  Store
	scheme Scheme
	// unsure is the copy, plus 1, whose last write failed: it may be read and not be
	// on the medium yet. Only who keeps others out looks at it.
	unsure int
}

var _ bootctl.Control = (*Control)(nil)

// Open reads fw_env.config and finds the copies of the environment.
func Open(o Options) (*Control, error) {
	if o.Config == "" {
		o.Config = DefaultConfig
	}
	config, lock, err := ReadConfig(o.Config)
	if err != nil {
		return nil, err
	}
	store, err := OpenStore(config, cmp.Or(o.LockFile, lock))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Config, err)
	}
	return NewScheme(store, o.Scheme)
}

// ReadConfig reads the fw_env.config at path.
func ReadConfig(path string) (config Config, lockFile string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("read fw_env.config: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxConfig+1))
	if err != nil {
		return nil, "", fmt.Errorf("read fw_env.config: %w", err)
	}
	if config, lockFile, err = ParseConfig(text); err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	return config, lockFile, nil
}

// New uses the environment in store, and the scheme that it follows.
func New(store Store) *Control { return &Control{store: store} }

// NewScheme uses the environment in store with a scheme.
func NewScheme(store Store, s Scheme) (*Control, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return &Control{store: store, scheme: s}, nil
}

// Place says where the copies are and how large they are: what else
// fw_env.config could say is another place.
func (c *Control) Place() string {
	size, n := c.store.Geometry()
	where := make([]string, n)
	for i := range n {
		where[i] = c.store.Where(i)
	}
	return fmt.Sprintf("%s, of %#x bytes", strings.Join(where, " and "), size)
}

// Env returns the environment that is in force.
func (c *Control) Env() (*Env, error) {
	s, err := c.readShared()
	if err != nil {
		return nil, err
	}
	return s.env, nil
}

// Update changes variables in one write: it hands the environment in force to
// change and stores the result. If change returns an error, or changes nothing,
// nothing is written. With both, the other copy is then brought to the same
// content in a write of its own, unless it has it already.
func (c *Control) Update(both bool, change func(*Env) error) error {
	release, err := c.store.Lock(true)
	if err != nil {
		return err
	}
	defer release()
	// Read under the lock, and anew each time: fw_setenv may have written since,
	// and U-Boot has, if it counted a start.
	s, err := c.read()
	if err != nil {
		return err
	}
	next := s.env.Clone()
	if err := change(next); err != nil {
		return err
	}
	// To find a copy whose flush failed is no proof that it stays there. It is written
	// once more where it is, while the other one is intact; otherwise the other one is
	// written, because a cut must not find both half written.
	_, n := c.store.Geometry()
	unsure := c.unsure == s.current+1
	if unsure && s.intact == n {
		if err := c.rewrite(s); err != nil {
			return err
		}
		unsure = false
	}
	if unsure || !next.Same(s.env) {
		if err := c.write(s, next); err != nil {
			return err
		}
		if !both {
			return nil
		}
		if s, err = c.read(); err != nil {
			return err
		}
	}
	if !both || s.alike {
		return nil
	}
	// Only now that the first is safe: the older copy becomes the newest, with
	// the content that the other one already has.
	return c.write(s, s.env)
}

// state is what the store held when it was read.
type state struct {
	env     *Env
	current int  // index of the copy in force
	flag    byte // its flag
	intact  int  // how many copies are
	alike   bool // all copies are intact and hold the same variables
}

func (c *Control) readShared() (state, error) {
	release, err := c.store.Lock(false)
	if err != nil {
		return state{}, err
	}
	defer release()
	return c.read()
}

// read takes no lock: its callers hold it.
func (c *Control) read() (state, error) {
	size, n := c.store.Geometry()
	var copies [2]Copy
	var faults [2]string
	for i := range n {
		image, err := c.store.ReadCopy(i)
		switch {
		case errors.Is(err, ErrUnreadable):
			faults[i] = err.Error()
		case err != nil:
			return state{}, fmt.Errorf("read boot environment: %w", err)
		case len(image) != size:
			return state{}, fmt.Errorf("read boot environment: internal error: a copy of %d bytes where %d belong", len(image), size)
		default:
			copies[i] = DecodeCopy(image, n == 2)
			faults[i] = c.describe(i, image, n)
		}
	}
	s := state{current: c.store.Traits().Flags.Select(copies[0], copies[1])}
	if s.current < 0 {
		return state{}, damaged(faults[:n])
	}
	s.flag = copies[s.current].Flag
	env, err := Parse(copies[s.current].Data)
	if err != nil {
		// U-Boot does not try the other copy either, but starts with its defaults.
		return state{}, damaged([]string{fmt.Sprintf("%s has a good checksum and is in force, but: %v", c.store.Where(s.current), err)})
	}
	s.env = env
	s.alike = true
	for i := range n {
		if !copies[i].Valid {
			s.alike = false
			continue
		}
		s.intact++
		other, err := Parse(copies[i].Data)
		s.alike = s.alike && err == nil && other.Same(env)
	}
	return s, nil
}

// write stores env in the copy that is not in force and makes sure of it. When
// it returns nil, that copy is in force.
func (c *Control) write(s state, env *Env) error {
	size, n := c.store.Geometry()
	flags := c.store.Traits().Flags
	target := (s.current + 1) % n
	image, err := EncodeCopy(env, flags.Next(s.flag), size, n == 2)
	if err != nil {
		return fmt.Errorf("change boot environment: %w", err)
	}
	// Commit point: before this write the old environment is in force, after it
	// the new one; a torn write fails its checksum, and the old one stays.
	if err := c.put(target, image); err != nil {
		return fmt.Errorf("change boot environment: %w", err)
	}
	if n == 1 || flags != ActiveObsolete {
		return nil
	}
	// On NOR flash both copies are active now, and the first one is in force: if
	// that is the new one, the write above was the commit point; if not, this is
	// it. Both are intact, so a cut between the two leaves the old environment or
	// the new one, and U-Boot and every later change see the same of them.
	if err := c.store.Obsolete(s.current); err != nil {
		return fmt.Errorf("change boot environment: %w", err)
	}
	old, err := c.store.ReadCopy(s.current)
	if err != nil {
		return fmt.Errorf("change boot environment: read back: %w", err)
	}
	if DecodeCopy(old, true).Flag != 0 {
		return fmt.Errorf("change boot environment: the flag of %s could not be cleared: the flash is failing or write-protected", c.store.Where(s.current))
	}
	return nil
}

// rewrite writes the copy in force as it is.
func (c *Control) rewrite(s state) error {
	size, n := c.store.Geometry()
	image, err := EncodeCopy(s.env, s.flag, size, n == 2)
	if err == nil {
		err = c.put(s.current, image)
	}
	if err != nil {
		return fmt.Errorf("write boot environment again: %w", err)
	}
	return nil
}

// put writes one copy and reads it back.
func (c *Control) put(i int, image []byte) error {
	c.unsure = i + 1
	if err := c.store.WriteCopy(i, image); err != nil {
		return err
	}
	back, err := c.store.ReadCopy(i)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(back, image) {
		return fmt.Errorf("%s holds something else than what was written and synced: the medium is failing or write-protected", c.store.Where(i))
	}
	c.unsure = 0
	return nil
}

// damaged is the error for an environment of which no copy can be used.
func damaged(faults []string) error {
	return fmt.Errorf("read boot environment: %w: %s; nothing was written: check that the offsets, the size and the number of copies in fw_env.config are U-Boot's; "+
		"if they are, run \"updater-bootctl restore\" with U-Boot's default environment, or \"saveenv\" at U-Boot's prompt", bootctl.ErrDamaged, strings.Join(faults, "; "))
}

// describe says what is wrong with a copy whose checksum does not fit.
func (c *Control) describe(i int, image []byte, copies int) string {
	what := "the checksum does not fit"
	switch {
	case uniform(image, 0xff), uniform(image, 0):
		what = "nothing was ever stored there"
	case DecodeCopy(image, copies == 1).Valid && copies == 1:
		what = "it is one of two copies, but fw_env.config names only one"
	case DecodeCopy(image, copies == 1).Valid:
		what = "it is stored without redundancy, but fw_env.config names two copies"
	}
	return c.store.Where(i) + ": " + what
}

func uniform(b []byte, value byte) bool {
	return bytes.Count(b, []byte{value}) == len(b)
}
