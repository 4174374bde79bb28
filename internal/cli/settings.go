package cli

import (
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Settings are the effective settings of a command, for its log: what flags, variables and defaults
// say. Secrets are only named.
type Settings struct {
	values  []slog.Attr // by the name of the variable
	secrets []string    // names of variables and flags
}

// LogValue has a member for each setting.
func (s Settings) LogValue() slog.Value { return slog.GroupValue(s.values...) }

// secretVariables match the variables that hold secrets, or name a file that does. A command that
// prints credentials may hold one.
var secretVariables = regexp.MustCompile(
	`^(DATABASE_URL|UPCALL_DATABASE_URL|UPCALL_STREAM_URL|(UPCALL|OSSEMU|OSS)_[A-Z_]*(_TOKEN|_KEYS|_SECRET|_KEY_ID|_PROCESS))(_FILE)?$`)

// settingsOf returns the settings of the command that was chosen.
func settingsOf(parsed *kong.Context, env Env) Settings {
	var s Settings
	for _, flag := range parsed.Flags() {
		name, value := flag.Tag.Get(settingTag), flag.Target
		text, set := settingText(value)
		switch {
		case !set:
		case name == "" && flag.Name != "help" && flag.Name != "version":
			s.secrets = append(s.secrets, "--"+flag.Name) // a flag without a variable holds a secret
		case secretVariables.MatchString(name):
			s.secrets = append(s.secrets, name)
		case name != "":
			s.values = append(s.values, slog.String(name, text))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if env[name] != "" && secretVariables.MatchString(name) && !slices.Contains(s.secrets, name) {
			s.secrets = append(s.secrets, name)
		}
	}
	slices.SortFunc(s.values, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	return s
}

// settingText is how a setting is shown, and whether it says anything.
func settingText(value reflect.Value) (text string, set bool) {
	if value.Kind() == reflect.Pointer {
		if value.IsNil() {
			return "", false
		}
		value = value.Elem()
	}
	switch value.Kind() {
	case reflect.String:
		return withoutSecrets(value.String()), value.Len() > 0
	case reflect.Bool:
		return fmt.Sprint(value.Bool()), value.Bool()
	case reflect.Slice:
		list := make([]string, value.Len())
		for i := range list {
			list[i] = withoutSecrets(fmt.Sprint(value.Index(i).Interface()))
		}
		return strings.Join(list, ","), len(list) > 0
	}
	return fmt.Sprint(value.Interface()), true
}

// withoutSecrets hides what a URL may hold of them: a password, and the query, where keys of
// webhooks are.
func withoutSecrets(text string) string {
	switch strings.Count(text, "://") {
	case 0:
		return text
	case 1:
	default:
		return "(several URLs)" // of which only the first would be read
	}
	u, err := url.Parse(text)
	if err != nil {
		return "(unreadable)"
	}
	if u.RawQuery != "" {
		u.RawQuery = "xxxxx"
	}
	u.Fragment, u.RawFragment = "", ""
	return u.Redacted()
}
