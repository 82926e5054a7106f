// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, data string
		want       map[string]string
		fails      bool
	}{
		{name: "empty", data: "\x00\x00", want: map[string]string{}},
		{name: "one byte", data: "\x00", want: map[string]string{}},
		{name: "two", data: "a=1\x00b=2\x00\x00", want: map[string]string{"a": "1", "b": "2"}},
		{name: "padding is ignored", data: "a=1\x00\x00\xff\xffb=2\x00", want: map[string]string{"a": "1"}},
		{name: "value with equal signs", data: "args=a=b c=d\x00\x00", want: map[string]string{"args": "a=b c=d"}},
		{name: "the last of several counts", data: "a=1\x00a=2\x00\x00", want: map[string]string{"a": "2"}},
		{name: "an empty value removes", data: "a=1\x00a=\x00\x00", want: map[string]string{}},
		{name: "a name alone removes", data: "a=1\x00a\x00\x00", want: map[string]string{}},
		{name: "blanks before a name", data: " \ta=1\x00\x00", want: map[string]string{"a": "1"}},
		{name: "comment", data: "#a=1\x00b=2\x00\x00", want: map[string]string{"b": "2"}},
		{name: "neither name nor value", data: "=\x00b=2\x00\x00", want: map[string]string{"b": "2"}},
		{name: "a value without a name", data: "=x\x00\x00", fails: true},
		{name: "no end", data: "a=1\x00", fails: true},
		{name: "no NUL", data: "a=1", fails: true},
		{name: "nothing", data: "", fails: true},
		{name: "an empty string first", data: "\x00a=1\x00\x00", fails: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env, err := Parse([]byte(tc.data))
			if tc.fails {
				if !errors.Is(err, ErrMalformed) || env != nil {
					t.Fatalf("Parse = %v, %v; want nil, ErrMalformed", env, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, env.Vars()); diff != "" {
				t.Error(diff)
			}
			for name, value := range tc.want {
				if got := env.Get(name); got != value {
					t.Errorf("Get(%q) = %q; want %q", name, got, value)
				}
			}
		})
	}
}

func TestSetKeepsWhatItDoesNotUnderstand(t *testing.T) {
	env, err := Parse([]byte("z=26\x00# note\x00odd\x00a=1\x00m=old\x00.flags=m:sw\x00m=newer\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range [][2]string{{"m", "13"}, {"a", ""}, {"new", "x y"}, {"none", ""}} {
		if err := env.Set(s[0], s[1]); err != nil {
			t.Fatal(err)
		}
	}
	data, err := env.Encode(64)
	if err != nil {
		t.Fatal(err)
	}
	want := "z=26\x00# note\x00odd\x00.flags=m:sw\x00m=13\x00new=x y\x00\x00"
	if got := string(data); got != want+strings.Repeat("\x00", 64-len(want)) {
		t.Errorf("Encode = %q; want %q and padding", got, want)
	}
}

func TestSetRefuses(t *testing.T) {
	for name, value := range map[string]string{
		"": "x", "a=b": "x", "#a": "x", "a b": "x", "a\x00": "x", "ä": "x", "a\n": "x",
		strings.Repeat("n", 257): "x", "nul": "a\x00b",
	} {
		env := &Env{entries: []string{"k=v"}}
		if err := env.Set(name, value); err == nil {
			t.Errorf("Set(%q, %q) = nil", name, value)
		}
		if diff := cmp.Diff(map[string]string{"k": "v"}, env.Vars()); diff != "" {
			t.Errorf("a refused Set changed the environment: %s", diff)
		}
	}
}

func TestEncodeTooLarge(t *testing.T) {
	env := &Env{}
	if err := env.Set("name", "0123456789"); err != nil {
		t.Fatal(err)
	}
	if _, err := env.Encode(17); err != nil {
		t.Errorf("Encode(17) = %v; the 15 bytes, their NUL and the end fit", err)
	}
	if _, err := env.Encode(16); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Encode(16) = %v; want ErrTooLarge", err)
	}
}

// drawEnv makes an environment of plausible names and values.
func drawEnv(t *rapid.T) *Env {
	env := &Env{}
	for name, value := range rapid.MapOf(
		rapid.StringMatching(`[a-zA-Z0-9_.-]{1,12}`), rapid.StringMatching(`[ -~]{1,40}`)).Draw(t, "vars") {
		if err := env.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	return env
}

func TestEnvRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		env := drawEnv(t)
		data, err := env.Encode(env.Len() + rapid.IntRange(0, 50).Draw(t, "room"))
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		if !back.Same(env) {
			t.Fatalf("%v became %v", env.Vars(), back.Vars())
		}
		if diff := cmp.Diff(env.entries, back.entries); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzEnv(f *testing.F) {
	for _, seed := range []string{"\x00\x00", "a=1\x00b=2\x00\x00\xff\xff", "=x\x00\x00", " a=1\x00#c\x00a\x00\x00", "a=\x00a=\\\x00\x00"} {
		f.Add([]byte(seed), "boot_slot", "b")
	}
	f.Fuzz(func(t *testing.T, data []byte, name, value string) {
		env, err := Parse(data)
		if err != nil {
			if env != nil {
				t.Fatal("an environment and an error")
			}
			return
		}
		size := max(len(data), env.Len())
		again, err := env.Encode(size)
		if err != nil {
			t.Fatal(err)
		}
		// The bytes up to the end mark are kept exactly; padding becomes NUL.
		if n := env.Len() - 1; len(env.entries) > 0 && !bytes.Equal(again[:n], data[:n]) {
			t.Fatalf("%q became %q", data[:n], again[:n])
		}
		back, err := Parse(again)
		if err != nil || !cmp.Equal(env.entries, back.entries) {
			t.Fatalf("Parse(Encode) = %v, %v; want %v", back, err, env)
		}
		before := env.Vars()
		if env.Set(name, value) != nil {
			return
		}
		if got := env.Get(name); got != value {
			t.Fatalf("Get(%q) after Set = %q; want %q", name, got, value)
		}
		delete(before, name)
		after := env.Vars()
		delete(after, name)
		if diff := cmp.Diff(before, after); diff != "" {
			t.Fatalf("Set(%q) changed other variables: %s", name, diff)
		}
	})
}
