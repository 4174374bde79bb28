package cli

import (
	"fmt"
	"strings"
)

// bashScript returns the script for bash. Its function goes through the words before the cursor, so that it knows at which
// command it is, and whether a flag waits for its value, and offers what may follow. What it does not know, such as
// the names of files, is bash's own.
func bashScript(program string, levels []level) string {
	return fmt.Sprintf("# Completion of %[1]s for bash: source this, or install it as\n"+
		"# /usr/share/bash-completion/completions/%[1]s\n", program) +
		shellFunction(program, levels) + fmt.Sprintf("complete -o default -F _complete_%[1]s %[1]s\n", program)
}

// zshScript returns the same for zsh, which has bash's functions.
func zshScript(program string, levels []level) string {
	return fmt.Sprintf("# Completion of %s for zsh: source this after compinit.\nautoload -U +X bashcompinit && bashcompinit\n", program) +
		shellFunction(program, levels) + fmt.Sprintf("complete -o default -F _complete_%[1]s %[1]s\n", program)
}

const shellTemplate = `_complete_@PROGRAM@() {
  local cur=${COMP_WORDS[COMP_CWORD]} at= given= prefix= words= word= i=
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    if [[ $word == '=' ]]; then # bash takes it for a word
      continue
    elif [[ -n $given ]]; then
      given=
      continue
    fi
    case "$at $word" in
@COMMANDS@) at=$at/$word ;;
@VALUES@) given=$word ;;
    esac
  done
  if [[ $cur == '=' ]]; then
    cur=
  elif [[ -z $given && $cur == --*=* ]]; then
    given=${cur%%=*}
    prefix=$given=
    cur=${cur#*=}
  fi
  if [[ -n $given ]]; then
    case "$at $given" in
@CHOICES@    esac
  elif [[ $cur == -* ]]; then
    case "$at" in
@FLAGS@    esac
  else
    case "$at" in
@WORDS@    esac
  fi
  if [[ -n $words ]]; then
    COMPREPLY=($(compgen -P "$prefix" -W "$words" -- "$cur"))
  fi
}
`

// shellFunction returns the function. Commands, flags and choices are words of letters, digits and dashes.
func shellFunction(program string, levels []level) string {
	var commands, values []string
	var choice, flag, word strings.Builder
	for _, l := range levels {
		var flags, words []string
		for _, c := range l.commands {
			commands = append(commands, quoted(l.at+" "+c.Name))
			words = append(words, c.Name)
		}
		if len(l.args) > 0 {
			words = append(words, choices(l.args[0])...)
		}
		for _, f := range l.flags {
			names := spellings(f)
			flags = append(flags, names...)
			if !takesValue(f) {
				continue
			}
			for _, name := range names {
				values = append(values, quoted(l.at+" "+name))
				if of := choices(f.Value); of != nil {
					fmt.Fprintf(&choice, "    %s) words=%s ;;\n", quoted(l.at+" "+name), quoted(strings.Join(of, " ")))
				}
			}
		}
		fmt.Fprintf(&flag, "    %s) words=%s ;;\n", quoted(l.at), quoted(strings.Join(flags, " ")))
		if len(words) > 0 {
			fmt.Fprintf(&word, "    %s) words=%s ;;\n", quoted(l.at), quoted(strings.Join(words, " ")))
		}
	}
	return strings.NewReplacer("@PROGRAM@", program, "@COMMANDS@", patterns(commands), "@VALUES@", patterns(values),
		"@CHOICES@", choice.String(), "@FLAGS@", flag.String(), "@WORDS@", word.String()).Replace(shellTemplate)
}

// patterns returns the patterns of a case, one a line.
func patterns(all []string) string { return "    " + strings.Join(all, " | \\\n    ") }

// quoted returns text in quotes that shells take as it is.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

const fishTemplate = `# Completion of @PROGRAM@ for fish: install it as ~/.config/fish/completions/@PROGRAM@.fish
function __complete_@PROGRAM@ # whether the words before the cursor are of this command, and no flag waits for its value
    set -l at ''
    set -l given ''
    set -l words (commandline -opc)
    for word in $words[2..-1]
        if test -n "$given"
            set given ''
            continue
        end
        switch "$at $word"
            case @COMMANDS@
                set at "$at/$word"
            case @VALUES@
                set given $word
        end
    end
    test "$at" = "$argv[1]"
end
complete -c @PROGRAM@ -f
`

// fishScript returns the script for fish, which shows the help texts, too.
func fishScript(program string, levels []level) string {
	var commands, values []string
	var lines strings.Builder
	for _, l := range levels {
		begin := fmt.Sprintf("complete -c %s -n %s", program, fishQuoted("__complete_"+program+" '"+l.at+"'"))
		for _, c := range l.commands {
			commands = append(commands, quoted(l.at+" "+c.Name))
			fmt.Fprintf(&lines, "%s -a %s -d %s\n", begin, c.Name, fishQuoted(c.Help))
		}
		if len(l.args) > 0 {
			if of := choices(l.args[0]); of != nil {
				fmt.Fprintf(&lines, "%s -a %s\n", begin, fishQuoted(strings.Join(of, " ")))
			} else {
				fmt.Fprintf(&lines, "%s -F\n", begin)
			}
		}
		for _, f := range l.flags {
			for _, name := range spellings(f) {
				option, rest := "-l "+strings.TrimLeft(name, "-"), ""
				if !strings.HasPrefix(name, "--") {
					option = "-s " + strings.TrimLeft(name, "-")
				}
				if takesValue(f) {
					values = append(values, quoted(l.at+" "+name))
					if rest = " -r -F"; choices(f.Value) != nil {
						rest = " -r -f -a " + fishQuoted(strings.Join(choices(f.Value), " "))
					}
				}
				fmt.Fprintf(&lines, "%s %s%s -d %s\n", begin, option, rest, fishQuoted(explain(f.Value)))
			}
		}
	}
	return strings.NewReplacer("@PROGRAM@", program, "@COMMANDS@", strings.Join(commands, " "),
		"@VALUES@", strings.Join(values, " ")).Replace(fishTemplate) + lines.String()
}

// fishQuoted returns text in quotes as fish reads them: a backslash stands before quotes and backslashes.
func fishQuoted(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", " ").Replace(text) + "'"
}
