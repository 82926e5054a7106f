// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct{ args, operands, wrong string }{
		{"-o out FILE", "FILE", ""},
		{"FILE --many 1 -o out --many 2", "FILE", ""},
		{"", "", "FILE is missing"},
		{"a b", "", `"b" is one argument too many`},
		{"--frob", "", "there is no option --frob"},
		{"-x", "", "there is no option -x"},
		{"a -o", "", "-o needs a value"},
		{"a --threshold 0", "", `--threshold "0": it must be a number of at least 1`},
		{"a --threshold two", "", `--threshold "two": it must be a number of at least 1`},
		{"a --number 1M", "", `--number "1M": not a number`},
	} {
		p := &Program{}
		f := p.Flags("verb", "")
		f.String("o", "", "")
		f.Int("number", 0, "")
		f.Var(&List{}, "many", "")
		TrustOptions(f)
		operands, err := p.Parse(f, strings.Fields(tc.args), "FILE")
		wrong := ""
		if err != nil {
			wrong = err.Error()
		}
		if got := strings.Join(operands, " "); got != tc.operands || wrong != tc.wrong {
			t.Errorf("%q: %q, %q; want %q, %q", tc.args, got, wrong, tc.operands, tc.wrong)
		}
	}
}

func TestOptions(t *testing.T) {
	f := (&Program{}).Flags("verb", "")
	f.String("o", "", "write to `OUT`")
	f.Bool("json", false, "print JSON")
	TrustOptions(f)
	want := `  --json
        print JSON
  --keyring DIR
        DIR with the public keys to believe, *.pem and *.pub, and certificates of authorities
  -o OUT
        write to OUT
  --policy FILE
        policy FILE of a device, which says whose signatures of the keyring it takes for what
  --threshold NUMBER
        NUMBER of different keys that must have signed (default 1)
`
	if got := options(f); got != want {
		t.Errorf("options:\n%s", got)
	}
}

func TestApart(t *testing.T) {
	dir := t.TempDir()
	one, link := filepath.Join(dir, "one"), filepath.Join(dir, "link")
	if err := os.WriteFile(one, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	if err := Apart(one, "", "none", link); err == nil {
		t.Error("a link to the output is no input?")
	}
	if err := Apart(one, "", "none", dir); err != nil {
		t.Error(err)
	}
	if err := Apart("/dev/null", "/dev/null"); err != nil {
		t.Error(err)
	}
}
