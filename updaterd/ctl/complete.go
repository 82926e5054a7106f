// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"strings"
)

// completion is the script that completes updaterctl in bash. It needs nothing
// but bash itself.
func completion() string {
	var b strings.Builder
	b.WriteString("# SPDX-License-Identifier: Apache-2.0\n" +
		"# Made from the commands' own descriptions; see updaterd/ctl.\n\n" +
		"_updaterctl() {\n" +
		"    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}\n" +
		"    local words= files=\n" +
		"    COMPREPLY=()\n" +
		"    # bash splits --mode=store at the equals sign\n" +
		"    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi\n" +
		"    if ((COMP_CWORD == 1)); then\n")
	names := []string{"help"}
	for _, c := range commands() {
		names = append(names, c.name)
	}
	fmt.Fprintf(&b, "        words=%q\n    else\n        case $command in\n", strings.Join(names, " "))
	fmt.Fprintf(&b, "        help) words=%q ;;\n", strings.Join(names[1:], " "))
	for _, c := range commands() {
		options := []string{"--help"}
		for _, o := range c.allOptions() {
			options = append(options, "--"+o.name)
		}
		fmt.Fprintf(&b, "        %s)\n            words=%q\n", c.name, strings.Join(append(options, c.words...), " "))
		if c.files {
			b.WriteString("            files=yes\n")
		}
		for _, o := range c.options {
			if o.values != nil {
				fmt.Fprintf(&b, "            if [[ $prev == --%s ]]; then words=%q files=; fi\n", o.name, strings.Join(o.values, " "))
			}
		}
		b.WriteString("            ;;\n")
	}
	b.WriteString("        esac\n    fi\n" +
		"    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n" +
		"    if [[ $files && $cur != -* ]]; then\n" +
		"        compopt -o filenames 2>/dev/null\n" +
		"        local file\n" +
		"        while IFS= read -r file; do COMPREPLY+=(\"$file\"); done < <(compgen -f -- \"$cur\")\n" +
		"    fi\n" +
		"}\n" +
		"complete -F _updaterctl updaterctl\n")
	return b.String()
}
