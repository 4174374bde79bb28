package main

import "github.com/alecthomas/kong"

// environment gives flags the values of the variables that their env tags name. kong
// reads those of the process by itself; this reads the ones that run was given.
func environment(env func(string) string) kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		for _, name := range flag.Envs {
			if value := env(name); value != "" {
				return value, nil
			}
		}
		return nil, nil
	})
}
