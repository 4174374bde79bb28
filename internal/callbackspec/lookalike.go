package callbackspec

import (
	"reflect"
	"slices"
	"strings"
)

const byteOrderMark = "\ufeff"

// checkConstant returns an error for a constant of a template that was meant to have a
// variable in it, or to end a field.
func checkConstant(constant string, pairs bool) error {
	if pairs && strings.Contains(constant, "&amp;") {
		return wrongTemplate("write & in place of &amp;", "is HTML-escaped")
	}
	name := hiddenVariable(constant)
	switch {
	case name == "":
		return nil
	case strings.Contains(constant, "{"+name+"}") && !strings.Contains(constant, "%24{"):
		return wrongTemplate("write ${"+name+"}", "has {%s}, which OSS does not fill in", name)
	}
	return wrongTemplate(plainTemplate, "holds the text of the variable ${%s}: the template was percent-encoded before OSS saw it", name)
}

var percentDecoder = strings.NewReplacer("%24", "$", "%7B", "{", "%7b", "{", "%7D", "}", "%7d", "}", "%3A", ":", "%3a", ":")

// hiddenVariable returns the first variable in a constant that OSS does not see: because it
// was percent-encoded, once or more often, or because the $ before it is missing or another
// character.
func hiddenVariable(constant string) string {
	for before := ""; before != constant; constant = strings.ReplaceAll(constant, "%25", "%") {
		before = constant
		for _, after := range strings.Split(percentDecoder.Replace(constant), "{")[1:] {
			name, _, closed := strings.Cut(after, "}")
			if closed && (slices.Contains(SystemVariables, name) || checkVarName(name) == nil) {
				return name
			}
		}
	}
	return ""
}

// withText returns the first of these variables that has text beside it in the callback that
// their samples made, so that a receiver would take the text for a part of its value.
func withText(callback *Callback, variables []string) string {
	for _, name := range variables {
		n := slices.Index(SystemVariables, name) + 1
		var alone Callback
		_ = alone.set(variableField(&alone, n), name, name, sample(name)) // samples are valid
		want := reflect.ValueOf(variableField(&alone, n)).Elem()
		got := reflect.ValueOf(variableField(callback, n)).Elem()
		if !got.IsZero() && !reflect.DeepEqual(got.Interface(), want.Interface()) {
			return name
		}
	}
	return ""
}

// foreign returns the variable whose field holds something else, of those that say which upload
// a callback is about; "" if none does.
func foreign(callback *Callback) string {
	for _, field := range []struct{ name, holds string }{
		{"bucket", callback.Bucket}, {"object", callback.Object}, {TokenVar, callback.Token},
	} {
		if field.holds != "" && field.holds != sample(field.name) {
			return field.name
		}
	}
	return ""
}

// nearVariable says which variable a wrong name is another spelling of, as the beginning of
// an advice; "" if none.
func nearVariable(name string) string {
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer("_", "", ".", "", "-", "", " ", "").Replace(s))
	}
	near := strings.ToLower(strings.ReplaceAll(name, " ", ""))
	if i := slices.IndexFunc(SystemVariables, func(system string) bool { return plain(system) == plain(name) }); i >= 0 {
		near = SystemVariables[i]
	} else if checkVarName(near) != nil {
		return ""
	}
	return "write ${" + near + "}; "
}
