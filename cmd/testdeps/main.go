// Testdeps says what the tests miss on this machine: a line for each tool, or, asked for
// names or packages, those alone on one line. make test and make test-deps run it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"upcall/internal/testing/toolchain"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fmt.Print(say(toolchain.Missing(ctx), strings.Join(os.Args[1:], " ")))
}

func say(missing []toolchain.Tool, what string) string {
	var words, lines []string
	for _, tool := range missing {
		switch {
		case what == "names":
			words = append(words, tool.Name)
		case what == "packages":
			words = append(words, tool.Packages)
		case tool.What != "":
			lines = append(lines, tool.String()+"\n")
		}
	}
	return strings.Join(lines, "") + strings.Join(words, " ")
}
