// Command build builds the programs that tests run, all or those of a task:
//
//	go run ./internal/kubetest/build [-n] [TASK]
//
// With -n it builds nothing and prints the names of those that are missing.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/poldernet/polder/internal/kubetest/program"
)

func main() {
	missing := flag.Bool("n", false, "print what is missing, build nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, flag.Arg(0), *missing)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, task string, missing bool) error {
	for _, p := range program.All {
		if task != "" && p.Task != task {
			continue
		}
		if !missing {
			if err := p.Build(ctx); err != nil {
				return err
			}
		} else if _, err := p.Find(ctx); err != nil {
			fmt.Println(p.Name)
		}
	}
	return nil
}
