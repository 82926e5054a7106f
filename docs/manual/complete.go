// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"maps"
	"slices"
	"strings"
)

// Completion is the script that completes the program in bash. It needs nothing
// but bash itself.
func Completion(p Program) string {
	b := &page{}
	function := "_" + strings.ReplaceAll(p.Name, "-", "_")
	b.line("# SPDX-License-Identifier: Apache-2.0\n# Made from what the program says about itself; see docs/manual.\n")
	b.line(`%s() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= word
    local words= files=
    COMPREPLY=()
    # bash splits --mode=store at the equals sign
    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi`, function)
	if len(p.Commands) == 0 {
		names, _ := p.options()
		b.line("    words=%q files=yes", strings.Join(with("--help", names), " "))
	} else {
		b.commands(p)
	}
	b.line(`    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    if [[ $files && $cur != -* ]]; then
        compopt -o filenames 2>/dev/null
        local file
        while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$cur")
    fi
}
complete -F %s %s`, function, p.Name)
	return b.String()
}

func (b *page) commands(p Program) {
	var names []string
	for _, c := range p.Commands {
		names = append(names, c.Name)
	}
	list := strings.Join(names, " ")
	b.line(`    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in help|%s) command=$word; break ;; esac
    done`, strings.Join(names, "|"))
	first := []string{"help"}
	for _, o := range p.section("Options").Entries {
		first = append(first, strings.Fields(o.Term)[0])
	}
	if len(first) == 1 { // nothing stands before the command
		b.line("    if [[ ! $command ]] && ((COMP_CWORD > 1)); then return; fi")
	}
	b.line("    case $command in")
	b.line("        '') words=%q ;;", strings.Join(append(first, names...), " "))
	b.line("        help) words=%q ;;", list)
	for _, c := range p.Commands {
		names, values := c.options()
		b.line("        %s)\n            words=%q", c.Name, strings.Join(append(with("--help", names), c.Words...), " "))
		if c.Files {
			b.line("            files=yes")
		}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			b.line("            if [[ $prev == %s ]]; then words=%q files=; fi", name, strings.Join(values[name], " "))
		}
		b.line("            ;;")
	}
	b.line("    esac")
}

func with(first string, rest []string) []string {
	return append([]string{first}, slices.DeleteFunc(slices.Clone(rest), func(s string) bool { return s == first })...)
}
