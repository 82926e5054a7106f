// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"
)

// A Review is what a signer wants to know before it signs.
type Review struct {
	show   bool
	digest string
}

// ReviewOptions adds the options to a command that signs.
func ReviewOptions(f *flag.FlagSet) *Review {
	r := &Review{}
	f.BoolVar(&r.show, "review", false, "show what is to be signed, and ask at the terminal before signing it")
	f.StringVar(&r.digest, "digest", "", "sign only what has this `DIGEST`, sha256:..., and ask nobody")
	return r
}

// Digest names a payload in a review, as bundles are named by that of their manifest.
func Digest(payload []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(payload)) }

// Confirm is an error unless the payload with the digest got may be signed. It
// comes before a key is loaded: who signs sees what for before they type a
// passphrase. show writes the payload for a person.
func (r *Review) Confirm(ctx context.Context, p *Program, got string, show func(io.Writer) error) error {
	if r.digest != "" && !strings.EqualFold(r.digest, got) {
		return fmt.Errorf("not signed: what there is to sign has the digest %s, and --digest asks for %q", got, r.digest)
	}
	if !r.show {
		return nil
	}
	if err := show(p.Stderr); err != nil {
		return err
	}
	if r.digest != "" {
		return nil
	}
	if !term.IsTerminal(int(p.Stdin.Fd())) {
		return fmt.Errorf("not signed: no terminal to ask at; if it is what you want to sign, give --digest %s", got)
	}
	fmt.Fprint(p.Stderr, "\nSign this? Type yes: ")
	answer, err := p.line(ctx)
	if err != nil {
		return fmt.Errorf("not signed: %w", err)
	}
	if answer != "yes" {
		return errors.New("not signed: the answer was not yes")
	}
	return nil
}

// line reads what is typed, until the context ends.
func (p *Program) line(ctx context.Context) (string, error) {
	type answer struct {
		text string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		text, err := bufio.NewReader(io.LimitReader(p.Stdin, 100)).ReadString('\n')
		answered <- answer{strings.TrimSpace(text), err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case a := <-answered:
		return a.text, a.err
	}
}
